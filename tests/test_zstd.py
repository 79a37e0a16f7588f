"""Compressed layers: what was packed comes out, within bounds, and nothing of a layer that is wrong."""

import hashlib
import io
import json
import random
import struct
import sys
import tracemalloc
from contextlib import contextmanager

import pytest
from cocoonstack_artifacts import DATA, DIALECT, documents
from support.waiting import until

from epoch_oci.errors import ContentError, UsageError
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.stores.base import BytesContent
from epoch_oci.transfer import zstd as layers
from epoch_oci.transfer.zstd import UnpackedContent, ZstdReader, digest_of

try:
    zstd = layers.zstd_module()
except UsageError:
    pytest.skip("no zstd decoder is installed", allow_module_level=True)

V2 = DATA / "v2"
MIB = 1 << 20


def of(raw):
    return Descriptor(media_type="application/octet-stream+zstd", digest=Digest.of(raw), size=len(raw)), BytesContent(
        raw
    )


def unpacked(*layers, size, compressed=True):
    return UnpackedContent([of(raw) for raw in layers], size, compressed, "cow.raw")


def read(content, start=0, length=None, step=layers.BLOCK):
    with content.open(start, length) as reader:
        return b"".join(iter(lambda: reader.read(step), b""))


def text(size, seed=1):
    return (b"%d: the quick brown fox. " % seed * (size // 20 + 1))[:size]


def noise(size, seed=1):
    return random.Random(seed).randbytes(size)


def raw_frame(*blocks, window_log=20):
    """A frame without content size or checksum; `blocks` are (kind, size, bytes) as RFC 8878, 3.1.1.2 has them."""
    header = struct.pack("<IBB", 0xFD2FB528, 0, (window_log - 10) << 3)
    body = b""
    for index, (kind, size, content) in enumerate(blocks):
        last = index == len(blocks) - 1
        body += (last | kind << 1 | size << 3).to_bytes(3, "little") + content
    return header + body


def bomb(count):
    """A frame of `count` blocks of 128 KiB, each written in four bytes."""
    return raw_frame(*[(1, 128 << 10, b"\0")] * count)


def test_chunks_as_cocoon_common_writes_them():
    found = DIALECT.read_encoded(*documents(V2))
    expected = dict(row.split("  ")[::-1] for row in (V2 / "decoded.sha256").read_text().splitlines())
    for file in found.undigested:
        layers = [(item, BytesContent((V2 / "blobs" / item.digest.hex).read_bytes())) for item in file.carriers]
        content = UnpackedContent(layers, file.size, file.encoding == "zstd", file.name)
        assert digest_of(content).hex == expected[file.name]


def test_one_stream_as_cocoon_common_spools_it():
    content = unpacked((V2 / "cow.raw.zst").read_bytes(), size=3670016)
    assert digest_of(content).hex == (V2 / "decoded.sha256").read_text().split("  cow.raw")[0]


@pytest.mark.parametrize("step", [1, 7, 65536, layers.BLOCK, 3 * MIB])
def test_any_read_size_gives_the_same_bytes(step):
    plain = text(3000) if step < 100 else text(2 * MIB + 3)
    assert read(unpacked(zstd.compress(plain), size=len(plain)), step=step) == plain


@pytest.mark.parametrize(("start", "length"), [(0, 0), (0, 1), (5, None), (2 * MIB, 10), (3 * MIB, None), (2, 3 * MIB)])
def test_any_part_of_it(start, length):
    pieces = [noise(MIB, 1), noise(MIB, 2), noise(99, 3)]
    plain = b"".join(pieces)
    content = unpacked(*map(zstd.compress, pieces), size=len(plain))
    end = None if length is None else start + length
    assert read(content, start, length) == plain[start:end]


def test_chunks_that_are_not_compressed():
    assert read(unpacked(b"abc", b"de", size=5, compressed=False)) == b"abcde"


def test_several_frames_in_one_layer():
    frames = (
        zstd.compress(b"abc") + zstd.compress(b"") + struct.pack("<II", 0x184D2A50, 3) + b"xyz" + zstd.compress(b"d")
    )
    assert read(unpacked(frames, size=4)) == b"abcd"


def test_it_can_be_opened_again():
    content = unpacked(zstd.compress(b"abc"), size=3)
    assert read(content) == read(content) == b"abc"


@pytest.mark.parametrize("size", [0, 4, 6, 2**50])
def test_another_size_than_declared(size):
    with pytest.raises(ContentError) as caught:
        read(unpacked(zstd.compress(b"abcde"), size=size))
    assert caught.value.code == "SIZE"
    assert "cow.raw" in caught.value.message


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"no zstd at all",
        zstd.compress(text(5000))[:-1],
        zstd.compress(text(5000))[:-5],
        zstd.compress(noise(5000))[:2500],
        zstd.compress(text(5000)) + b"\0",
        zstd.compress(text(5000)) + b"trailing",
        zstd.compress(text(5000)) + zstd.compress(b"")[:-1],
        zstd.compress(text(5000), options={zstd.CompressionParameter.checksum_flag: 1})[:-4],
        zstd.compress(text(5000), options={zstd.CompressionParameter.checksum_flag: 1})[:-1] + b"\0",
        raw_frame((0, 5000, text(5000)), window_log=31),
        raw_frame((0, 5000, text(5000)), window_log=28),
        raw_frame((3, 5, b"abcde")),
        raw_frame((0, 5000, text(4999))),
    ],
)
def test_what_is_cut_short_or_no_zstd(raw):
    """Trailing bytes, truncation at every place, a window of 2 GiB, a reserved block type, a wrong checksum."""
    with pytest.raises(ContentError) as caught:
        read(unpacked(raw, size=5000))
    assert caught.value.code == "TYPE"


def test_a_window_of_128_mib_is_the_largest():
    assert read(unpacked(raw_frame((0, 5, b"abcde"), window_log=27), size=5)) == b"abcde"


def test_a_dictionary_is_not_there():
    dictionary = zstd.train_dict([text(300, seed) for seed in range(200)], 2000)
    with pytest.raises(ContentError):
        read(unpacked(zstd.compress(text(300), zstd_dict=dictionary), size=300))


def test_too_many_frames(monkeypatch):
    monkeypatch.setattr(layers, "FRAME_LIMIT", 5)
    with pytest.raises(ContentError) as caught:
        read(unpacked(zstd.compress(b"") * 5 + zstd.compress(b"a"), size=1))
    assert "frames" in caught.value.message


def test_a_bomb_stops_at_the_size_declared():
    """16 GiB in half a megabyte: neither expanded nor held in memory."""
    content = unpacked(bomb(128 * 1024), size=8 * MIB)
    tracemalloc.start()
    with pytest.raises(ContentError) as caught:
        digest_of(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.code == "SIZE"
    assert peak < 16 * MIB


def test_a_layer_that_is_not_the_one_named():
    raw = zstd.compress(noise(3 * MIB))
    target = of(raw)[0]
    wrong = bytearray(raw)
    wrong[-100] ^= 1
    for stored, code in ((bytes(wrong), {"DIGEST", "TYPE"}), (raw[:-1], {"SIZE"}), (raw + b"x", {"SIZE"})):
        with pytest.raises(ContentError) as caught:
            read(UnpackedContent([(target, BytesContent(stored))], 3 * MIB, True, "cow.raw"))
        assert caught.value.code in code


def test_the_last_bytes_are_withheld_until_the_layer_is_right():
    """Whoever waits for the full length never gets the bytes of a wrong layer, even where they came early."""
    plain = text(3 * MIB)
    stored = zstd.compress(plain) + zstd.compress(b"")
    target = Descriptor(media_type="x/y", digest=Digest.of(b"other"), size=len(stored))
    got = b""
    with (
        pytest.raises(ContentError),
        UnpackedContent([(target, BytesContent(stored))], len(plain), True, "cow.raw").open() as reader,
    ):
        while block := reader.read():
            got += block
    assert len(got) < len(plain)


def test_sources_are_closed_however_it_ends():
    closed = []

    class Watched(BytesContent):
        @contextmanager
        def open(self, start=0, length=None):
            yield io.BytesIO(self.raw)
            closed.append(True)

    raw = zstd.compress(text(5 * MIB))
    content = UnpackedContent([(of(raw)[0], Watched(raw))], 5 * MIB, True, "cow.raw")
    with content.open() as reader:
        reader.read(10)
    assert closed == []
    read(content)
    assert closed == [True]


def test_what_lies_ahead_is_bounded_and_let_go():
    """Layers are decoded before it is their turn, as far as memory shall hold, and not at all once nobody reads."""
    opened, closed = [], []

    class Watched(BytesContent):
        @contextmanager
        def open(self, start=0, length=None):
            opened.append(True)
            try:
                yield io.BytesIO(self.raw)
            finally:
                closed.append(True)

    raw = bomb(128 * 8)  # 128 MiB
    content = UnpackedContent([(of(raw)[0], Watched(raw))] * 200, 200 * 128 * MIB, True, "cow.raw")
    tracemalloc.start()
    with content.open() as reader:
        for _ in range(20):
            reader.read()
        peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < (layers.AHEAD + 12 * MIB) * (layers._DECODERS + 1)
    until(lambda: len(opened) == len(closed))
    assert len(opened) <= layers._DECODERS + 1


def test_an_error_ahead_waits_for_its_turn():
    good, bad = zstd.compress(text(MIB)), zstd.compress(text(MIB, 2))
    layers = [(of(good)[0], BytesContent(good))] * 20 + [(of(bad)[0], BytesContent(bad[:-1]))]
    got = b""
    with pytest.raises(ContentError), UnpackedContent(layers, 21 * MIB, True, "cow.raw").open() as reader:
        while block := reader.read():
            got += block
    assert got[: 19 * MIB] == text(MIB) * 19


def test_reading_in_small_steps_from_a_slow_source():
    class Slow(io.BytesIO):
        def read(self, size=-1):
            return super().read(min(size, 3))

    plain = text(10_000)
    reader = ZstdReader(Slow(zstd.compress(plain) + zstd.compress(b"end")), "x")
    assert b"".join(iter(lambda: reader.read(777), b"")) == plain + b"end"
    assert reader.read() == b""
    assert reader.read(0) == b""


def test_without_a_decoder_it_says_what_to_install(monkeypatch):
    for name in ("compression", "compression.zstd", "backports", "backports.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError) as caught:
        read(unpacked(b"x", size=1))
    assert "backports.zstd" in caught.value.hint


def test_every_prefix_of_a_real_layer_is_refused():
    config = json.loads((V2 / "config.json").read_text())
    raw = (V2 / "blobs" / config["files"]["cow.raw"]["chunks"][0][7:]).read_bytes()
    assert hashlib.sha256(raw).hexdigest() == config["files"]["cow.raw"]["chunks"][0][7:]
    for end in [*range(0, len(raw), 41), len(raw) - 1]:
        with pytest.raises(ContentError):
            read(unpacked(raw[:end], size=MIB))
    assert len(read(unpacked(raw, size=MIB))) == MIB


@pytest.mark.parametrize("seed", range(20))
def test_noise_never_gets_through(seed):
    rng = random.Random(seed)
    raw = bytearray(zstd.compress(text(20_000), options={zstd.CompressionParameter.checksum_flag: 1}))
    for _ in range(rng.randint(1, 5)):
        raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    try:
        plain = read(unpacked(bytes(raw), size=20_000))
    except ContentError:
        return
    assert plain == text(20_000)
