"""A push and a pull with the `oras` library alone, as its documentation shows them: `plain_oras.py push|pull …`.

Blobs above the library's own chunk size go up in chunks, as it advises for large ones: its other way reads a whole blob
into memory. It checks no digest of what it downloads.
"""

import json
import sys
from pathlib import Path

import oras.defaults
import oras.provider


def _client(address: str) -> oras.provider.Registry:
    return oras.provider.Registry(hostname=address, insecure=True)


def push(layout: Path, address: str, repository: str, tag: str) -> None:
    """Blobs and config, then the manifest."""
    entry = json.loads((layout / "index.json").read_bytes())["manifests"][0]
    manifest = json.loads(_blob(layout, entry["digest"]).read_bytes())
    client = _client(address)
    container = client.get_container(f"{address}/{repository}:{tag}")
    for blob in [*manifest["layers"], manifest["config"]]:
        chunked = blob["size"] > oras.defaults.default_chunksize
        response = client.upload_blob(str(_blob(layout, blob["digest"])), container, blob, do_chunked=chunked)
        client._check_200_response(response)
    client._check_200_response(client.upload_manifest(manifest, container))


def pull(address: str, repository: str, tag: str, target: Path) -> None:
    """Every blob to a file under its digest."""
    client = _client(address)
    container = client.get_container(f"{address}/{repository}:{tag}")
    manifest = client.get_manifest(container)
    for blob in [*manifest["layers"], manifest["config"]]:
        client.download_blob(container, blob["digest"], str(_blob(target, blob["digest"])))


def _blob(root: Path, digest: str) -> Path:
    return root / "blobs" / "sha256" / digest.removeprefix("sha256:")


def main(words: list[str]) -> None:
    """Do what `words` say."""
    match words:
        case ["push", layout, address, repository, tag]:
            push(Path(layout), address, repository, tag)
        case ["pull", address, repository, tag, target]:
            pull(address, repository, tag, Path(target))
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
