"""Translation of many manifests through the library, schema validation on: `translate.py COUNT [profile]`.

Prints seconds and count; with `profile` the functions that took the time as well.
"""

import cProfile
import hashlib
import io
import json
import pstats
import sys
import time

from epoch_oci.flows.convert import to_oci

FILES = ("cidata.img", "config.json", "cow.raw", "memory-ranges", "overlay.qcow2", "state.json")
TYPES = ("cidata", "config+json", "disk.raw", "memory", "disk.qcow2", "state+json")


def documents(count: int) -> list[bytes]:
    """`count` Epoch manifests, no two alike, each with six layers and a base image."""
    return [_document(number) for number in range(count)]


def _layer(number: int, name: str, kind: str) -> dict[str, object]:
    digest = hashlib.sha256(f"{number}/{name}".encode()).hexdigest()
    return {"digest": digest, "size": 4096 + number, "filename": name, "mediaType": f"application/vnd.cocoon.{kind}"}


def _document(number: int) -> bytes:
    layers = [_layer(number, name, kind) for name, kind in zip(FILES, TYPES, strict=True)]
    base = _layer(number, "base.qcow2", "disk.qcow2")
    document = {
        "schemaVersion": 1,
        "name": f"agent-{number % 100}",
        "tag": f"v{number}",
        "snapshotId": f"{number:016x}",
        "image": "ubuntu-24.04",
        "cpu": 2,
        "memory": 1 << 30,
        "storage": 10 << 30,
        "nics": 1,
        "layers": layers,
        "baseImages": [base],
        "totalSize": 7 * (4096 + number),
        "createdAt": "2026-01-15T09:30:00.123456789Z",
        "pushedAt": "2026-01-15T09:31:00Z",
    }
    return json.dumps(document, indent=2).encode()


def translate(raw: list[bytes]) -> float:
    """The seconds for all of them."""
    begin = time.perf_counter()
    for document in raw:
        to_oci(document)
    return time.perf_counter() - begin


def main(words: list[str]) -> None:
    """Translate and print."""
    raw = documents(int(words[0]))
    if words[1:] == ["profile"]:
        profile = cProfile.Profile()
        profile.runcall(translate, raw)
        text = io.StringIO()
        pstats.Stats(profile, stream=text).strip_dirs().sort_stats("tottime").print_stats(15)
        print(text.getvalue())
        return
    print(json.dumps({"seconds": translate(raw), "count": len(raw)}))


if __name__ == "__main__":
    main(sys.argv[1:])
