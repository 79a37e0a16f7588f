"""The `cocoonstack` dialect: what Epoch 0.1.6 and later and the cocoon tools write and read."""

from epoch_oci.dialects.base import Artifact, EncodedSnapshot, EncodeOptions, Snapshot
from epoch_oci.dialects.cocoonstack import image, snapshot, vocabulary
from epoch_oci.epoch.manifest import Manifest
from epoch_oci.errors import ContentError
from epoch_oci.oci.digest import shown
from epoch_oci.oci.document import Document
from epoch_oci.oci.manifest import ImageManifest


class CocoonstackDialect:
    """Translates between an Epoch manifest and an artifact of modern Epoch. Pure: no clock, no environment."""

    name = "cocoonstack"

    def cuts(self, *, cloud_image: bool) -> bool:
        """As `Dialect.cuts`: readers of its snapshots know no parts, those of its images join them."""
        return cloud_image

    def accepts(self, manifest: ImageManifest) -> bool:
        """What modern Epoch and cocoon-common tell by the artifact's type alone (epoch-formats 4.2)."""
        return manifest.artifact_type in vocabulary.SNAPSHOTS | vocabulary.IMAGES

    def encode(self, epoch: Document, options: EncodeOptions) -> Artifact:
        """As `Dialect.encode`. PolicyError when something has no place in the artifact, unless `allow_loss`."""
        manifest = Manifest.parse(epoch)
        # By Epoch's own rule, with the snapshot's ID before it (trap 20).
        write = image.write if manifest.is_cloud_image else snapshot.write
        return write(manifest, options)

    def decode(self, manifest: ImageManifest, config: Document | None) -> Snapshot:
        """As `Dialect.decode`. ContentError (TYPE) when blobs are known only after decoding: see `read_encoded`."""
        encoded = self.read_encoded(manifest, config)
        if encoded is None:
            if manifest.artifact_type in vocabulary.IMAGES:
                return image.read(manifest, config, self.name)
            return snapshot.read(manifest, config, self.name).finish({})
        if not encoded.undigested:
            return encoded.finish({})
        names = [shown(file.name) for file in encoded.undigested]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise ContentError(
            f"{', '.join(names[:3])}{more} of the snapshot are compressed or cut into chunks: what Epoch calls their "
            "digests is known only after their layers were decoded",
            code="TYPE",
            object=str(manifest.document.digest),
            hint="pull the snapshot, which decodes them; two documents alone cannot be translated",
        )

    def read_encoded(self, manifest: ImageManifest, config: Document | None) -> EncodedSnapshot | None:
        """As `Dialect.read_encoded`: a snapshot of version 2."""
        if manifest.artifact_type != vocabulary.SNAPSHOT_V2:
            return None
        return snapshot.read(manifest, config, self.name)
