"""Every store, whether it can be written to or not, keeps what the ports promise to those who read."""

import os
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.content import noise

from contract.cases import descriptor
from contract.source_cases import SOURCE_CASES, Reading, SourceCase
from epoch_oci.errors import ContentError, EpochOciError, NotFoundError
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.verifying import VerifyingReader
from epoch_oci.stores.base import ArtifactStore, FileContent, Ranged, Scattered, SnapshotStore, Source

BLOB = noise(3 * (1 << 20) + 17, seed=1)
OTHER = noise(70_001, seed=2)


@pytest.fixture(params=SOURCE_CASES, ids=lambda case: case.name)
def reading(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Reading]:
    case: SourceCase = request.param
    with case.factory(tmp_path) as made:
        yield made


def fill(reading: Reading, *blobs: bytes) -> None:
    for part in reading.kind.parts(blobs):
        reading.put(part)


def read(reading: Reading, target: Descriptor, *span: int) -> bytes:
    with reading.store.content(target).open(*span) as reader:
        return b"".join(iter(lambda: reader.read(1 << 20), b""))


def test_what_is_not_there(reading: Reading) -> None:
    target = descriptor(BLOB)
    assert reading.store.has(target) is False
    content = reading.store.content(target)
    assert content.size == len(BLOB)
    with pytest.raises(NotFoundError), content.open() as reader:
        reader.read(1)
    with pytest.raises(NotFoundError):
        reading.store.resolve(reading.kind.name("v1"))


def test_blobs(reading: Reading) -> None:
    fill(reading, BLOB, OTHER)
    for blob in (BLOB, OTHER):
        assert reading.store.has(descriptor(blob)) is True
        assert read(reading, descriptor(blob)) == blob


def test_another_size_is_another_blob(reading: Reading) -> None:
    fill(reading, OTHER)
    for size in (1, len(OTHER) - 1, len(OTHER) + 1):
        target = Descriptor(media_type="a/b", digest=descriptor(OTHER).digest, size=size)
        assert reading.store.has(target) is False


def test_from_any_offset(reading: Reading) -> None:
    fill(reading, BLOB)
    chance = random.Random(7)
    spans = [(chance.randrange(len(BLOB)), chance.randrange(1, len(BLOB))) for _ in range(12)]
    for start, length in [*spans, (0, 1), (len(BLOB) - 1, 1), (5, 0)]:
        assert read(reading, descriptor(BLOB), start, length) == BLOB[start : start + length]
    assert read(reading, descriptor(BLOB), 1 << 20) == BLOB[1 << 20 :]


def test_what_a_content_can_do_besides_is_right(reading: Reading) -> None:
    """Contents that are read by ranges, are files of this machine, or come in an order of their own."""
    fill(reading, BLOB)
    content = reading.store.content(descriptor(BLOB))
    if isinstance(content, Ranged) and content.ranged():
        with content.open(1 << 20, 17) as reader:
            assert b"".join(iter(lambda: reader.read(5), b"")) == BLOB[1 << 20 : (1 << 20) + 17]
    if isinstance(content, FileContent) and (opened := content.file()) is not None:
        with opened as file:
            assert os.pread(file, len(BLOB) + 1, 0) == BLOB
    content = reading.store.content(descriptor(BLOB))  # it counts what it has fetched so far
    if isinstance(content, Scattered):
        whole, spans = bytearray(len(BLOB)), []
        for part in content.parts([(0, len(BLOB))]):
            part.run(lambda offset, block: whole.__setitem__(slice(offset, offset + len(block)), block), lambda it: it)
            spans += part.spans
        assert bytes(whole) == BLOB and sum(end - start for start, end in spans) >= len(BLOB)
        assert 0 < content.cost() <= content.fetched  # what lies between two chunks may come along


def test_it_says_where_it_is_and_knows_its_names(reading: Reading) -> None:
    assert reading.store.where and isinstance(reading.store, Source)
    if isinstance(reading.store, SnapshotStore):
        name = reading.kind.name("v1")
        assert str(reading.store.find(name)) == name  # here or not
        fill(reading, OTHER)
        reading.publish("v1", reading.kind.document([OTHER], "first"))
        assert str(reading.store.find(name)) == name


def test_several_readers_at_once(reading: Reading) -> None:
    fill(reading, BLOB, OTHER)
    content = reading.store.content(descriptor(BLOB))
    with content.open() as first, content.open(100) as second:
        assert first.read(10) == BLOB[:10]
        assert second.read(10) == BLOB[100:110]
        assert read(reading, descriptor(OTHER)) == OTHER
        assert first.read(10) == BLOB[10:20]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda _: read(reading, descriptor(OTHER)), range(16))) == [OTHER] * 16


def test_documents_byte_for_byte(reading: Reading) -> None:
    fill(reading, BLOB, OTHER)
    document = reading.kind.document([BLOB, OTHER], "first")
    reading.publish("v1", document)
    found = reading.store.resolve(reading.kind.name("v1"))
    if not reading.keeps_documents:
        assert found.media_type == document.media_type
        assert found.raw == reading.store.resolve(reading.kind.name("v1")).raw
        return
    assert (found.raw, found.media_type, found.digest) == (document.raw, document.media_type, document.digest)


def test_the_list(reading: Reading) -> None:
    fill(reading, OTHER)
    for tag in ("v2", "v10", "latest", "v1"):
        reading.publish(tag, reading.kind.document([OTHER], tag))
    store = reading.store
    if isinstance(store, ArtifactStore):
        assert list(store.tags()) == ["latest", "v1", "v10", "v2"]
    else:
        assert isinstance(store, SnapshotStore)
        assert [reading.kind.name(entry.tag) for entry in store.snapshots()] == [
            f"{entry.name}:{entry.tag}" for entry in store.snapshots()
        ]
        assert [entry.tag for entry in store.snapshots()] == ["latest", "v1", "v10", "v2"]


def test_a_hashing_reader_finds_wrong_content(reading: Reading) -> None:
    """The bytes are there and are not what is asked for: whoever hashes finds out, before the last byte."""
    fill(reading, OTHER)
    lying = Descriptor(media_type="a/b", digest=descriptor(OTHER).digest, size=len(OTHER) - 1)
    expected = ContentError if reading.finds_by_digest else NotFoundError
    with pytest.raises(expected), reading.store.content(lying).open() as reader:
        for _ in VerifyingReader(reader, lying).blocks():
            pass


def test_errors_are_all_ours(reading: Reading) -> None:
    for name in ("", ":", "a/../b", "..", "sha256:zz", "x" * 3000, "\x00", "a\ud800", "a b", "/", "a//b:c", "a?b#c"):
        with pytest.raises(EpochOciError):
            reading.store.resolve(name)
