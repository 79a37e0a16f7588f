"""A dialect of one's own: `own_dialect.py STORE SNAPSHOT LAYOUT` writes an artifact of Acme's form and reads it back.

A dialect is a pure function each way, with the methods of `epoch_oci.Dialect`: no clock, no network, the same bytes for
the same manifest. Registered, it is written by its name, and what it accepts is read by every verb.
"""

import sys
from collections.abc import Iterator

from epoch_oci import (
    Artifact,
    ContentError,
    Descriptor,
    Document,
    EncodedSnapshot,
    EncodeOptions,
    ImageManifest,
    Manifest,
    PushOptions,
    Snapshot,
    SnapshotFile,
    inspect,
    pull,
    push,
    register_dialect,
    verify,
)

ARTIFACT = "application/vnd.acme.machine.v1+json"
CONFIG = "application/vnd.acme.machine.config.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
TITLE = "org.opencontainers.image.title"


class AcmeDialect:
    """The Epoch manifest is the config, byte for byte; files are layers in its order, and empty ones have none."""

    name = "acme"

    def cuts(self, *, cloud_image: bool) -> bool:
        """Files travel whole."""
        return False

    def accepts(self, manifest: ImageManifest) -> bool:
        """By the artifact's type alone."""
        return manifest.artifact_type == ARTIFACT

    def encode(self, epoch: Document, options: EncodeOptions) -> Artifact:
        """Translate an Epoch manifest."""
        config = epoch.called(CONFIG)
        files = tuple(files_of(Manifest.parse(epoch)))
        value = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": ARTIFACT,
            "config": config.descriptor.to_json(),
            "layers": [layer.to_json() for file in files for layer in file.carriers],
            "annotations": {key: text for key, text in (options.annotations or {}).items() if text},
        }
        return Artifact(Document.encode(MANIFEST, value), config, files)

    def decode(self, manifest: ImageManifest, config: Document | None) -> Snapshot:
        """Read an artifact back. What disagrees with its config is refused."""
        if config is None or manifest.config.media_type != CONFIG:
            raise ContentError("the artifact has no config of Acme's", code="TYPE")
        epoch = Manifest.parse(config, "the config")
        files = tuple(files_of(epoch))
        if [layer.digest for layer in manifest.layers] != [layer.digest for file in files for layer in file.carriers]:
            raise ContentError("the layers are not those of the config", code="MISMATCH")
        return Snapshot(self.name, epoch, files)

    def read_encoded(self, manifest: ImageManifest, config: Document | None) -> EncodedSnapshot | None:
        """Nothing is compressed, so `decode` reads all of them."""


def files_of(epoch: Manifest) -> Iterator[SnapshotFile]:
    """Every file of the manifest with the layer that carries it."""
    bases = set(epoch.base_images)
    for layer in (*epoch.layers, *epoch.base_images):
        blob = layer.descriptor
        carrier = Descriptor(
            media_type=blob.media_type, digest=blob.digest, size=blob.size, annotations={TITLE: layer.filename}
        )
        yield SnapshotFile(
            name=layer.filename,
            role="base-image" if layer in bases else "layer",
            media_type=blob.media_type,
            digest=blob.digest,
            size=blob.size,
            carriers=(carrier,) if blob.size else (),
        )


def main(store: str, snapshot: str, layout: str) -> int:
    """Out in Acme's form, and back as it was."""
    register_dialect(AcmeDialect())
    report = push(snapshot, to=f"oci:{layout}", store=store, options=PushOptions(dialect="acme"))
    found = inspect(f"oci:{layout}")
    pull(f"oci:{layout}", f"{layout}.back")
    assert verify(f"{layout}.back").ok
    print(report.artifact_type, found.dialect, report.digest)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
