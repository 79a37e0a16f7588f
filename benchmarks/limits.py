"""What the machine allows, each in a process of its own: `limits.py put|get|put8|get8|socket|sha256 …`.

Prints seconds and bytes. The seconds are those of the work alone, without the start of the interpreter.
"""

import concurrent.futures
import contextlib
import hashlib
import http.client
import json
import os
import socket
import ssl
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MIB = 1024 * 1024
EIGHT = 8
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def _connect(address: str) -> http.client.HTTPConnection:
    host, _, port = address.rpartition(":")
    if "EPOCH_OCI_BENCH_TLS" in os.environ:
        context = ssl.create_default_context()  # finds the authority by SSL_CERT_FILE
        return http.client.HTTPSConnection(host, int(port), timeout=600, blocksize=MIB, context=context)
    return http.client.HTTPConnection(host, int(port), timeout=600, blocksize=MIB)


def _done(response: http.client.HTTPResponse, *statuses: int) -> http.client.HTTPResponse:
    if response.status not in statuses:
        raise SystemExit(f"the registry answered {response.status}: {response.read(500)!r}")
    return response


def _blobs(layout: Path) -> list[Path]:
    """The files that the layout's one manifest names."""
    manifest = json.loads(_manifest(layout))
    return [_blob(layout, each["digest"]) for each in [*manifest["layers"], manifest["config"]]]


def _blob(layout: Path, digest: str) -> Path:
    return layout / "blobs" / "sha256" / digest.removeprefix("sha256:")


def _manifest(layout: Path) -> bytes:
    entry = json.loads((layout / "index.json").read_bytes())["manifests"][0]
    return _blob(layout, entry["digest"]).read_bytes()


def put(layout: Path, address: str, repository: str, tag: str) -> int:
    """POST and one PUT a blob, one after the other on one connection, in blocks of 1 MiB; the manifest last."""
    total = 0
    with contextlib.closing(_connect(address)) as connection:
        for path in _blobs(layout):
            connection.request("POST", f"/v2/{repository}/blobs/uploads/")
            response = _done(connection.getresponse(), 202)
            response.read()
            location = response.headers["Location"].partition(address)[2]
            size = path.stat().st_size
            total += size
            headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
            with path.open("rb", buffering=0) as body:
                connection.request("PUT", f"{location}&digest=sha256:{path.name}", body, headers)
                _done(connection.getresponse(), 201).read()
        headers = {"Content-Type": OCI_MANIFEST}
        connection.request("PUT", f"/v2/{repository}/manifests/{tag}", _manifest(layout), headers)
        _done(connection.getresponse(), 201).read()
    return total


def get(address: str, repository: str, tag: str, target: Path) -> int:
    """One GET a blob, one after the other on one connection, to a file in blocks of 1 MiB; nothing is checked."""
    total = 0
    buffer = memoryview(bytearray(MIB))
    _blob(target, "").mkdir(parents=True)
    with contextlib.closing(_connect(address)) as connection:
        connection.request("GET", f"/v2/{repository}/manifests/{tag}", headers={"Accept": OCI_MANIFEST})
        manifest = json.loads(_done(connection.getresponse(), 200).read())
        for blob in [*manifest["layers"], manifest["config"]]:
            connection.request("GET", f"/v2/{repository}/blobs/{blob['digest']}")
            response = _done(connection.getresponse(), 200)
            with _blob(target, blob["digest"]).open("wb", buffering=0) as file:
                while got := response.readinto(buffer):
                    total += file.write(buffer[:got])
    return total


def put8(layout: Path, address: str, repository: str, tag: str) -> int:
    """The bytes of all blobs in eight even shares, each in one PUT on a connection of its own.

    A registry wants a digest at the end; the shares are hashed before the clock starts, see `main`.
    """
    with concurrent.futures.ThreadPoolExecutor(EIGHT) as pool:
        return sum(pool.map(lambda share: _put_share(address, repository, share), _shares(layout)))


_DIGESTS: dict[tuple[Path, int], str] = {}


def _shares(layout: Path) -> list[tuple[Path, int, int]]:
    """Path, offset and length of about eight shares."""
    blobs = _blobs(layout)
    length = -(-sum(path.stat().st_size for path in blobs) // EIGHT)
    return [
        (path, offset, min(length, path.stat().st_size - offset))
        for path in blobs
        for offset in range(0, path.stat().st_size, length)
    ]


def _prepare(layout: Path) -> None:
    for path, offset, length in _shares(layout):
        digest = hashlib.sha256()
        for block in _range(path, offset, length):
            digest.update(block)
        _DIGESTS[path, offset] = digest.hexdigest()


def _range(path: Path, offset: int, length: int) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        while length and (block := file.read(min(MIB, length))):
            length -= len(block)
            yield block


def _put_share(address: str, repository: str, share: tuple[Path, int, int]) -> int:
    path, offset, length = share
    with contextlib.closing(_connect(address)) as connection:
        connection.request("POST", f"/v2/{repository}/blobs/uploads/")
        response = _done(connection.getresponse(), 202)
        response.read()
        location = response.headers["Location"].partition(address)[2]
        headers = {"Content-Length": str(length), "Content-Type": "application/octet-stream"}
        target = f"{location}&digest=sha256:{_DIGESTS[path, offset]}"
        connection.request("PUT", target, _range(path, offset, length), headers)
        _done(connection.getresponse(), 201).read()
    return length


def get8(address: str, repository: str, tag: str, target: Path) -> int:
    """The bytes of all blobs in ranges of an eighth, each on a connection of its own; nothing is checked."""
    _blob(target, "").mkdir(parents=True)
    with contextlib.closing(_connect(address)) as connection:
        connection.request("GET", f"/v2/{repository}/manifests/{tag}", headers={"Accept": OCI_MANIFEST})
        manifest = json.loads(_done(connection.getresponse(), 200).read())
    blobs = [*manifest["layers"], manifest["config"]]
    length = -(-sum(blob["size"] for blob in blobs) // EIGHT)
    ranges = []
    for blob in blobs:
        with _blob(target, blob["digest"]).open("wb") as file:
            file.truncate(blob["size"])
        ranges += [(blob, start) for start in range(0, blob["size"], length)]
    with concurrent.futures.ThreadPoolExecutor(EIGHT) as pool:
        return sum(pool.map(lambda each: _get_range(address, repository, *each, length, target), ranges))


def _get_range(address: str, repository: str, blob: dict[str, Any], start: int, length: int, target: Path) -> int:
    total = 0
    buffer = memoryview(bytearray(MIB))
    with contextlib.closing(_connect(address)) as connection, _blob(target, blob["digest"]).open("r+b", 0) as file:
        file.seek(start)
        headers = {"Range": f"bytes={start}-{min(start + length, blob['size']) - 1}"}
        connection.request("GET", f"/v2/{repository}/blobs/{blob['digest']}", headers=headers)
        response = _done(connection.getresponse(), 200, 206)
        while got := response.readinto(buffer):
            total += file.write(buffer[:got])
    return total


def sha256(layout: Path) -> int:
    """Hash every blob on one core."""
    total = 0
    buffer = memoryview(bytearray(MIB))
    for path in _blobs(layout):
        digest = hashlib.sha256()
        with path.open("rb", buffering=0) as file:
            while got := file.readinto(buffer):
                digest.update(buffer[:got])
                total += got
        if digest.hexdigest() != path.name:
            raise SystemExit(f"{path.name} does not hash to its name")
    return total


def loopback(layout: Path) -> int:
    """Send every blob through a TCP connection to a process that throws it away."""
    server = socket.create_server(("127.0.0.1", 0))
    if os.fork() == 0:
        _discard(server)
        os._exit(0)
    total = 0
    buffer = memoryview(bytearray(MIB))
    with socket.create_connection(server.getsockname()) as connection:
        for path in _blobs(layout):
            with path.open("rb", buffering=0) as file:
                while got := file.readinto(buffer):
                    connection.sendall(buffer[:got])
                    total += got
        connection.shutdown(socket.SHUT_WR)
        if connection.recv(1) != b"!":
            raise SystemExit("the receiver has gone")
    os.wait()
    return total


def _discard(server: socket.socket) -> None:
    connection, _ = server.accept()
    buffer = bytearray(MIB)
    while connection.recv_into(buffer):
        pass
    connection.sendall(b"!")


def main(words: list[str]) -> None:
    """Do what `words` say and print how long it took."""
    if words[:1] == ["put8"]:
        _prepare(Path(words[1]))
    begin = time.perf_counter()
    match words:
        case ["put", layout, address, repository, tag]:
            total = put(Path(layout), address, repository, tag)
        case ["get", address, repository, tag, target]:
            total = get(address, repository, tag, Path(target))
        case ["put8", layout, address, repository, tag]:
            total = put8(Path(layout), address, repository, tag)
        case ["get8", address, repository, tag, target]:
            total = get8(address, repository, tag, Path(target))
        case ["sha256", layout]:
            total = sha256(Path(layout))
        case ["socket", layout]:
            total = loopback(Path(layout))
        case _:
            raise SystemExit(__doc__)
    print(json.dumps({"seconds": time.perf_counter() - begin, "bytes": total}))


if __name__ == "__main__":
    main(sys.argv[1:])
