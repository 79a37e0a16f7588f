"""The stores that the contract suite runs over. A new store is one more row in ``CASES``."""

import json
import os
import stat
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from layouts import write_tar
from support import s3
from support.content import manifest

from contract.registry_cases import fake_registry_case, live_kinds, live_registry_case
from epoch_oci.epoch.manifest import EPOCH_MANIFEST
from epoch_oci.oci import media_types
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.document import Document
from epoch_oci.stores.backends.directory import DirectoryBackend
from epoch_oci.stores.buckets import BucketOptions, open_bucket
from epoch_oci.stores.epoch_store import EpochStore
from epoch_oci.stores.oci_archive import OciArchive
from epoch_oci.stores.oci_layout import OciLayout

CONFIG = b'{"note":"a config"}'
Store = Any
"""Something that is a Source and a Sink."""


@dataclass(frozen=True)
class Kind:
    """What a store publishes: ``document`` refers to blobs, ``parts`` is all that must be stored for it.

    Other processes get it by pickling, so its functions have names.
    """

    document: Callable[[Sequence[bytes], str], Document]
    parts: Callable[[Sequence[bytes]], list[bytes]]
    name: Callable[[str], str]


@dataclass(frozen=True)
class Subject:
    """One fresh store.

    ``open`` makes another client of the same place; it can be pickled where other processes can reach the place.
    ``listing`` is all that is there: two equal listings mean that nothing was written in between. ``plant`` puts bytes
    under a digest behind the store's back; None where a test cannot. Where `exclusive` is false the place has no way to
    say "only if nobody was quicker" (the distribution protocol has none), so a race for a tag may have several winners.
    """

    kind: Kind
    store: Store
    open: Callable[[], Store]
    listing: Callable[[], object]
    plant: Callable[[Digest, bytes], None] | None = None
    processes: bool = True
    exclusive: bool = True


@dataclass(frozen=True)
class StoreCase:
    """``factory`` gets an empty directory of its own."""

    name: str
    factory: Callable[[Path], AbstractContextManager[Subject]]


def descriptor(content: bytes) -> Descriptor:
    return Descriptor(media_type=media_types.OCTET_STREAM, digest=Digest.of(content), size=len(content))


def _epoch_document(blobs: Sequence[bytes], note: str) -> Document:
    layers = [
        {"digest": Digest.of(blob).hex, "size": len(blob), "filename": f"file-{number}", "mediaType": "a/b"}
        for number, blob in enumerate(blobs)
    ]
    value = {"schemaVersion": 1, "name": "bot", "tag": "v1", "snapshotId": note, "layers": layers}
    return Document(EPOCH_MANIFEST, json.dumps(value, indent=3).encode())


def _artifact(blobs: Sequence[bytes], note: str) -> Document:
    return Document(media_types.MANIFEST, manifest(blobs, config=CONFIG, annotations={"note": note}))


def _with_config(blobs: Sequence[bytes]) -> list[bytes]:
    return [CONFIG, *blobs]


EPOCH = Kind(document=_epoch_document, parts=list, name="acme/bot:{}".format)
ARTIFACT = Kind(document=_artifact, parts=_with_config, name=str)


def tree(root: Path) -> dict[str, tuple[object, ...]]:
    """Every file below ``root`` with its kind, size, mode, inode and time of change; hidden ones too."""
    found = {}
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            state = path.lstat()
            found[str(path.relative_to(root))] = (
                stat.S_IFMT(state.st_mode),
                state.st_size,
                stat.S_IMODE(state.st_mode),
                state.st_ino,
                state.st_mtime_ns,
            )
    return found


def plant(root: Path, digest: Digest, content: bytes) -> None:
    path = root / "blobs" / digest.algorithm / digest.hex
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def open_epoch_directory(path: Path) -> EpochStore:
    return EpochStore(DirectoryBackend(path), str(path))


@contextmanager
def _directory_case(kind: Kind, opener: Callable[[Path], Store], root: Path) -> Iterator[Subject]:
    place = root / "store"
    yield Subject(
        kind=kind,
        store=opener(place),
        open=partial(opener, place),
        listing=partial(tree, root),
        plant=partial(plant, place),
    )


def plant_in_archive(archive: Path, digest: Digest, content: bytes) -> None:
    """Another program writes the archive anew, with one more blob."""
    members = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
    if archive.exists():
        with tarfile.open(archive) as old:
            members |= {item.name: old.extractfile(item).read() for item in old if item.isfile()}
    members[f"blobs/{digest.algorithm}/{digest.hex}"] = content
    write_tar(archive, members)


@contextmanager
def _archive_case(root: Path) -> Iterator[Subject]:
    place = root / "store.tar"
    yield Subject(
        kind=ARTIFACT,
        store=OciArchive(place),
        open=partial(OciArchive, place),
        listing=partial(tree, root),
        plant=partial(plant_in_archive, place),
    )


def open_epoch_bucket(environ: dict[str, str]) -> EpochStore:
    """Another client of the bucket that Epoch's variables name."""
    return EpochStore(*open_bucket("s3://", BucketOptions(environ=environ)))


@contextmanager
def _bucket_case(server: Callable[[], Any], root: Path) -> Iterator[Subject]:
    running = server()
    bucket, client = running.make_bucket(), running.client()
    opener = partial(open_epoch_bucket, running.environ(bucket))

    def plant_object(digest: Digest, content: bytes) -> None:
        client.put_object(Bucket=bucket, Key=f"epoch/blobs/sha256/{digest.hex}", Body=content)

    yield Subject(
        kind=EPOCH, store=opener(), open=opener, listing=partial(s3.contents, client, bucket), plant=plant_object
    )


@contextmanager
def _registry_case(root: Path) -> Iterator[Subject]:
    with fake_registry_case(root) as (opener, listing, plant_blob):
        yield Subject(
            kind=ARTIFACT,
            store=opener(),
            open=opener,
            listing=listing,
            plant=plant_blob,
            processes=False,
            exclusive=False,
        )


@contextmanager
def _live_registry_case(kind: str, root: Path) -> Iterator[Subject]:
    with live_registry_case(kind, root) as (opener, listing):
        yield Subject(kind=ARTIFACT, store=opener(), open=opener, listing=listing, exclusive=False)


CASES = [
    StoreCase("fake-registry", _registry_case),
    *(StoreCase(kind, partial(_live_registry_case, kind)) for kind in live_kinds()),
    StoreCase("epoch-directory", partial(_directory_case, EPOCH, open_epoch_directory)),
    StoreCase("oci-layout", partial(_directory_case, ARTIFACT, OciLayout)),
    StoreCase("oci-archive", _archive_case),
    *(StoreCase(f"epoch-bucket-{name}", partial(_bucket_case, server)) for name, server in s3.shared_servers()),
]
