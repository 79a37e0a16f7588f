"""Translate an Epoch manifest to OCI and back: `translate.py manifests/bot/v3.json`. No network, no clock, no blob."""

import sys
from pathlib import Path

from epoch_oci import ContentError, to_epoch, to_oci


def main(path: str) -> int:
    """Print the digest and the files; 3 for a manifest that is wrong, as the command line has it."""
    raw = Path(path).read_bytes()
    try:
        artifact = to_oci(raw)
    except ContentError as error:
        for finding in error.findings:
            print(finding, file=sys.stderr)
        return 3
    assert to_epoch(artifact).raw == raw  # the manifest travels inside, byte for byte
    print(artifact.manifest.digest)
    for file in artifact.files:
        print(f"{file.size:>12} {file.digest} {file.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
