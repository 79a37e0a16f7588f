"""Content is what its descriptor says, or it is not handed out (reliability D3, D4)."""

import hashlib
import io

import pytest
from epoch_strategies import PROPERTY
from hypothesis import given
from hypothesis import strategies as st

from epoch_oci.errors import ContentError
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.verifying import BLOCK, VerifyingReader, check, check_bytes, empty_problem

RAW = bytes(range(256)) * 10


def target(raw=RAW, algorithm="sha256", size=None):
    digest = Digest(algorithm, hashlib.new(algorithm, raw).hexdigest())
    return Descriptor(media_type="a/b", digest=digest, size=len(raw) if size is None else size)


class Stutter:
    """Returns at most a few bytes at a time, as sockets do."""

    def __init__(self, raw, step=7):
        self.content = io.BytesIO(raw)
        self.step = step

    def read(self, size=-1, /):
        return self.content.read(self.step if size < 0 else min(size, self.step))


class Overflow:
    """Returns more than it was asked for."""

    def read(self, size=-1, /):
        return b"x" * (size + 1)


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("step", [1, 7, 100_000])
def test_content_that_is_right(algorithm, step):
    reader = VerifyingReader(Stutter(RAW, step), target(algorithm=algorithm))
    assert b"".join(reader.blocks(64)) == RAW
    assert reader.read() == b""
    assert reader.read(5) == b""


def test_a_read_without_a_size_is_bounded():
    raw = bytes(3 * BLOCK)
    reader = VerifyingReader(io.BytesIO(raw), target(raw))
    assert len(reader.read()) == BLOCK


def test_empty_content():
    assert VerifyingReader(io.BytesIO(b""), target(b"")).read() == b""


def collected(content, descriptor):
    """What a consumer got before the error, and the error's code."""
    got = bytearray()
    try:
        for block in VerifyingReader(content, descriptor).blocks(64):
            got += block
    except ContentError as error:
        assert error.object == str(descriptor.digest)
        return bytes(got), error.code
    raise AssertionError("accepted")


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (RAW[:-1], "SIZE"),
        (b"", "SIZE"),
        (RAW + b"x", "SIZE"),
        (RAW * 2, "SIZE"),
        (RAW[:-1] + b"x", "DIGEST"),
        (b"x" + RAW[1:], "DIGEST"),
        (bytes(len(RAW)), "DIGEST"),
    ],
)
def test_content_that_is_wrong_is_never_handed_out_whole(raw, code):
    got, found = collected(io.BytesIO(raw), target())
    assert found == code
    assert len(got) < len(RAW)


def test_wrong_empty_content_is_found_at_once():
    with pytest.raises(ContentError) as caught:
        VerifyingReader(io.BytesIO(b"x"), target(b""))
    assert caught.value.code == "SIZE"
    with pytest.raises(ContentError) as caught:
        VerifyingReader(io.BytesIO(b""), target(b"x", size=0))
    assert caught.value.code == "DIGEST"


def test_a_source_that_gives_more_than_asked_for_is_refused():
    got, code = collected(Overflow(), target(b"x" * 10, size=10))
    assert (got, code) == (b"", "SIZE")


def test_reading_nothing_moves_nothing():
    reader = VerifyingReader(io.BytesIO(RAW), target())
    assert reader.read(0) == b""
    assert b"".join(reader.blocks()) == RAW


@PROPERTY
@given(st.binary(min_size=1, max_size=300), st.data())
def test_any_flipped_bit_is_found(raw, data):
    at, bit = data.draw(st.integers(0, len(raw) - 1)), data.draw(st.integers(0, 7))
    flipped = raw[:at] + bytes([raw[at] ^ (1 << bit)]) + raw[at + 1 :]
    _, code = collected(Stutter(flipped), target(raw))
    assert code == "DIGEST"


def test_documents_in_memory():
    assert check_bytes(RAW, target(), "it") is RAW
    for raw, code in ((RAW[:-1], "SIZE"), (RAW[::-1], "DIGEST")):
        with pytest.raises(ContentError) as caught:
            check_bytes(raw, target(), "it")
        assert caught.value.code == code
    check(Digest.of(b""), Digest.of(b""), "it")
    with pytest.raises(ContentError):
        check(Digest.of(b""), Digest.of(b"x"), "it")


def test_only_empty_content_has_the_digest_of_empty_content():
    assert empty_problem(Digest.of(b""), 0) is None
    assert empty_problem(Digest.of(b"x"), 1) is None
    assert empty_problem(Digest.of(b""), 1)
    assert empty_problem(Digest.of(b"x"), 0)
    assert empty_problem(Digest("sha512", "a" * 128), 0) is None
