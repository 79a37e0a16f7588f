"""A snapshot from one Epoch store into another, as it is; of what modern Epoch keeps Epoch's old form is made."""

import time

from epoch_oci.artifacts.decode import Decoding
from epoch_oci.artifacts.publish import Publication, files_of
from epoch_oci.artifacts.read import as_snapshot, forgets, read_stored
from epoch_oci.epoch.keys import SnapshotKey
from epoch_oci.errors import ContentError
from epoch_oci.events import OnEvent, ignore
from epoch_oci.flows.pull import PullOptions
from epoch_oci.oci.digest import Digest
from epoch_oci.stores.base import Sink, SnapshotStore, Source
from epoch_oci.transfer.execute import execute
from epoch_oci.transfer.plan import Want, plan_blobs, require
from epoch_oci.transfer.report import TransferReport, done, planned


def transplant(
    source: Source,
    key: SnapshotKey,
    sink: Sink,
    *,
    options: PullOptions | None = None,
    on_event: OnEvent = ignore,
) -> TransferReport:
    """Bring a snapshot's blobs, then its manifest's exact bytes under `options.key`, else under its own key.

    Raises ContentError, NotFoundError, ConflictError, and whatever source and sink raise.
    """
    options = options or PullOptions()
    try:
        return _transplant(source, key, sink, options, on_event)
    except ContentError:
        if not forgets(source, key, options.decode_cache):
            raise
    # What was remembered may be what was wrong, and not the blob: it is found out anew, once.
    return _transplant(source, key, sink, options, on_event)


def _transplant(
    source: Source, key: SnapshotKey, sink: Sink, options: PullOptions, on_event: OnEvent
) -> TransferReport:
    started = time.monotonic()
    how = Decoding(cache=options.decode_cache, jobs=options.jobs, throttle=options.throttle, on_event=on_event)
    snapshot = as_snapshot(source, key, read_stored(source, key), how)
    manifest, source = snapshot.manifest, snapshot.source
    # Under another key the document stays as it is: it says what it was called when it was made (trap 3).
    target = options.key or key
    known = isinstance(sink, SnapshotStore) and sink.expect(str(target), manifest.document, replace=options.force)
    names = {layer.digest: layer.filename for layer in (*manifest.layers, *manifest.base_images)}
    wants = [
        Want(target=blob, content=source.content(blob), title=names.get(blob.digest)) for blob in manifest.descriptors
    ]
    plan = plan_blobs(sink, wants, jobs=options.jobs)
    # Only what must move has to be in the source: a store may have given up what the target has.
    absent: list[Digest] = [item.target.digest for item in plan.items if item.step != "skip"]
    require(source, [blob for blob in manifest.descriptors if blob.digest in absent], names, jobs=options.jobs)
    if options.dry_run:
        blobs = planned(plan, "send")
    else:
        blobs = done(execute(plan, moved="sent", jobs=options.jobs, on_event=on_event, throttle=options.throttle))
        publication = Publication(sink, allow_public=False, replace=options.force)
        publication.commit(str(target), manifest.document, files_of(manifest), known=known and plan.all_there)
    return TransferReport(
        command="sync",
        reference=str(target),
        document=manifest.document,
        artifact_type="",
        name=target.name,
        tag=target.tag,
        blobs=blobs,
        seconds=time.monotonic() - started,
        dry_run=options.dry_run,
        derived=snapshot.derived,
        warnings=snapshot.warnings,
    )
