"""Every store keeps what the ports promise."""

import multiprocessing
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest
from support.content import noise

from contract.cases import CASES, StoreCase, Subject, descriptor
from contract.contents import Failing, Raw, Unopenable
from contract.registry_cases import live_kinds
from contract.workers import publish_one, publish_tags
from epoch_oci.errors import ConflictError, ContentError, EpochOciError, NetworkError, NotFoundError
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.verifying import VerifyingReader
from epoch_oci.stores.base import ArtifactStore, Remote, SnapshotStore

PROCESSES = multiprocessing.get_context("forkserver")  # imports once what every worker needs
PROCESSES.set_forkserver_preload(["contract.workers", "epoch_oci.locate"])
BLOB = noise(3 * (1 << 20) + 17, seed=1)
OTHER = noise(70_001, seed=2)


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Subject]:
    case: StoreCase = request.param
    with case.factory(tmp_path) as made:
        yield made


def planter(subject: Subject):
    if subject.plant is None:
        pytest.skip("content cannot be planted behind this store's back")
    return subject.plant


def read(store, target: Descriptor, *span: int, step: int = 1 << 20) -> bytes:
    with store.content(target).open(*span) as reader:
        return b"".join(iter(lambda: reader.read(step), b""))


def fill(subject: Subject, *blobs: bytes) -> None:
    for part in subject.kind.parts(blobs):
        subject.store.put(descriptor(part), Raw(part))


def publish(subject: Subject, tag: str, note: str, *blobs: bytes, replace: bool = False):
    document = subject.kind.document(blobs, note)
    subject.store.publish(subject.kind.name(tag), document, replace=replace)
    return document


class TestBlobs:
    def test_absent(self, subject: Subject) -> None:
        target = descriptor(BLOB)
        assert subject.store.has(target) is False
        content = subject.store.content(target)
        assert content.size == len(BLOB)
        with pytest.raises(NotFoundError), content.open() as reader:
            reader.read(1)

    def test_what_was_put_is_there_for_every_client(self, subject: Subject) -> None:
        target = descriptor(BLOB)
        subject.store.put(target, Raw(BLOB))
        for store in (subject.store, subject.open()):
            assert store.has(target) is True
            assert read(store, target) == BLOB

    @pytest.mark.parametrize("step", [1, 4095, 1 << 20])
    def test_readers_that_give_little_at_a_time(self, subject: Subject, step: int) -> None:
        blob = OTHER[:20_000] + bytes(30_000) + OTHER[20_000:30_000]
        subject.store.put(descriptor(blob), Raw(blob, step=step))
        assert read(subject.store, descriptor(blob), step=step * 3) == blob

    def test_empty(self, subject: Subject) -> None:
        target = descriptor(b"")
        assert not subject.store.has(target)
        subject.store.put(target, Raw(b""))
        assert subject.store.has(target)
        assert read(subject.store, target) == b""

    def test_from_any_offset(self, subject: Subject) -> None:
        target = descriptor(BLOB)
        subject.store.put(target, Raw(BLOB))
        chance = random.Random(7)
        spans = [(chance.randrange(len(BLOB)), chance.randrange(1, len(BLOB))) for _ in range(20)]
        for start, length in [*spans, (0, 1), (len(BLOB) - 1, 1), (5, 0)]:
            assert read(subject.store, target, start, length) == BLOB[start : start + length]
        assert read(subject.store, target, 1 << 20) == BLOB[1 << 20 :]

    def test_several_readers_at_once(self, subject: Subject) -> None:
        target = descriptor(BLOB)
        subject.store.put(target, Raw(BLOB))
        content = subject.store.content(target)
        with content.open() as first, content.open(100) as second:
            assert first.read(10) == BLOB[:10]
            assert second.read(10) == BLOB[100:110]
            assert first.read(10) == BLOB[10:20]

    def test_twice(self, subject: Subject) -> None:
        target = descriptor(BLOB)
        for _ in range(2):
            subject.store.put(target, Raw(BLOB))
        assert read(subject.store, target) == BLOB

    def test_another_size_is_another_blob(self, subject: Subject) -> None:
        subject.store.put(descriptor(OTHER), Raw(OTHER))
        for size in (0, len(OTHER) - 1, len(OTHER) + 1):
            target = Descriptor(media_type="a/b", digest=descriptor(OTHER).digest, size=size)
            assert subject.store.has(target) is False


BAD = {
    "short": (Raw(BLOB[:-1]), "SIZE"),
    "empty": (Raw(b""), "SIZE"),
    "long": (Raw(BLOB + b"x"), "SIZE"),
    "first-byte": (Raw(bytes([BLOB[0] ^ 1]) + BLOB[1:]), "DIGEST"),
    "last-byte": (Raw(BLOB[:-1] + bytes([BLOB[-1] ^ 1])), "DIGEST"),
    "swapped": (Raw(BLOB[1 << 20 :] + BLOB[: 1 << 20]), "DIGEST"),
}
FAILURES = {
    "network": Failing(BLOB[:-5], NetworkError("the line went dead")),
    "at-the-start": Failing(b"", NotFoundError("gone")),
    "not-there": Unopenable(len(BLOB), NotFoundError("gone")),
    "interrupt": Failing(BLOB[: 2 << 20], KeyboardInterrupt()),
    "bug": Failing(BLOB[:10], ZeroDivisionError()),
}


class TestBadContent:
    @pytest.mark.parametrize("name", BAD)
    def test_is_refused_and_leaves_nothing(self, subject: Subject, name: str) -> None:
        subject.store.put(descriptor(OTHER), Raw(OTHER))
        before = subject.listing()
        content, code = BAD[name]
        with pytest.raises(ContentError) as caught:
            subject.store.put(descriptor(BLOB), content)
        assert caught.value.code == code
        assert subject.listing() == before
        assert not subject.store.has(descriptor(BLOB))

    @pytest.mark.parametrize("name", BAD)
    def test_does_not_touch_the_good_blob_that_is_there(self, subject: Subject, name: str) -> None:
        subject.store.put(descriptor(BLOB), Raw(BLOB))
        with pytest.raises(ContentError):
            subject.store.put(descriptor(BLOB), BAD[name][0])
        assert read(subject.store, descriptor(BLOB)) == BLOB

    def test_into_a_new_place_leaves_no_file(self, subject: Subject) -> None:
        before = subject.listing()
        with pytest.raises(ContentError):
            subject.store.put(descriptor(BLOB), BAD["last-byte"][0])
        assert subject.listing() == before

    def test_not_empty_where_nothing_is_declared(self, subject: Subject) -> None:
        with pytest.raises(ContentError):
            subject.store.put(descriptor(b""), Raw(b"x"))
        assert not subject.store.has(descriptor(b""))

    @pytest.mark.parametrize("name", FAILURES)
    def test_failures_of_the_source_pass_unchanged_and_leave_nothing(self, subject: Subject, name: str) -> None:
        subject.store.put(descriptor(OTHER), Raw(OTHER))
        before = subject.listing()
        content = FAILURES[name]
        with pytest.raises(type(content.error)) as caught:
            subject.store.put(descriptor(BLOB), content)
        assert caught.value is content.error
        assert subject.listing() == before
        subject.store.put(descriptor(BLOB), Raw(BLOB))
        assert read(subject.store, descriptor(BLOB)) == BLOB


class TestDamage:
    @pytest.mark.parametrize("damaged", [BLOB[:-1], BLOB + b"x", b"", OTHER], ids=["short", "long", "empty", "other"])
    def test_a_wrong_size_is_absent_and_put_mends_it(self, subject: Subject, damaged: bytes) -> None:
        planter(subject)(descriptor(BLOB).digest, damaged)
        assert not subject.store.has(descriptor(BLOB))
        subject.store.put(descriptor(BLOB), Raw(BLOB))
        assert subject.store.has(descriptor(BLOB))
        assert read(subject.store, descriptor(BLOB)) == BLOB

    @pytest.mark.parametrize("damaged", [BLOB[:-1], BLOB + b"x", BLOB[:-1] + b"?"], ids=["short", "long", "altered"])
    def test_shows_when_it_is_read(self, subject: Subject, damaged: bytes) -> None:
        planter(subject)(descriptor(BLOB).digest, damaged)
        with pytest.raises(ContentError), subject.store.content(descriptor(BLOB)).open() as reader:
            for _ in VerifyingReader(reader, descriptor(BLOB)).blocks():
                pass

    def test_an_altered_blob_is_replaced_by_put(self, subject: Subject) -> None:
        planter(subject)(descriptor(BLOB).digest, b"?" + BLOB[1:])
        subject.store.put(descriptor(BLOB), Raw(BLOB))
        assert read(subject.store, descriptor(BLOB)) == BLOB


class TestDocuments:
    def test_absent(self, subject: Subject) -> None:
        with pytest.raises(NotFoundError):
            subject.store.resolve(subject.kind.name("v1"))
        fill(subject, BLOB)
        with pytest.raises(NotFoundError):
            subject.store.resolve(subject.kind.name("v1"))

    def test_come_back_byte_for_byte(self, subject: Subject) -> None:
        fill(subject, BLOB, OTHER, b"")
        document = publish(subject, "v1", "first", BLOB, OTHER, b"")
        for store in (subject.store, subject.open()):
            found = store.resolve(subject.kind.name("v1"))
            assert found.raw == document.raw
            assert found.media_type == document.media_type
            assert found.digest == document.digest

    @pytest.mark.parametrize("missing", [BLOB, b""], ids=["full", "empty"])
    def test_are_refused_before_their_blobs(self, subject: Subject, missing: bytes) -> None:
        fill(subject, OTHER)
        before = subject.listing()
        with pytest.raises(NotFoundError) as caught:
            publish(subject, "v1", "first", OTHER, missing)
        assert str(descriptor(missing).digest) in str(caught.value)
        assert subject.listing() == before
        with pytest.raises(NotFoundError):
            subject.store.resolve(subject.kind.name("v1"))

    def test_are_refused_in_a_place_that_is_not_there(self, subject: Subject) -> None:
        before = subject.listing()
        with pytest.raises(NotFoundError):
            publish(subject, "v1", "first", BLOB)
        assert subject.listing() == before

    def test_the_same_again_changes_nothing(self, subject: Subject) -> None:
        fill(subject, BLOB)
        publish(subject, "v1", "first", BLOB)
        before = subject.listing()
        for replace in (False, True):
            publish(subject, "v1", "first", BLOB, replace=replace)
            assert subject.listing() == before

    def test_another_document_is_a_conflict(self, subject: Subject) -> None:
        fill(subject, BLOB)
        first = publish(subject, "v1", "first", BLOB)
        before = subject.listing()
        with pytest.raises(ConflictError):
            publish(subject, "v1", "second", BLOB)
        assert subject.listing() == before
        assert subject.store.resolve(subject.kind.name("v1")).raw == first.raw

    def test_replacing(self, subject: Subject) -> None:
        fill(subject, BLOB, OTHER)
        publish(subject, "v1", "first", BLOB)
        publish(subject, "v2", "first", BLOB)
        second = publish(subject, "v1", "second", OTHER, replace=True)
        assert subject.store.resolve(subject.kind.name("v1")).raw == second.raw
        assert subject.store.resolve(subject.kind.name("v2")).raw != second.raw
        assert subject.open().resolve(subject.kind.name("v1")).raw == second.raw

    def test_what_is_no_document_of_this_kind_is_refused(self, subject: Subject) -> None:
        fill(subject, BLOB)
        good = subject.kind.document([BLOB], "x")
        before = subject.listing()
        for raw in (b"", b"[]", b"{}", b'{"layers":1}', good.raw[:-1]):
            with pytest.raises(ContentError):
                subject.store.publish(subject.kind.name("v1"), type(good)(good.media_type, raw))
        assert subject.listing() == before

    def test_are_listed(self, subject: Subject) -> None:
        fill(subject, BLOB)
        for tag in ("v2", "v10", "latest", "v1"):
            publish(subject, tag, tag, BLOB)
        assert listed(subject) == sorted(["v2", "v10", "latest", "v1"])


def listed(subject: Subject) -> list[str]:
    store = subject.open()
    if isinstance(store, ArtifactStore):
        return list(store.tags())
    assert isinstance(store, SnapshotStore)
    return [entry.tag for entry in store.snapshots()]


REMOTE = [case for case in CASES if case.name in {"fake-registry", *live_kinds()}]


@pytest.mark.parametrize("subject", REMOTE, ids=lambda case: case.name, indirect=True)
class TestRemote:
    def test_asking_whether_it_may_be_written_to_leaves_nothing(self, subject: Subject) -> None:
        fill(subject, BLOB)
        before = subject.listing()
        subject.store.check_write()
        assert subject.listing() == before

    def test_a_blob_that_no_sibling_has_is_not_mounted(self, subject: Subject) -> None:
        assert not subject.store.mount(descriptor(OTHER), "acme/another")
        assert not subject.store.holds(descriptor(OTHER))

    def test_an_open_registry_of_this_machine_is_not_open_to_everybody(self, subject: Subject) -> None:
        assert subject.store.openness() is None
        fill(subject, OTHER)
        assert subject.open().openness(descriptor(OTHER)) is None

    def test_its_limits_are_known_unasked(self, subject: Subject) -> None:
        limits = subject.store.limits()
        assert limits.jobs is not None and limits.jobs > 0
        assert limits.part_size is not None and limits.cut_above is not None and limits.part_size <= limits.cut_above


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_nothing_but_a_registry_is_remote(case: StoreCase, tmp_path: Path) -> None:
    with case.factory(tmp_path) as subject:
        assert isinstance(subject.store, Remote) == (case in REMOTE)


class TestConcurrency:
    def test_threads_put_the_same_and_different_blobs(self, subject: Subject) -> None:
        blobs = [noise(200_000, seed=seed) for seed in range(4)]
        with ThreadPoolExecutor(8) as pool:
            for result in [pool.submit(subject.store.put, descriptor(b), Raw(b)) for b in blobs * 4]:
                result.result()
        for blob in blobs:
            assert read(subject.store, descriptor(blob)) == blob

    def test_a_reader_sees_the_old_or_the_new(self, subject: Subject) -> None:
        fill(subject, OTHER)
        documents = [subject.kind.document([OTHER], note) for note in ("one", "two")]
        name = subject.kind.name("v1")
        subject.store.publish(name, documents[0])
        stop, seen = threading.Event(), set()

        def look() -> None:
            store = subject.open()
            while not stop.is_set():
                seen.add(store.resolve(name).raw)

        with ThreadPoolExecutor(2) as pool:
            readers = [pool.submit(look) for _ in range(2)]
            turn = 0
            while turn < 30 or not (len(seen) > 1 or any(reader.done() for reader in readers)):
                subject.store.publish(name, documents[turn % 2], replace=True)
                turn += 1
            stop.set()
            for reader in readers:
                reader.result()
        assert seen == {document.raw for document in documents}

    def test_threads_publish_one_tag_and_one_wins(self, subject: Subject) -> None:
        fill(subject, OTHER)
        start = threading.Barrier(6)

        def race(worker: int) -> str:
            start.wait()
            return publish_one(subject.open, subject.kind, worker, OTHER)

        with ThreadPoolExecutor(6) as pool:
            outcomes = list(pool.map(race, range(6)))
        self.check_race(subject, outcomes)

    @staticmethod
    def check_race(subject: Subject, outcomes: list[str]) -> None:
        winners = [outcome for outcome in outcomes if outcome != "ConflictError"]
        assert len(winners) == 1 if subject.exclusive else winners
        possible = [subject.kind.document([OTHER], winner).raw for winner in winners]
        assert subject.store.resolve(subject.kind.name("race")).raw in possible

    def test_processes(self, subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
        """No tag is lost, the shared blob is whole, and of many who want one tag a single one gets it."""
        if not subject.processes:
            pytest.skip("other processes cannot reach this store")
        monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))  # Python 3.11 preloads nothing else
        fill(subject, OTHER)
        workers, tags = 4, 8
        with ProcessPoolExecutor(workers, mp_context=PROCESSES) as pool:
            done = [pool.submit(publish_tags, subject.open, subject.kind, w, tags, BLOB) for w in range(workers)]
            names = [name for result in done for name in result.result()]
            racing = [pool.submit(publish_one, subject.open, subject.kind, w, OTHER) for w in range(workers)]
            outcomes = [result.result() for result in racing]
        assert len(names) == workers * tags
        for name in names:
            assert subject.store.resolve(name).raw == subject.kind.document([BLOB], name).raw
        assert len(listed(subject)) == workers * tags + 1
        assert read(subject.store, descriptor(BLOB)) == BLOB
        self.check_race(subject, outcomes)


def test_errors_are_all_ours(subject: Subject) -> None:
    """Whatever a name looks like, nothing but our own exceptions comes out."""
    for name in ("", ":", "a/../b", "..", "sha256:zz", "a:b:c", "x" * 5000, "\x00", "a\ud800", "a b", "/", "a//b:c"):
        with pytest.raises(EpochOciError):
            subject.store.resolve(name)
        with pytest.raises(EpochOciError):
            subject.store.publish(name, subject.kind.document([BLOB], "x"))
