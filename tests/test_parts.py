"""Part tables: right, remembered, and never believed when they cannot be right; and files that are cut on the way."""

import errno
import hashlib
import io
import os
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from blake3 import blake3
from cocoon_world import Item, archive, noise
from registry_room import room
from snapshots import Made, make_snapshot, open_store, put_snapshot

from epoch_oci.cocoon.export_archive import ExportArchive
from epoch_oci.dialects import named
from epoch_oci.dialects.base import EncodeOptions
from epoch_oci.epoch import gojson
from epoch_oci.epoch.keys import SnapshotKey
from epoch_oci.epoch.manifest import Manifest
from epoch_oci.errors import ConflictError, ContentError
from epoch_oci.flows.push import PushOptions, push
from epoch_oci.flows.push_archive import push_archive
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.parts import PART_LIMIT, PartTable, fitting_size, spans
from epoch_oci.stores.base import BytesContent
from epoch_oci.stores.oci_layout import OciLayout
from epoch_oci.transfer.cuts import PartCache, cut_size, part_digests, part_table

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


def test_each_part_has_the_seal_of_its_bytes_whatever_hash_the_whole_has():
    whole = replace(blob(), digest=Digest("sha512", hashlib.sha512(RAW).hexdigest()))
    slices = [RAW[at : at + 1024] for at in range(0, len(RAW), 1024)]
    for target in (blob(), whole):
        found = list(part_digests(BytesContent(RAW), target, 1024))
        assert found == [(Digest.of(part), blake3(part).digest()) for part in slices]


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


@pytest.mark.parametrize("at", [0, 30, 80, 150, -5])
def test_a_damaged_cache_entry_is_made_anew(tmp_path, at):
    first = PartCache(tmp_path).table(BytesContent(RAW), blob(), 2048)
    (entry,) = tmp_path.iterdir()
    raw = bytearray(entry.read_bytes())
    raw[at] ^= 1
    entry.write_bytes(raw)
    assert PartCache(tmp_path).known(blob(), 2048) is None
    assert PartCache(tmp_path).table(BytesContent(RAW), blob(), 2048) == first


def test_a_cached_table_is_of_one_blob_and_one_size(tmp_path):
    cache = PartCache(tmp_path)
    cache.table(BytesContent(RAW), blob(), 2048)
    other = RAW[::-1]
    reversed_blob = Descriptor(media_type="a/b", digest=Digest.of(other), size=len(other))
    assert cache.known(reversed_blob, 2048) is None and cache.known(blob(), 4096) is None


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


# Cut on the way

PART = 256 << 10


@pytest.fixture
def store(tmp_path):
    made = make_snapshot("W1")
    put_snapshot(tmp_path / "store", made)
    return open_store(tmp_path / "store"), made


def send(source, made: Made, sink, tag: str | None = None, **options):
    return push(source, made.key, sink, tag, options=PushOptions(part_size=PART, **options))


def known_beforehand(made: Made) -> str:
    """The digest of the artifact as a pure function has it that knows every part."""
    tables = {
        Digest.of(raw): part_table(BytesContent(raw), blob(raw), PART) for raw in made.blobs.values() if len(raw) > PART
    }
    assert tables
    return str(named("cocoon").encode(made.document, EncodeOptions(parts=tables)).manifest.digest)


@pytest.mark.parametrize("place", ["registry", "layout"])
def test_parts_that_are_learnt_on_the_way_make_the_same_artifact(tmp_path, fake_registry, store, place):
    source, made = store
    sink = OciLayout(tmp_path / "layout") if place == "layout" else room(fake_registry())[0]
    first = send(source, made, sink, part_cache=tmp_path / "cache")
    assert str(first.digest) == known_beforehand(made) == str(sink.resolve("v1").digest)
    assert first.size == first.transferred and [row.title for row in first.blobs].count("memory-ranges.part.0000") == 1
    for cache in (tmp_path / "cache", None):  # remembered, and learnt once more
        again = send(source, made, sink, part_cache=cache)
        assert (again.digest, again.transferred) == (first.digest, 0)
        assert {row.action for row in again.blobs} == {"skipped"}


def test_a_part_is_sent_before_the_next_but_one_is_read(fake_registry, tmp_path, store):
    """Not all of a file is read before its first byte goes."""
    source, made = store
    repository, _ = room(fake_registry())
    order: list[str] = []

    put = repository.put

    def listening(target, content):
        order.append("put")
        put(target, content)

    repository.put = listening

    class Noted:
        def __init__(self, content):
            self.content, self.size = content, content.size

        @contextmanager
        def open(self, start=0, length=None):
            with self.content.open(start, length) as reader:
                inner = reader.read

                class Reader:
                    def read(self, size=-1):
                        block = inner(size)
                        if not block and length is None and start == 0:
                            order.append("whole file read")
                        return block

                yield Reader()

    class Source:
        def __getattr__(self, name):
            return getattr(source, name)

        def content(self, target):
            content = source.content(target)
            return Noted(content) if target.size > 5 * PART else content

    push(Source(), made.key, repository, "v1", options=PushOptions(part_size=PART // 8, jobs=1))
    assert order.index("put") < order.index("whole file read")


@pytest.mark.parametrize("change", ["altered", "shorter"])
def test_a_file_that_changes_between_being_hashed_and_sent_is_never_sent_to_its_end(fake_registry, store, change):
    source, made = store
    registry = fake_registry()
    repository, _ = room(registry)

    class Changing:
        """Right when all of it is read, and another when a part of it is."""

        def __init__(self, content):
            self.content, self.size = content, content.size

        @contextmanager
        def open(self, start=0, length=None):
            if length is None:
                with self.content.open() as reader:
                    yield reader
            else:
                with self.content.open(start, length) as reader:
                    raw = reader.read(length)
                yield io.BytesIO(raw[:-1] if change == "shorter" else bytes([raw[0] ^ 1]) + raw[1:])

    class Source:
        def __getattr__(self, name):
            return getattr(source, name)

        def content(self, target):
            return Changing(source.content(target)) if target.size > PART else source.content(target)

    with pytest.raises(ContentError) as caught:
        push(Source(), made.key, repository, "v1", options=PushOptions(part_size=PART))
    assert caught.value.code == ("SIZE" if change == "shorter" else "DIGEST")
    assert list(repository.tags()) == []
    large = [raw for raw in made.blobs.values() if len(raw) > PART]
    slices = {Digest.of(raw[at : at + PART]) for raw in large for at in range(0, len(raw), PART)}
    assert not slices & {Digest.parse(digest) for digest in registry.blobs("acme/bot")}
    assert all(entry.body_size < PART for entry in registry.recording.find("PUT|PATCH", "blobs"))


def test_a_tag_of_another_snapshot_is_a_conflict_before_anything_is_read(tmp_path, store):
    source, made = store
    sink = OciLayout(tmp_path / "layout")
    other = make_snapshot("W2b", name="another")
    put_snapshot(tmp_path / "store", other)
    send(source, other, sink, "v1")
    blobs = set((tmp_path / "layout/blobs/sha256").iterdir())
    with pytest.raises(ConflictError):
        send(source, made, sink, "v1")
    assert set((tmp_path / "layout/blobs/sha256").iterdir()) == blobs
    send(source, made, sink, "v1", force=True)


def bearing(fake_registry, above: int):
    """A registry, and its repository where files above so many bytes are cut when nobody says otherwise."""
    registry = fake_registry()
    repository, _ = room(registry)
    known = repository.limits()
    repository.limits = lambda: replace(known, cut_above=above, part_size=above)
    return registry, repository


@pytest.mark.parametrize("before", [0, PART // 4], ids=["whole", "in other parts"])
@pytest.mark.parametrize("remembered", [False, True])
def test_where_nobody_says_how_files_are_cut_what_is_there_decides(tmp_path, fake_registry, store, before, remembered):
    source, made = store
    _, repository = bearing(fake_registry, PART)
    cache = tmp_path / "cache" if remembered else None
    first = push(source, made.key, repository, None, options=PushOptions(part_size=before, part_cache=cache))
    if remembered:  # also how it would be cut here
        push(source, made.key, repository, "other", options=PushOptions(part_cache=cache))
    again = push(source, made.key, repository, None, options=PushOptions(part_cache=cache))
    assert (again.digest, again.transferred) == (first.digest, 0)
    anew = push(source, made.key, repository, None, options=PushOptions(part_cache=cache, force=True))
    assert anew.digest != first.digest == again.digest


def test_a_tag_in_parts_stays_so_where_nothing_would_be_cut_by_itself(fake_registry, store):
    source, made = store
    repository, _ = room(fake_registry())
    first = push(source, made.key, repository, None, options=PushOptions(part_size=PART))
    again = push(source, made.key, repository, None)
    assert (again.digest, again.transferred) == (first.digest, 0)


@pytest.mark.parametrize("before", [0, PART])
def test_the_tag_is_looked_at_once_when_nothing_has_changed(fake_registry, store, tmp_path, before):
    source, made = store
    registry, repository = bearing(fake_registry, PART)
    push(source, made.key, repository, None, options=PushOptions(part_size=before, part_cache=tmp_path))
    asked = registry.recording.count("GET|HEAD", "/manifests/")
    push(source, made.key, repository, None, options=PushOptions(part_cache=tmp_path))
    assert registry.recording.count("GET|HEAD", "/manifests/") == asked + 1


@pytest.mark.parametrize("before", [0, PART // 4], ids=["whole", "in other parts"])
def test_an_archive_is_cut_as_the_tag_has_it(tmp_path, fake_registry, before):
    _, repository = bearing(fake_registry, PART)
    raw = archive(Item("memory-ranges", noise("memory", 3 * PART)))

    def sent(**options):
        key = SnapshotKey("team/bot", "v1")
        with ExportArchive(io.BytesIO(raw), tmp_path) as found:
            return push_archive(found, repository, "v1", options=PushOptions(key=key, **options))

    first, again = sent(part_size=before), sent()
    assert (again.digest, again.transferred) == (first.digest, 0)
    assert sent(force=True).digest != first.digest


@pytest.mark.parametrize("asked", [{"part_size": PART // 2}, {"part_size": PART, "annotations": {"a": "b"}}])
def test_what_the_tag_cannot_become_is_a_conflict_before_a_byte_moves(fake_registry, store, asked):
    source, made = store
    registry, repository = bearing(fake_registry, PART)
    push(source, made.key, repository, None)
    sent = registry.recording.body_bytes("*", "")
    with pytest.raises(ConflictError):
        push(source, made.key, repository, None, options=PushOptions(**asked))
    assert registry.recording.body_bytes("*", "") == sent


def test_a_file_that_is_not_what_it_should_be_is_not_tagged_though_all_parts_arrived(tmp_path, store):
    source, made = store
    digest = max(made.blobs, key=lambda name: len(made.blobs[name]))
    path = tmp_path / "store/blobs/sha256" / digest
    path.write_bytes(made.blobs[digest][:-1] + b"?")
    sink = OciLayout(tmp_path / "layout")
    with pytest.raises(ContentError) as caught:
        send(source, made, sink)
    assert caught.value.code == "DIGEST" and list(sink.tags()) == []


def remember_wrongly(made: Made, cache: Path) -> None:
    for large in (item for item in Manifest.parse(made.raw).descriptors if item.size > PART):
        table = PartCache(cache).known(large, PART)
        wrong = tuple(Digest.of(digest.hex.encode()) for digest in table.digests)
        PartCache(cache).learn(large, PartTable(size=PART, digests=wrong))


def test_a_remembered_part_digest_that_is_wrong_is_learnt_anew_in_the_same_run(tmp_path, store):
    source, made = store
    cache = tmp_path / "cache"
    right = send(source, made, OciLayout(tmp_path / "one"), part_cache=cache)
    remember_wrongly(made, cache)
    again = send(source, made, OciLayout(tmp_path / "two"), part_cache=cache)
    assert again.digest == right.digest
    assert send(source, made, OciLayout(tmp_path / "three"), part_cache=cache).digest == right.digest


def test_what_cannot_be_forgotten_is_not_believed_again_and_again(tmp_path, store, monkeypatch):
    """The cache is on a file system that has become read-only."""
    source, made = store
    cache = tmp_path / "cache"
    right = send(source, made, OciLayout(tmp_path / "one"), part_cache=cache)
    remember_wrongly(made, cache)
    opened = os.open

    def read_only(path, flags, *rest, dir_fd=None):
        folder = os.path.dirname(path) if dir_fd is None else os.readlink(f"/proc/self/fd/{dir_fd}")
        if Path(folder) == cache and flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return opened(path, flags, *rest, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", read_only)
    assert send(source, made, OciLayout(tmp_path / "two"), part_cache=cache).digest == right.digest


def test_parts_that_are_alike_are_sent_once(tmp_path):
    raw = bytes(8 * PART)
    layer = {"digest": Digest.of(raw).hex, "size": len(raw), "filename": "memory-ranges"}
    members = {"schemaVersion": 1, "name": "zeros", "tag": "v1", "snapshotId": "s", "layers": [layer]}
    made = Made(
        make_snapshot(name="zeros").key, gojson.dumps({**members, "totalSize": len(raw)}), {layer["digest"]: raw}
    )
    put_snapshot(tmp_path / "store", made)
    report = send(open_store(tmp_path / "store"), made, OciLayout(tmp_path / "layout"))
    assert report.transferred == PART + len(made.raw)


def test_a_dry_run_reads_nothing_and_says_what_it_does_not_know(tmp_path, store):
    source, made = store

    class Unopened:
        def __getattr__(self, name):
            return getattr(source, name)

        def content(self, target):
            content = source.content(target)
            return Unread(b"") if target.size > PART else content

    report = send(Unopened(), made, OciLayout(tmp_path / "layout"), dry_run=True)
    assert report.document is None and report.to_json()["digest"] is None
    assert any("memory-ranges" in warning for warning in report.warnings)
    rows = {row.title: row.moved for row in report.blobs}
    assert rows["memory-ranges"] == max(map(len, made.blobs.values()))


def test_registries_have_files_above_a_gibibyte_in_parts_and_layouts_whole(tmp_path, fake_registry):
    repository, _ = room(fake_registry())
    large = Descriptor(media_type="a/b", digest=Digest.of(b"x"), size=(1 << 30) + 1)
    for sink, size in ((repository, 512 << 20), (OciLayout(tmp_path / "layout"), None)):
        assert cut_size(large, sink, None) == size
        assert cut_size(large, sink, 0) is None
        assert cut_size(large, sink, 1 << 20) == 16 << 20  # no more than a hundred
    edge = Descriptor(media_type="a/b", digest=Digest.of(b"x"), size=1 << 30)
    assert cut_size(edge, repository, None) is None
