"""Part tables: right, remembered, and never believed when they cannot be right."""

import hashlib

import pytest

from epoch_oci.errors import ContentError
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.parts import PART_LIMIT, fitting_size, spans
from epoch_oci.stores.base import BytesContent
from epoch_oci.transfer.parts import PartCache, part_table

RAW = bytes(range(251)) * 40


def blob(raw: bytes = RAW) -> Descriptor:
    return Descriptor(media_type="a/b", digest=Digest.of(raw), size=len(raw))


def expected(size: int) -> tuple[str, ...]:
    return tuple(hashlib.sha256(RAW[at : at + size]).hexdigest() for at in range(0, len(RAW), size))


@pytest.mark.parametrize("size", [1024, 4096, len(RAW) - 1, len(RAW), len(RAW) + 1])
def test_digests_are_those_of_the_slices(size):
    table = part_table(BytesContent(RAW), blob(), size)
    assert table.size == size
    assert tuple(digest.hex for digest in table.digests) == expected(size)


def test_content_that_is_not_the_blob_is_refused():
    with pytest.raises(ContentError) as caught:
        part_table(BytesContent(RAW[:-1] + b"x"), blob(), 1024)
    assert caught.value.code == "DIGEST"
    with pytest.raises(ContentError) as caught:
        part_table(BytesContent(RAW[:-1]), blob(), 1024)
    assert caught.value.code == "SIZE"


class Unread(BytesContent):
    def open(self, start=0, length=None):
        raise AssertionError("the cache should have answered")


def test_a_cached_table_needs_no_reading(tmp_path):
    cache = PartCache(tmp_path / "parts")
    first = cache.table(BytesContent(RAW), blob(), 2048)
    assert PartCache(tmp_path / "parts").table(Unread(RAW), blob(), 2048) == first


@pytest.mark.parametrize("damage", ["", "[]", "{}", "null", '["short"]', "\x00", '["' + "0" * 64 + '"]'])
def test_a_damaged_cache_entry_is_made_anew(tmp_path, damage):
    cache = PartCache(tmp_path)
    first = cache.table(BytesContent(RAW), blob(), 2048)
    (entry,) = tmp_path.iterdir()
    entry.write_text(damage)
    assert cache.table(BytesContent(RAW), blob(), 2048) == first


def test_an_unwritable_cache_is_no_reason_to_fail(tmp_path):
    (tmp_path / "file").write_text("")
    assert PartCache(tmp_path / "file" / "parts").table(BytesContent(RAW), blob(), 2048).digests


def test_never_more_than_a_hundred_parts():
    assert fitting_size(100 << 30, 1 << 30) == 1 << 30
    assert fitting_size((100 << 30) + 1, 1 << 30) == 2 << 30
    assert fitting_size(1, 1 << 30) == 1 << 30
    for total in (1, 99, 100, 101, 6400, 6401):
        size = fitting_size(total, 1)
        cut = list(spans(total, size))
        assert len(cut) <= PART_LIMIT
        assert sum(length for _, length in cut) == total
        assert all(offset == index * size for index, (offset, _) in enumerate(cut))
