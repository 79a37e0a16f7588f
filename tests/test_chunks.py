"""Cutting, packs, index, and reading a file in chunks at any offset."""

import hashlib
import io
import random
import re
import shutil
import struct
import subprocess
from array import array
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epoch_oci.chunks import pack as packs
from epoch_oci.chunks.chunk import (
    ChunkEncoding,
    Compressor,
    Extension,
    chunk_digest,
    decode,
    raw_frame,
    raw_overhead,
    zstd,
)
from epoch_oci.chunks.chunked_file import ChunkedFile, Task
from epoch_oci.chunks.figures import figures_of
from epoch_oci.chunks.index import CutFile, Index, IndexHeader, Piece, StoredBlob, annotations, write_index
from epoch_oci.chunks.known import Known
from epoch_oci.chunks.pack import PackRow, closing, read_closing, target_size
from epoch_oci.errors import ContentError
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.verifying import BLOCK
from tests.chunked import CHUNK, Version, described, encode
from tests.snapshots import noise

TEXT = b"the quick brown fox jumps over the lazy dog. " * 5000


def table_of(raw: bytes) -> packs.Table:
    size = packs.closing_size(raw[-packs.TRAILER_SIZE :], len(raw), "a pack")
    return read_closing(raw[-size:], len(raw), "a pack")


# Packs


def test_any_zstd_tool_decodes_a_pack_to_its_chunks_one_after_another(tmp_path):
    content = TEXT + noise("n", 200_000) + bytes(CHUNK * 3) + TEXT[:100]
    version = encode({"f": content})
    stored = [content[at : at + CHUNK] for at in range(0, len(content), CHUNK)]
    expected = b"".join(dict.fromkeys(chunk for chunk in stored if chunk.strip(b"\0")))
    assert zstd().decompress(version.laid[0]) == expected
    if (tool := shutil.which("zstd")) is not None:
        (tmp_path / "pack.zst").write_bytes(version.laid[0])
        done = subprocess.run([tool, "-dcq", tmp_path / "pack.zst"], capture_output=True, check=True)
        assert done.stdout == expected


def test_a_pack_says_itself_what_chunks_it_has():
    content = TEXT + noise("n", 200_000)
    raw = encode({"f": content}).laid[0]
    table = table_of(raw)
    chunks = [chunk for _, chunk in packs.checked_chunks(raw, table, "a pack")]
    assert b"".join(chunks) == content
    assert {row.encoding for row in table.rows} == {ChunkEncoding.RAW, ChunkEncoding.ZSTD}


@pytest.mark.parametrize("size", [1, 100, 255, 256, 4096, 65535, 65536, 65791, 65792, 131072])
def test_a_chunk_that_does_not_compress_lies_raw_in_a_frame_that_zstd_reads(size):
    chunk = noise(f"raw{size}", size)
    frame = raw_frame(chunk)
    assert zstd().decompress(frame) == chunk
    assert frame[raw_overhead(size) :] == chunk
    assert Compressor(1).frame(chunk) == (ChunkEncoding.RAW, frame)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda raw: raw[:-1], "TYPE"),
        (lambda raw: raw + b"\0", "TYPE"),
        (lambda raw: b"\0" + raw, "SIZE"),
        (lambda raw: raw[1:], "SIZE"),
        (lambda raw: b"", "TYPE"),
        (lambda raw: raw[:-12] + b"\xff\xff\xff\x7f" + raw[-8:], "SIZE"),
        (lambda raw: raw[:-12] + b"\x20\x00\x00\x00" + raw[-8:], "SIZE"),
    ],
    ids=["short", "long", "shifted", "cut", "empty", "endless table", "tiny table"],
)
def test_a_pack_that_is_not_as_it_says_is_refused(change, code):
    raw = change(encode({"f": TEXT}).laid[0])
    with pytest.raises(ContentError) as caught:
        list(packs.checked_chunks(raw, table_of(raw), "a pack"))
    assert caught.value.code in (code, "SIZE", "TYPE")


@pytest.mark.parametrize(
    "row",
    [
        PackRow(bytes(32), 1 << 31, 100, ChunkEncoding.ZSTD),
        PackRow(bytes(32), 100, 1 << 31, ChunkEncoding.ZSTD),
        PackRow(bytes(32), 100, 0, ChunkEncoding.ZSTD),
        PackRow(bytes(32), 0, 100, ChunkEncoding.ZSTD),
        PackRow(bytes(32), 100, 100, ChunkEncoding.RAW),
        PackRow(bytes(32), 100, 100, ChunkEncoding.ZERO),
        PackRow(bytes(32), 100, 100, 3),
        PackRow(bytes(32), 100, 100, 200),
    ],
)
def test_a_table_that_lists_the_impossible_is_refused(row):
    end = closing([row])
    with pytest.raises(ContentError):
        read_closing(end, 100 + len(end), "a pack")


def test_what_a_later_version_brings_is_refused_by_name():
    end = closing([PackRow(bytes(32), 100, 100, 3)])
    with pytest.raises(ContentError, match=r"chunk encoding 3 \(sealed\), which is not understood"):
        read_closing(end, 100 + len(end), "a pack")
    end = closing([], [Extension(7, b"secret", critical=True)])
    with pytest.raises(ContentError, match="extension 7, which must be understood"):
        read_closing(end, len(end), "a pack")
    end = closing([], [Extension(7, b"remark")])
    assert read_closing(end, len(end), "a pack").extensions == (Extension(7, b"remark"),)


@pytest.mark.parametrize(("field", "name"), [(16, "version 2"), (18, r"chunk digest 2 \(SHA-256\)")])
def test_another_version_or_digest_is_refused_by_name(field, name):
    end = bytearray(closing([]))
    end[field] = 2
    with pytest.raises(ContentError, match=name):
        read_closing(bytes(end), len(end), "a pack")


@pytest.mark.parametrize("gigabytes", [1, 16, 17, 33, 100, 1000])
def test_packs_of_any_snapshot_stay_within_the_layers_that_a_manifest_may_have(gigabytes):
    size, laid, left = gigabytes << 30, 0, min(gigabytes, 180) << 30
    while left > 0:
        left -= target_size(size, laid)
        laid += 1
    assert laid <= packs.PACKS_LIMIT
    assert 16 << 20 <= target_size(size) <= 64 << 20


# Chunks


def test_a_chunk_never_unfolds_beyond_its_length():
    bomb = zstd().compress(bytes(1 << 27))
    with pytest.raises(ContentError):
        decode(bomb, ChunkEncoding.ZSTD, CHUNK, chunk_digest(bytes(CHUNK)), "f")
    longer = zstd().compress(bytes(CHUNK + 1))
    with pytest.raises(ContentError):
        decode(longer, ChunkEncoding.ZSTD, CHUNK, chunk_digest(bytes(CHUNK)), "f")


@pytest.mark.parametrize(
    "stored",
    [b"", b"junk", zstd().compress(TEXT[:CHUNK])[:-1], zstd().compress(TEXT[:CHUNK]) + b"x", zstd().compress(b"other")],
)
def test_a_chunk_that_is_no_frame_of_it_is_refused(stored):
    with pytest.raises(ContentError):
        decode(stored, ChunkEncoding.ZSTD, CHUNK, chunk_digest(TEXT[:CHUNK]), "f")


# Index


def test_an_index_is_read_in_pieces_each_of_which_is_verified():
    content = noise("a", CHUNK * 10)
    version = encode({"f": content})
    reads = []

    def fetch(offset, length):
        reads.append((offset, length))
        return version.blob[offset : offset + length]

    index = Index(version.layer, fetch)
    assert len(reads) == 1
    list(index.chunks(0, 3, 5))
    list(index.chunks(0, 0, 10))
    assert len(reads) == 2
    assert sum(length for _, length in reads) == len(version.blob)


def test_every_byte_of_an_index_counts():
    version = encode({"f": TEXT + noise("n", CHUNK)})
    for at in range(len(version.blob)):
        broken = bytearray(version.blob)
        broken[at] ^= 0x40
        with pytest.raises(ContentError):
            index = Index(version.layer, lambda offset, length, raw=broken: bytes(raw[offset : offset + length]))
            list(index.pieces(0))


def forged(piece: Piece, packs_: list[StoredBlob], size: int = CHUNK) -> Index:
    """An index that says what it likes, and whose every digest is right."""
    blob, header = write_index(packs_, [(CutFile.plain(Digest.of(b"f"), size), [piece])])
    return Index(described(blob, header), lambda offset, length: blob[offset : offset + length])


PACK = StoredBlob(Digest.of(b"p"), 100_000)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ((bytes(31) + b"1", 1, 0, 100, ChunkEncoding.ZSTD), "outside of its pack"),
        ((bytes(31) + b"1", 0, 99_901, 100, ChunkEncoding.ZSTD), "outside of its pack"),
        ((bytes(31) + b"1", 0, (1 << 32) - 1, 100, ChunkEncoding.ZSTD), "outside of its pack"),
        ((bytes(31) + b"1", 0, 0, 65_600, ChunkEncoding.ZSTD), "stored in 65600"),
        ((bytes(31) + b"1", 0, 0, 0, ChunkEncoding.ZSTD), "stored in 0"),
        ((bytes(31) + b"1", 0, 0, 65_535, ChunkEncoding.RAW), "stored in 65535"),
        ((bytes(31) + b"1", 0, 0, 65_536, ChunkEncoding.ZERO), "zeros that is stored"),
        ((bytes(31) + b"1", 0, 0, 100, 3), r"chunk encoding 3 \(sealed\)"),
        ((bytes(31) + b"1", 0, 0, 100, 77), "chunk encoding 77"),
    ],
)
def test_an_index_that_lies_about_a_chunk_is_refused(row, problem):
    piece = Piece()
    piece.add(*row)
    piece.encodings[0] = piece.encodings[0] or 0
    if row[4] == ChunkEncoding.ZERO:  # so that the piece is not taken for one of nothing but zeros
        piece.add(bytes(31) + b"2", 0, 0, 100, ChunkEncoding.ZSTD)
    index = forged(piece, [PACK], CHUNK * len(piece))
    with pytest.raises(ContentError, match=problem):
        index.piece(0, 0)


def header_with(**values: int) -> bytes:
    fields = {"files": 0, "packs": 0, "pieces": 0, "extra": 0, "chunk_log": 16, "piece_log": 12, **values}
    raw = b"COCNINDX" + (1).to_bytes(2, "little") + bytes([1, fields["chunk_log"], fields["piece_log"], 0, 0, 0])
    raw += b"".join(fields[name].to_bytes(4, "little") for name in ("files", "packs", "pieces", "extra"))
    return zstd().compress(raw)


@pytest.mark.parametrize(
    "values",
    [
        {"files": 1 << 31},
        {"packs": 1 << 31},
        {"pieces": 0xFFFFFFFF},
        {"extra": 0xFFFFFFFF},
        {"chunk_log": 11},
        {"chunk_log": 18},
        {"chunk_log": 255},
        {"piece_log": 0},
        {"piece_log": 40},
    ],
)
def test_a_header_that_promises_too_much_is_refused(values):
    with pytest.raises(ContentError):
        IndexHeader.parse(header_with(**values), "the index")


def test_a_header_that_unfolds_without_end_is_refused():
    with pytest.raises(ContentError, match="at most"):
        IndexHeader.parse(zstd().compress(bytes(1 << 26)), "the index")


@pytest.mark.parametrize("size", [1 << 43, 1 << 53, (1 << 64) - 1])
def test_a_file_of_more_chunks_than_allowed_is_refused(size):
    blob, header = write_index([], [(CutFile.plain(Digest.of(b"f"), size), [])])
    with pytest.raises(ContentError, match="chunks, of which"):
        IndexHeader.parse(blob[:header], "the index")


def test_a_file_of_a_terabyte_of_zeros_costs_a_few_bytes_and_no_memory():
    size = 1 << 40
    empty = Piece()
    for _ in range(4096):
        empty.add_zero()
    pieces = size // CHUNK // 4096
    blob, header = write_index([], [(CutFile.plain(Digest.of(b"f"), size), [empty] * pieces)])
    assert len(blob) < 1000
    index = Index(described(blob, header), lambda offset, length: blob[offset : offset + length])
    number, chunk = next(index.chunks(0, (size - CHUNK) // CHUNK, size // CHUNK))
    assert (number, chunk.encoding) == ((size - CHUNK) // CHUNK, ChunkEncoding.ZERO)


def test_an_index_without_the_annotations_of_its_header_is_refused():
    version = encode({"f": TEXT})
    for wrong in ({}, {"vnd.cocoon.chunks.header.size": "x"}, {"vnd.cocoon.chunks.header.size": "999999999"}):
        layer = replace(version.layer, annotations=wrong)
        with pytest.raises(ContentError, match=r"vnd\.cocoon\.chunks\.header\.size"):
            Index(layer, lambda offset, length: version.blob[offset : offset + length])


# Reading


def test_reading_forward_takes_one_range_of_each_pack():
    content = noise("a", CHUNK * 300) + bytes(CHUNK * 300) + noise("b", CHUNK * 200)
    version = encode({"f": content})
    reads, written = [], {}

    @contextmanager
    def read(pack, offset, length):
        reads.append((pack.digest, offset, length))
        with version.read(pack, offset, length) as reader:
            yield reader

    file = replace(version.file("f"), read=read)
    for task in file.tasks([(0, file.size)]):
        if isinstance(task, Task):
            task.run(written.__setitem__, lambda reader: reader)
    assert len(reads) == len(version.laid) == 2
    image = bytearray(len(content))
    for offset, block in written.items():
        image[offset : offset + len(block)] = block
    assert bytes(image) == content


@pytest.mark.parametrize("ranged", [True, False])
@pytest.mark.parametrize("step", [2, 50])
def test_holes_that_a_kill_has_left_are_fetched_together(ranged, step):
    """One reading of a pack, or one a run of chunks that is worth a request, however many holes there are."""
    content = noise("a", CHUNK * 300) + bytes(CHUNK * 40) + noise("b", CHUNK * 60 + 9)
    version = encode({"f": content})
    reads, image = [], bytearray(len(content))

    @contextmanager
    def read(pack, offset, length):
        reads.append((pack.digest, offset, offset + length))
        with version.read(pack, offset, length) as reader:
            yield reader

    def write(offset: int, block: bytes) -> None:
        image[offset : offset + len(block)] = block

    file = replace(version.file("f"), read=read, ranged=lambda: ranged)
    # Two of them in one chunk, for a hole may begin and end anywhere.
    holes = [(at * CHUNK + shift, 10) for at in range(0, len(content) // CHUNK, step) for shift in (5, CHUNK - 20)]
    spans = []
    for part in file.tasks(iter(holes)):
        part.run(write, lambda reader: reader)
        spans += part.spans
    assert all(image[at : at + length] == content[at : at + length] for at, length in holes)
    assert sum(end - start for start, end in spans) == len(holes) // 2 * CHUNK  # no chunk twice
    if step == 2 or not ranged:
        assert len(reads) == len(version.laid)
    assert ranged or all(start == 0 for _, start, _ in reads)


def test_swapped_packs_give_no_byte():
    one, two = encode({"f": noise("a", CHUNK * 4)}), encode({"f": noise("b", CHUNK * 4)})
    digest = next(iter(one.packs))
    one.packs[digest] = two.laid[0]
    with pytest.raises(ContentError, match="is not"):
        one.content("f")


@pytest.mark.parametrize("cut", [0, 1, 70_000])
def test_a_pack_that_ends_early_is_an_error_and_not_a_short_file(cut):
    version = encode({"f": noise("a", CHUNK * 4)})
    digest = next(iter(version.packs))
    version.packs[digest] = version.packs[digest][:cut]
    with pytest.raises(ContentError, match="ended early"):
        version.content("f")


def test_chunks_that_overlap_are_refused():
    piece = Piece()
    piece.add(bytes(31) + b"1", 0, 0, 1000, ChunkEncoding.ZSTD)
    piece.add(bytes(31) + b"2", 0, 500, 1000, ChunkEncoding.ZSTD)
    file = replace(encode({"f": TEXT}).file("f"), index=forged(piece, [PACK], CHUNK * 2))
    with pytest.raises(ContentError, match="overlap"):
        b"".join(file.blocks(0, file.size))


def test_two_chunks_at_one_place_are_refused():
    piece = Piece()
    piece.add(bytes(31) + b"1", 0, 0, 1000, ChunkEncoding.ZSTD)
    piece.add(bytes(31) + b"2", 0, 0, 1000, ChunkEncoding.ZSTD)
    file = replace(encode({"f": TEXT}).file("f"), index=forged(piece, [PACK], CHUNK * 2))
    with pytest.raises(ContentError, match="two chunks at one place"):
        b"".join(file.blocks(0, file.size))


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_range_of_a_file_is_what_the_file_has_there(data):
    start = data.draw(st.integers(0, len(MIXED)))
    end = data.draw(st.integers(start, len(MIXED)))
    assert b"".join(MIXED_VERSION.file("f").blocks(start, end)) == MIXED[start:end]


MIXED = TEXT + bytes(CHUNK * 5) + noise("m", CHUNK * 7 + 123) + TEXT[:99_999] + bytes(17)
MIXED_VERSION = encode({"f": MIXED})


# Versions


def mutated(content: bytes, seed: int) -> bytes:
    """What a guest does: pages written, freed and moved, a file that grows or shrinks."""
    chosen, raw = random.Random(seed), bytearray(content)
    for _ in range(chosen.randrange(6)):
        if not raw:
            break
        at, length = chosen.randrange(len(raw)), chosen.randrange(1, 3 * CHUNK)
        kind = chosen.randrange(5)
        if kind == 0:
            raw[at : at + length] = chosen.randbytes(min(length, len(raw) - at))
        elif kind == 1:
            raw[at : at + length] = bytes(min(length, len(raw) - at))
        elif kind == 2:
            other = chosen.randrange(len(raw))
            raw[at : at + length] = raw[other : other + min(length, len(raw) - at, len(raw) - other)]
        elif kind == 3:
            del raw[at:]
        else:
            raw += TEXT[:length]
    return bytes(raw)


@given(
    st.lists(st.integers(0, 1 << 30), min_size=1, max_size=6),
    st.lists(st.integers(0, 5), max_size=3),
    st.sampled_from([1, 3]),
)
@settings(max_examples=40, deadline=None)
def test_any_sequence_of_versions_comes_back_whichever_of_them_were_known(seeds, bases, level):
    versions: list[Version] = []
    files = {"memory": TEXT + bytes(2 * CHUNK) + noise("v", CHUNK + 77), "disk": noise("d", 100_000)}
    for seed in seeds:
        files = {name: mutated(content, seed + len(name)) for name, content in files.items()}
        chosen = [versions[number] for number in dict.fromkeys(bases) if number < len(versions)]
        version = encode(files, chosen, level=level)
        versions.append(version)
        for name, content in files.items():
            if content:
                assert version.content(name) == content
                assert hashlib.sha256(version.content(name)).digest() == hashlib.sha256(content).digest()


def test_the_same_bytes_give_the_same_packs_whatever_the_threads_do():
    content = b"".join(TEXT[at : at + 50_000] + noise(str(at), 30_000) for at in range(0, 100_000, 5_000)) * 4
    base = encode({"f": content[: len(content) // 2]})
    made = {
        (version.layer.digest, *map(Digest.of, version.laid))
        for version in (encode({"f": content}, [base], workers=workers) for workers in (1, 1, 2, 5))
    }
    assert len(made) == 1


def test_a_version_lays_only_what_is_new():
    content = noise("a", CHUNK * 20)
    first = encode({"f": content})
    second = encode({"f": content[: CHUNK * 3] + noise("b", CHUNK) + content[CHUNK * 4 :]}, [first])
    assert [len(table_of(raw).rows) for raw in second.laid] == [1]
    assert encode({"f": content}, [first]).laid == []


def test_what_a_damaged_index_tells_is_not_believed():
    base = encode({"f": noise("a", CHUNK * 20)})
    base.blob = base.blob[:-1] + bytes([base.blob[-1] ^ 1])
    known = Known()
    with pytest.raises(ContentError):
        known.learn(base.index())
    assert len(known) == 0


def test_no_more_is_learnt_than_memory_shall_hold():
    pieces = [Piece(), Piece()]
    for number in range(8192):
        pieces[number // 4096].add((number + 1).to_bytes(32, "big"), 0, 0, 10, ChunkEncoding.ZSTD)
    blob, header = write_index([PACK], [(CutFile.plain(Digest.of(b"f"), CHUNK * 8192), pieces)])
    index = Index(described(blob, header), lambda offset, length: blob[offset : offset + length])
    for limit, learnt in ((10, 4096), (5000, 8192)):  # a piece at a time
        known = Known()
        known.learn(index, limit=limit)
        assert len(known) == learnt


@pytest.mark.parametrize(
    ("encoding", "stored"), [(ChunkEncoding.RAW, 1000), (ChunkEncoding.ZSTD, CHUNK + 13), (ChunkEncoding.ZSTD, 1 << 31)]
)
def test_what_a_base_cannot_have_of_a_chunk_is_not_used(encoding, stored):
    known = Known()
    row = known.add(chunk_digest(noise("a", CHUNK)), known.add_pack(PACK), 0, stored, encoding)
    assert not known.fits(row, CHUNK)


def test_figures_remember_no_more_than_memory_shall_hold():
    content = noise("f", CHUNK * 20)
    version = encode({"a": content + bytes(CHUNK), "b": content[::-1] + content})
    exact, bounded = figures_of(version.index()), figures_of(version.index(), limit=5)
    assert [(file.zeros, file.repeated) for file in exact.files] == [(CHUNK, 0), (0, len(content))]
    assert [(file.zeros, file.repeated) for file in bounded.files] == [(CHUNK, 0), (0, CHUNK * 5)]
    assert all(item.live <= item.pack.size for item in bounded.packs)


def test_a_piece_longer_than_its_chunks_can_make_it_is_not_even_fetched():
    digest = chunk_digest(b"")
    raw = b"COCNINDX" + struct.pack("<HBBBxxxIIII", 1, 1, 16, 12, 1, 1, 1, 0)
    raw += bytes.fromhex(PACK.digest.hex) + struct.pack("<Q", PACK.size)
    raw += bytes.fromhex(Digest.of(b"f").hex) + struct.pack("<QQ", CHUNK, CHUNK)
    frame = zstd().compress(raw + struct.pack("<I32s", (1 << 32) - 1000, digest))
    size = len(frame) + (1 << 32) - 1000
    layer = replace(described(frame, len(frame)), size=size)

    def fetch(offset: int, length: int) -> bytes:
        assert offset + length <= len(frame), "the piece was asked for"
        return frame[offset : offset + length]

    with pytest.raises(ContentError, match="piece of an impossible length"):
        Index(layer, fetch).piece(0, 0)


def test_zeros_by_the_terabyte_take_no_time():
    size = 1 << 42
    index = Index(*zeros_of(size))
    parts = list(ChunkedFile(index, 0, None, "f").tasks([(0, size)]))
    assert sum(end - start for part in parts for start, end in part.spans) == size
    assert figures_of(index).files[0].zeros == size


def zeros_of(size: int):
    pieces = [Piece()] * (size // CHUNK // 4096)
    blob, header = write_index([], [(CutFile.plain(Digest.of(b"z"), size), pieces)])
    return described(blob, header), lambda offset, length: blob[offset : offset + length]


def test_a_chunk_at_hand_that_is_shorter_than_the_index_says_is_no_chunk():
    """Else what follows it would be taken for zeros that were verified."""
    content = noise("s", 100)
    piece = Piece()
    piece.add(chunk_digest(content), 0, 0, 100, ChunkEncoding.ZSTD)
    index = forged(piece, [PACK], CHUNK)

    class Hand:
        def has(self, digest):
            return True

        def read(self, digests):
            return ((digest, content) for digest in digests)

    @contextmanager
    def read(pack, offset, length):
        yield io.BytesIO(raw_frame(content))

    file = ChunkedFile(index, 0, read, "f", at_hand=Hand())
    with pytest.raises(ContentError):
        b"".join(file.blocks(0, CHUNK))


def test_live_bytes_of_a_pack_count_each_chunk_once():
    known = Known()
    pack = known.add_pack(PACK)
    rows = [known.add(bytes([number]) * 32, pack, number * 10, 10, ChunkEncoding.ZSTD) for number in range(1, 6)]
    known.count_live([array("I", [rows[0], rows[0], 0, rows[3]])])
    assert known.packs[pack].live == 20


@given(st.sets(st.binary(min_size=32, max_size=32), max_size=300))
def test_known_chunks_are_found_and_no_others(digests):
    known = Known()
    pack = known.add_pack()
    rows = {digest: known.add(digest, pack, 0, 1, ChunkEncoding.ZSTD) for digest in digests}
    assert all(known.find(digest) == row and known.digest(row) == digest for digest, row in rows.items())
    assert known.find(b"\xff" * 31 + b"\xfe") in (0, rows.get(b"\xff" * 31 + b"\xfe", 0))
    assert len(known) == len(digests)


def test_a_short_reader_makes_no_difference():
    class Drip(io.BytesIO):
        def read(self, size=-1):
            return super().read(min(size, 7_001))

    from epoch_oci.chunks.encode import full_blocks

    content = noise("d", 3_000_000)
    assert [len(block) for block in full_blocks(Drip(content))] == [BLOCK] * 5 + [3_000_000 - 5 * BLOCK]
    assert b"".join(full_blocks(Drip(content))) == content


def test_the_annotations_of_an_index_are_its_headers_size_and_digest():
    version = encode({"f": TEXT})
    header = int(version.layer.annotations["vnd.cocoon.chunks.header.size"])
    assert annotations(version.blob, header) == dict(version.layer.annotations)


# The example of docs/format.md, 7.5


EXAMPLE = bytes(CHUNK) + b"A" * CHUNK + bytes(CHUNK) + b"hello, chunks\n"


def hex_blocks() -> list[bytes]:
    """The blocks of hex digits in chapter 7.5, without what is said beside them."""
    text = (Path(__file__).parent.parent / "docs" / "format.md").read_text(encoding="utf-8")
    chapter = text.partition("### 7.5")[2].partition("### 7.6")[0]
    rows = [[re.match(r"(?:[0-9a-f]{2}|(?<=[0-9a-f]) )*", line)[0] for line in block.splitlines()]  # type: ignore[index]
            for block in chapter.split("```")[1::2]]  # fmt: skip
    return [bytes.fromhex("".join(block)) for block in rows]


def test_the_example_in_the_documentation_is_read_as_it_says():
    pack, header, piece = hex_blocks()
    known = IndexHeader.parse(zstd().compress(header), "the example")
    assert (known.packs, known.files) == (
        (StoredBlob(Digest.of(pack), len(pack)),),
        (CutFile.plain(Digest.of(EXAMPLE), len(EXAMPLE)),),
    )
    blob, length = write_index(known.packs, [(known.files[0], [Piece.parse(piece, 4)])])
    version = Version(described(blob, length), blob, {"f": EXAMPLE}, [pack], {Digest.of(pack): pack})
    assert version.content("f") == EXAMPLE
    assert [chunk for _, chunk in packs.checked_chunks(pack, table_of(pack), "a pack")] == [b"A" * CHUNK, EXAMPLE[-14:]]


@pytest.mark.skipif(zstd().zstd_version != "1.5.7", reason="another zstd compresses to other bytes")
def test_the_example_in_the_documentation_is_what_is_written():
    pack, header, piece = hex_blocks()
    version = encode({"f": EXAMPLE})
    assert version.laid == [pack]
    length = int(version.layer.annotations["vnd.cocoon.chunks.header.size"])
    assert (len(version.blob), length) == (252, 147)
    assert zstd().decompress(version.blob[:length]) == header
    assert zstd().decompress(version.blob[length:]) == piece
