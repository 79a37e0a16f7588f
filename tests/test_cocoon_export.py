"""Reading export archives: once, from a pipe, with bounded memory and disk, and nothing but whole, plain ones."""

import gzip
import io
import os
import stat
import struct
import subprocess
import sys
import tarfile
import textwrap
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from cocoon_world import (
    BLOB_ID,
    DATA,
    Item,
    archive,
    bodies,
    config,
    cuts,
    envelope,
    everything,
    noise,
    packed,
    read,
)

from epoch_oci import schemas
from epoch_oci.cocoon.envelope import ENVELOPE_LIMIT
from epoch_oci.cocoon.export_archive import ExportArchive
from epoch_oci.cocoon.tar import PAX_LIMIT
from epoch_oci.epoch.manifest import MANIFEST_LIMIT, media_type_for_file
from epoch_oci.errors import ContentError, EpochOciError, LocalIOError
from epoch_oci.oci.digest import Digest

BODY = noise("body", 3000)


class Pipe:
    """A stream like a pipe: short reads of odd lengths, no seeking."""

    def __init__(self, raw: bytes, step: int) -> None:
        self._stream = io.BytesIO(raw)
        self._step = step

    def read(self, size: int = -1, /) -> bytes:
        return self._stream.read(self._step if size < 0 else min(size, self._step))


def refused(raw: bytes, spool_dir: Path) -> ContentError:
    opened = []
    with pytest.raises(ContentError) as caught, ExportArchive(io.BytesIO(raw), spool_dir) as found:
        opened.append(found)
        for _ in found:
            pass
    for found in opened:
        with pytest.raises(ContentError):
            found.document()  # no manifest is made of what was refused
    assert list(spool_dir.iterdir()) == []
    return caught.value


@pytest.mark.parametrize("name", ["export-0.3.8.tar", "export-0.3.8-bare.tar", "export-0.2.6.tar.gz"])
@pytest.mark.parametrize("step", [1 << 20, 511])
def test_recorded_archives(name: str, step: int, tmp_path: Path) -> None:
    """Traps 4, 7, 11 and 13: times that nobody knows are zero; modes, maps, a null map and empty files are kept."""
    raw = (DATA / name).read_bytes()
    plain = gzip.decompress(raw) if name.endswith(".gz") else raw
    content = bodies(plain)
    with ExportArchive(Pipe(raw, step), tmp_path) as found:
        blobs = {item.file.name: everything(item.content) for item in found}
        document = found.document()
    manifest = read(raw, tmp_path).manifest
    assert manifest.document == document
    assert blobs == {entry: body for entry, body in content.items() if entry != "snapshot.json"}
    assert [layer.filename for layer in manifest.layers] == list(blobs)
    for layer in manifest.layers:
        assert layer.digest == Digest.of(blobs[layer.filename])
        assert layer.media_type == media_type_for_file(layer.filename)
    assert (manifest.writer, manifest.name, manifest.tag) == ("epoch-oci", "warm", "latest")
    assert (manifest.created_at, manifest.pushed_at) == ("0001-01-01T00:00:00Z",) * 2
    assert manifest.total_size == sum(map(len, blobs.values()))
    assert manifest.storage == 64 << 20
    assert document.json(limit=MANIFEST_LIMIT)["cocoonEnvelope"].encode() == content["snapshot.json"]
    headers = manifest.layer_headers
    assert headers["cocoon.json"].mode == 0o600 and headers["dense.raw"].mode == 0o666
    assert headers["data-hole.raw"].pax_records == packed(None, 1 << 20)
    assert headers["cow.raw"].pax_records == packed([(4096, 4096), (48 << 20, 4096)], 64 << 20)
    assert manifest.warnings == ()
    assert schemas.findings(document.json(limit=MANIFEST_LIMIT), "epoch-manifest.v1") == []


def test_the_same_archive_gives_the_same_manifest(tmp_path: Path) -> None:
    """Owner, time and compression say nothing about a snapshot."""
    plain, bare = (read((DATA / f"export-0.3.8{kind}.tar").read_bytes(), tmp_path) for kind in ("", "-bare"))
    assert plain.document == bare.document
    assert read(gzip.compress((DATA / "export-0.3.8.tar").read_bytes()), tmp_path).document == plain.document
    script = textwrap.dedent("""
        import pathlib, sys, tempfile
        from epoch_oci.cocoon.export_archive import ExportArchive
        with tempfile.TemporaryDirectory() as folder, ExportArchive(sys.stdin.buffer, pathlib.Path(folder)) as found:
            list(found)
            print(found.document().digest)
    """)
    for seed, zone in (("0", "UTC"), ("7", "Asia/Shanghai")):
        environ = {**os.environ, "PYTHONHASHSEED": seed, "TZ": zone, "LC_ALL": "C"}
        done = subprocess.run(
            [sys.executable, "-c", script],
            input=(DATA / "export-0.3.8.tar").read_bytes(),
            capture_output=True,
            env=environ,
            check=True,
        )
        assert done.stdout.decode().strip() == str(plain.document.digest)


def test_another_name(tmp_path: Path) -> None:
    raw = archive(Item("a", BODY))
    found = read(raw, tmp_path, "team/bot", "v2")
    assert (found.manifest.name, found.manifest.tag) == ("team/bot", "v2")


def test_the_envelope_may_stand_anywhere(tmp_path: Path) -> None:
    raw = archive(Item("a", BODY), Item("snapshot.json", envelope()), Item("b", BODY), head=None)
    assert [file.name for file in read(raw, tmp_path).files] == ["a", "b"]


def test_files_that_the_envelope_lists_must_be_there(tmp_path: Path) -> None:
    """Later Cocoon versions list them: the only sign of an archive that was cut and mended."""
    listed = envelope(config(), files=["a", "b"])
    assert refused(archive(Item("a", BODY), head=listed), tmp_path).code == "MISMATCH"
    assert len(read(archive(Item("a", BODY), Item("b"), head=listed), tmp_path).files) == 2


def test_what_the_envelope_says_is_in_the_manifest(tmp_path: Path) -> None:
    members = config(storage=5, image_blob_ids={BLOB_ID: {}}, queue_size=256, x=[1])
    found = read(archive(Item("a", BODY), head=envelope(members)), tmp_path)
    assert found.manifest.image_blob_ids == {BLOB_ID: BLOB_ID}
    assert (found.manifest.snapshot_id, found.manifest.image) == (members["id"], members["image"])
    assert (found.manifest.cpu, found.manifest.memory, found.manifest.nics) == (2, 1 << 30, 1)


LINKS = {
    "hard-link": (tarfile.LNKTYPE, "a hard link"),
    "symlink": (tarfile.SYMTYPE, "a symbolic link"),
    "device": (tarfile.CHRTYPE, "a device"),
    "block-device": (tarfile.BLKTYPE, "a device"),
    "fifo": (tarfile.FIFOTYPE, "a FIFO"),
    "directory": (tarfile.DIRTYPE, "a directory"),
    "contiguous": (tarfile.CONTTYPE, "a contiguous file"),
    "gnu-sparse": (tarfile.GNUTYPE_SPARSE, "a GNU sparse file"),
    "gnu-long-name": (tarfile.GNUTYPE_LONGNAME, "a GNU long name"),
    "unknown": (b"Z", "an entry of type"),
}


@pytest.mark.parametrize("kind", LINKS)
def test_only_files(kind: str, tmp_path: Path) -> None:
    kind_byte, word = LINKS[kind]
    error = refused(archive(Item("a", BODY), Item("b", kind=kind_byte)), tmp_path)
    assert error.code == "TYPE" and word in error.message


@pytest.mark.parametrize(
    "name",
    [
        *("../x", "a/b", "/etc/passwd", "./config.json", "..", ".", "a\\b", "C:x", "a b", "-a", ".hidden", "größe"),
        *("CON", "nul.txt", "x.", "x" * 256, "a\x1b[31m", "x/snapshot.json", "SNAPSHOT.JSON", "./snapshot.json"),
    ],
)
def test_flat_portable_names(name: str, tmp_path: Path) -> None:
    """Trap 27: a file of the envelope's name, and paths that Cocoon would flatten."""
    error = refused(archive(Item("fine", BODY), Item(name, BODY)), tmp_path)
    assert error.code == "NAME" and "\x1b" not in str(error)


@pytest.mark.parametrize("names", [("a", "a"), ("a.raw", "A.RAW"), ("cow.raw", "state.json", "Cow.raw")])
def test_no_name_twice(names: tuple[str, ...], tmp_path: Path) -> None:
    """Trap 26: Cocoon lets the last one win."""
    assert refused(archive(*(Item(name, BODY) for name in names)), tmp_path).code == "NAME"


def test_no_envelope_twice_and_not_none(tmp_path: Path) -> None:
    assert refused(archive(Item("snapshot.json", envelope())), tmp_path).code == "NAME"
    assert refused(archive(Item("a", BODY), head=None), tmp_path).code == "TYPE"
    assert refused(archive(head=b" " * (ENVELOPE_LIMIT + 1)), tmp_path).code == "SIZE"
    odd = archive(Item("snapshot.json", envelope(), pax=packed([(0, len(envelope()))], 5000)), head=None)
    assert refused(odd, tmp_path).code == "TYPE"
    assert refused(archive(head=b"{}"), tmp_path).code == "TYPE"


BAD_MAPS = {
    "no-size": ({"COCOON.sparse.map": "[]"}, 0),
    "no-map": ({"COCOON.sparse.size": "5"}, 0),
    "size-zero": (packed([], 0), 0),
    "size-text": ({**packed([(0, 5)], 5), "COCOON.sparse.size": "0x5"}, 5),
    "size-huge": (packed([(0, 5)], 2**62), 5),
    "beyond-the-end": (packed([(4096, 4096)], 8191), 4096),
    "overlapping": (packed([(0, 4096), (4095, 4096)], 1 << 20), 8192),
    "descending": (packed([(8192, 10), (0, 10)], 1 << 20), 20),
    "sum-too-small": (packed([(0, 10)], 1 << 20), 11),
    "sum-too-large": (packed([(0, 12)], 1 << 20), 11),
    "null-with-content": (packed(None, 1 << 20), 1),
    "negative-offset": ({**packed([], 9), "COCOON.sparse.map": '[{"o":-1,"l":5}]'}, 5),
    "a-float": ({**packed([], 9), "COCOON.sparse.map": '[{"o":0,"l":5.0}]'}, 5),
    "more-members": ({**packed([], 9), "COCOON.sparse.map": '[{"o":0,"l":5,"x":1}]'}, 5),
    "keys-twice": ({**packed([], 9), "COCOON.sparse.map": '[{"o":0,"o":1,"l":5}]'}, 5),
    "no-json": ({**packed([], 9), "COCOON.sparse.map": "[{"}, 5),
    "an-object": ({**packed([], 9), "COCOON.sparse.map": "{}"}, 0),
}


@pytest.mark.parametrize("kind", BAD_MAPS)
def test_sparse_maps_that_fit_nothing(kind: str, tmp_path: Path) -> None:
    pax, size = BAD_MAPS[kind]
    error = refused(archive(Item("cow.raw", noise("x", size), pax=pax)), tmp_path)
    assert "cow.raw" in error.message


def test_a_disk_whose_map_was_lost(tmp_path: Path) -> None:
    """Trap 8: `tar x` and `tar c` leave the packed bytes, and nothing tells where they belong."""
    head = envelope(config(storage=1 << 20))
    lost = Item("cow.raw", BODY)
    assert "sparse map was lost" in refused(archive(lost, head=head), tmp_path).message
    read(archive(Item("cow.raw", BODY, pax=packed([(0, len(BODY))], 1 << 20)), head=head), tmp_path)
    read(archive(Item("cow.raw", noise("all", 1 << 20)), head=head), tmp_path)


def test_gnu_sparse_files(tmp_path: Path) -> None:
    pax = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "5"}
    assert refused(archive(Item("cow.raw", BODY, pax=pax)), tmp_path).code == "TYPE"


def pax_block(body: bytes, size: int | None = None) -> bytes:
    """A PAX header by hand, of `size` bytes as it claims."""
    info = tarfile.TarInfo("PaxHeaders.0/a")
    info.type, info.size = tarfile.XHDTYPE, len(body) if size is None else size
    return info.tobuf(tarfile.USTAR_FORMAT) + body + bytes(-len(body) % 512)


def with_pax(blocks: bytes) -> bytes:
    whole = archive(Item("a", BODY))
    at = whole.index(b"a\x00\x00\x00\x00\x00")
    return whole[:at] + blocks + whole[at:]


@pytest.mark.parametrize(
    "body",
    [
        b"9 a=b\n",
        b"6 a=b",
        b"06 a=b\n",
        b"x a=b\n",
        b"6 =ab\n",
        b"8 a=b\n\n",
        b"6 a b\n",
        b"7 a=\x00b\n",
        b"7 a=\xffb\n",
        b"6 a=b\n6 a=c\n",
        b"99999999 a=b\n",
        b"11 size=-5\n",
        b"26 size=99999999999999999999\n",
        b"13 size=0x10\n",
        b"14 linkpath=\n",
        b"12 path=a/b\n",
        b"17 path=../a\xe2\x80\xae\n",
    ],
)
def test_damaged_pax_records(body: bytes, tmp_path: Path) -> None:
    refused(with_pax(pax_block(body)), tmp_path)


def test_pax_records_at_the_limit_and_above(tmp_path: Path) -> None:
    """Trap 12: Go's archive/tar reads a mebibyte of them."""
    value = "v" * (PAX_LIMIT - len("1048576 COMMENT.x=\n"))
    fitting = f"1048576 COMMENT.x={value}\n".encode()
    assert len(fitting) == PAX_LIMIT
    assert read(with_pax(pax_block(fitting)), tmp_path).files[0].pax_records == {"COMMENT.x": value}
    for size in (PAX_LIMIT + 1, 10 << 20, 1 << 32):
        tracemalloc.start()
        assert refused(with_pax(pax_block(b"", size)), tmp_path).code == "SIZE"
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4 << 20


def test_a_size_that_has_no_room_in_the_header(tmp_path: Path) -> None:
    """Go writes 0 there, and the size as a record; the record counts, and is kept."""
    whole = bytearray(archive(Item("a", BODY), head=None, end=False))
    whole[124:136] = b"%011o\x00" % 0
    whole[148:156] = b"%06o\x00 " % (sum(whole[:148]) + 256 + sum(whole[156:512]))
    found = read(pax_block(b"13 size=3000\n") + bytes(whole) + archive(), tmp_path)
    assert found.blobs == {"a": BODY} and found.files[0].pax_records == {"size": "3000"}


def test_pax_records_without_a_file(tmp_path: Path) -> None:
    block = pax_block(b"6 a=b\n")
    assert refused(with_pax(block + block), tmp_path).code == "TYPE"
    whole = archive(end=False)
    assert refused(whole + block + bytes(1024), tmp_path).code == "TYPE"


def test_other_writers_headers(tmp_path: Path) -> None:
    """GNU's form of ustar, sizes in binary, and the form before ustar are read as well."""
    for form in (tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w|", format=form) as made:
            for name, raw in (("snapshot.json", envelope()), ("a", BODY)):
                info = tarfile.TarInfo(name)
                info.size, info.mode = len(raw), 0o100640
                made.addfile(info, io.BytesIO(raw))
        found = read(stream.getvalue(), tmp_path)
        assert found.blobs == {"a": BODY} and found.files[0].header.mode == 0o640
    raw = bytearray(archive(Item("a", BODY), head=None, end=False))
    raw[124:136] = b"\x80" + bytes(7) + struct.pack(">I", len(BODY))
    raw[257:265] = bytes(8)
    raw[148:156] = b"%06o\x00 " % (sum(raw[:148]) + 256 + sum(raw[156:512]))
    assert read(bytes(raw) + archive(), tmp_path).blobs == {"a": BODY}


@pytest.mark.parametrize("at", [0, 3, 100, 124, 156, 257, 511])
def test_a_flipped_bit_in_a_header(at: int, tmp_path: Path) -> None:
    raw = bytearray(archive(Item("a", BODY)))
    start = raw.index(b"a\x00\x00\x00\x00\x00")
    raw[start + at] ^= 1
    assert refused(bytes(raw), tmp_path).code in ("TYPE", "NAME")


@pytest.mark.parametrize(("field", "text"), [((124, 136), b"99999999999\x00"), ((100, 108), b"+000644\x00")])
def test_numbers_that_are_none(field: tuple[int, int], text: bytes, tmp_path: Path) -> None:
    raw = bytearray(archive(Item("a", BODY), head=None))
    raw[slice(*field)] = text
    raw[148:156] = b"%06o\x00 " % (sum(raw[:148]) + 256 + sum(raw[156:512]))
    assert refused(bytes(raw), tmp_path).code == "TYPE"


def test_every_cut_is_noticed(tmp_path: Path) -> None:
    """Also one between two entries, which Cocoon's own import takes for the end."""
    raw = archive(Item("a", BODY), Item("b", b"", pax=packed(None, 4096)), Item("c", BODY[:512]))
    end = len(archive(Item("a", BODY), Item("b", b"", pax=packed(None, 4096)), Item("c", BODY[:512]), end=False))
    for cut in cuts(raw[: end + 1024], 64):
        assert refused(cut, tmp_path).code == "SIZE"
    read(raw[: end + 1024], tmp_path)


def test_what_follows_the_end(tmp_path: Path) -> None:
    raw = archive(Item("a", BODY))
    read(raw + bytes(1 << 19), tmp_path)
    assert refused(raw + b"\x01", tmp_path).code == "TYPE"
    assert refused(raw + archive(Item("b", BODY)), tmp_path).code == "TYPE"
    assert refused(raw + bytes(2 << 20), tmp_path).code == "SIZE"
    assert refused(archive(Item("a", BODY), end=False) + bytes(512) + b"\x01" * 512, tmp_path).code == "TYPE"


def test_gzip(tmp_path: Path) -> None:
    """Members one after another are one stream, as Go reads them; every checksum counts."""
    raw = archive(Item("a", BODY))
    half = gzip.compress(raw[:1000]) + gzip.compress(raw[1000:])
    assert read(half, tmp_path).blobs == {"a": BODY}
    whole = gzip.compress(raw)
    for cut in (whole[:-1], whole[:-8], whole[: len(whole) // 2], whole[:20], whole[:5], half[:-3]):
        refused(cut, tmp_path)
    for at in (len(whole) - 8, len(whole) - 1, len(whole) // 2):
        wrong = bytearray(whole)
        wrong[at] ^= 1
        refused(bytes(wrong), tmp_path)
    refused(whole + b"garbage", tmp_path)


@pytest.mark.parametrize(
    "raw", [b"", b"\x28\xb5\x2f\xfd....", b"\xfd7zXZ\x00....", b"BZh9....", b"not a tar", b"\0" * 600]
)
def test_no_archive_at_all(raw: bytes, tmp_path: Path) -> None:
    refused(raw, tmp_path)


def many_entries(count: int) -> Iterator[bytes]:
    yield archive(end=False)
    for index in range(count):
        yield tarfile.TarInfo(f"f{index}").tobuf(tarfile.USTAR_FORMAT)


class Chunks:
    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""
        self.handed_out = 0

    def read(self, size: int = -1, /) -> bytes:
        if not self._rest:
            self._rest = next(self._chunks, b"")
        block, self._rest = self._rest[:size], self._rest[size:]
        self.handed_out += len(block)
        return block


def test_a_million_entries(tmp_path: Path) -> None:
    """Given up as soon as there are more than a snapshot may have."""
    stream = Chunks(many_entries(1_000_000))
    with pytest.raises(ContentError) as caught, ExportArchive(stream, tmp_path) as found:
        for _ in found:
            pass
    assert caught.value.code == "SIZE"
    assert stream.handed_out < 2100 * 512 + 4096


def test_memory_and_disk_are_bounded(tmp_path: Path) -> None:
    """Three files of 24 MiB: a few blocks of memory, and no more than one of them on the disk."""
    size = 24 << 20
    blocks = [noise(str(index), 1 << 18) * 4 for index in range(4)]

    def stream() -> Iterator[bytes]:
        yield archive(end=False)
        for name in ("a", "b", "c"):
            info = tarfile.TarInfo(name)
            info.size = size
            yield info.tobuf(tarfile.USTAR_FORMAT)
            for index in range(24):
                yield blocks[index % 4]
        yield bytes(1024)

    used = []
    tracemalloc.start()
    with ExportArchive(Chunks(stream()), tmp_path) as found:
        for item in found:
            assert item.content.size == size
            descriptor = item.content.descriptor
            state = os.fstat(descriptor)
            assert (state.st_nlink, stat.S_IMODE(state.st_mode)) == (0, 0o600)
            used.append(descriptor)
            assert list(tmp_path.iterdir()) == []
        for descriptor in set(used):
            with pytest.raises(OSError):
                os.fstat(descriptor)
        assert len(found.document().json()["layers"]) == 3
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


def test_a_bomb_takes_no_room(tmp_path: Path) -> None:
    """A quarter of a gigabyte of zeros in a few hundred kilobytes: holes on the disk, blocks in memory."""
    size = 256 << 20
    packer = zlib.compressobj(9, wbits=31)
    info = tarfile.TarInfo("mem")
    info.size = size
    raw = packer.compress(archive(end=False) + info.tobuf(tarfile.USTAR_FORMAT))
    raw += b"".join(packer.compress(bytes(1 << 20)) for _ in range(256)) + packer.compress(bytes(1024)) + packer.flush()
    tracemalloc.start()
    with ExportArchive(io.BytesIO(raw), tmp_path) as found:
        item = next(found)
        assert os.fstat(item.content.descriptor).st_blocks * 512 < 1 << 20
        assert item.file.size == item.content.size == size
        with item.content.open(size - 10) as reader:
            assert reader.read(100) == bytes(10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20


def test_spooled_content_is_read_from_anywhere_and_again(tmp_path: Path) -> None:
    with ExportArchive(io.BytesIO(archive(Item("a", BODY))), tmp_path) as found:
        item = next(found)
        for start, length in ((0, None), (0, None), (100, 50), (2999, 10), (3000, 5)):
            with item.content.open(start, length) as reader:
                assert reader.read(1 << 20) == BODY[start : None if length is None else start + length]


def test_a_spool_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LocalIOError), ExportArchive(io.BytesIO(archive(Item("a", BODY))), tmp_path / "no") as found:
        next(found)


def test_a_file_system_without_unnamed_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def without(path: object, flags: int, *rest: object, **more: object) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(95, "not supported")
        return real(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", without)
    assert read(archive(Item("a", BODY)), tmp_path).blobs == {"a": BODY}
    assert list(tmp_path.iterdir()) == []


def test_a_stream_that_fails(tmp_path: Path) -> None:
    class Failing(io.RawIOBase):
        def read(self, size: int = -1, /) -> bytes:
            raise OSError(5, "I/O error")

    with pytest.raises(LocalIOError):
        ExportArchive(Failing(), tmp_path)


def test_errors_are_all_ours(tmp_path: Path) -> None:
    """Noise in every place of a small archive."""
    raw = archive(Item("cow.raw", BODY, pax=packed([(4096, len(BODY))], 1 << 20)))
    for at in range(0, len(raw), 37):
        wrong = raw[:at] + bytes([raw[at] ^ 0xA5]) + raw[at + 1 :]
        try:
            read(wrong, tmp_path)
        except EpochOciError:
            continue
