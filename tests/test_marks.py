"""What is remembered of files: a blob counts as there when its bytes are right, and is read once to know."""

import multiprocessing
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cli_runner import Here
from cocoon_world import make_root
from snapshots import Made, make_snapshot, put_snapshot, tree
from support.content import noise

from epoch_oci.disk import facts as facts_module
from epoch_oci.disk.facts import LIMIT, Facts, Marks
from epoch_oci.errors import NotFoundError
from epoch_oci.oci import media_types
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.stores.backends.directory import DirectoryBackend
from epoch_oci.stores.base import BytesContent
from epoch_oci.stores.epoch_store import EpochStore
from epoch_oci.stores.oci_layout import OciLayout
from epoch_oci.transfer.execute import execute
from epoch_oci.transfer.plan import Want, plan_blobs

SMALL, LARGE = noise(50_000, seed=1), noise(5 << 20, seed=2)


@pytest.fixture
def cli(capsys, tmp_path, monkeypatch) -> Here:
    monkeypatch.chdir(tmp_path)
    return Here(capsys)


@pytest.fixture
def bot(tmp_path: Path) -> Made:
    """team/bot:v1 in ./store."""
    made = make_snapshot("W3b")
    put_snapshot(tmp_path / "store", made)
    return made


def descriptor(raw: bytes) -> Descriptor:
    return Descriptor(media_type=media_types.OCTET_STREAM, digest=Digest.of(raw), size=len(raw))


def epoch_store(path: Path, cache: Path | None) -> EpochStore:
    return EpochStore(DirectoryBackend(path, marks=Marks(Facts(cache))), str(path))


def oci_layout(path: Path, cache: Path | None) -> OciLayout:
    return OciLayout(path, marks=Marks(Facts(cache)))


def altered(raw: bytes) -> bytes:
    return raw[:-1] + bytes([raw[-1] ^ 1])


@contextmanager
def counted() -> Iterator[list[int]]:
    """How many bytes of files are read meanwhile, call by call."""
    read, real = [], os.pread

    def pread(descriptor: int, length: int, offset: int) -> bytes:
        block = real(descriptor, length, offset)
        read.append(len(block))
        return block

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "pread", pread)
        yield read


def blob_of(root: Path, raw: bytes) -> Path:
    return root / "blobs/sha256" / Digest.of(raw).hex


@pytest.mark.parametrize("place", ["layout", "second"])
def test_wrong_bytes_of_the_right_size_are_replaced(cli, bot, tmp_path, place):
    assert cli("push", "team/bot:v1", "oci:layout", "--store", "store").code == 0
    assert cli("pull", "oci:layout", "--store", "second").code == 0
    words = ("push", "team/bot:v1", "oci:layout", "--store", "store")
    if place == "second":
        words = ("pull", "oci:layout", "--store", "second")
    before = tree(tmp_path / place)
    largest = max((tmp_path / place / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    largest.write_bytes(altered(largest.read_bytes()))
    planned = cli(*words, "--dry-run", "--format", "json").json["blobs"]
    assert {row["action"] for row in planned if row["digest"].endswith(largest.name)} <= {"send", "fetch"}
    ran = cli(*words)
    assert ran.code == 0 and f"{largest.name} does not hold what its name says" in ran.err
    assert tree(tmp_path / place) == before
    assert cli("verify", f"oci:{place}" if place == "layout" else place).code == 0
    assert "does not hold" not in cli(*words).err


def test_wrong_bytes_that_wait_in_a_cocoon_root_are_replaced(cli, bot, tmp_path):
    assert cli("push", "team/bot:v1", "oci:layout", "--store", "store").code == 0
    root = make_root(tmp_path / "root")
    stage = root.path / "snapshot/.epoch-oci/blobs/sha256"
    stage.mkdir(parents=True)
    for raw in bot.blobs.values():
        (stage / Digest.of(raw).hex).write_bytes(altered(raw))
    assert cli("pull", "oci:layout", "--store", "cocoon:root").code == 0
    (snapshot_id,) = root.index["snapshots"]
    assert cli("pull", "oci:layout", "-o", "files").code == 0
    for path in root.data(snapshot_id).iterdir():
        assert path.read_bytes() == (tmp_path / "files" / path.name).read_bytes()


@pytest.mark.parametrize("opener", [epoch_store, oci_layout])
@pytest.mark.parametrize("raw", [SMALL, LARGE], ids=["small", "large"])
class TestBlobs:
    def put(self, store, raw: bytes) -> None:
        execute(plan_blobs(store, [Want(target=descriptor(raw), content=BytesContent(raw))]), moved="received")

    def test_that_were_put_are_not_read_again(self, tmp_path, opener, raw):
        store = opener(tmp_path / "place", tmp_path / "cache")
        self.put(store, raw)
        for again in (store, opener(tmp_path / "place", tmp_path / "cache")):
            with counted() as read:
                assert again.holds(descriptor(raw))
            assert sum(read) < 2000
        with counted() as read:
            assert store.holds(descriptor(raw), anew=True)
        assert sum(read) >= len(raw)

    def test_of_others_are_read_once(self, tmp_path, opener, raw, monkeypatch):
        path = blob_of(tmp_path / "place", raw)
        path.parent.mkdir(parents=True)
        path.write_bytes(raw)
        monkeypatch.setattr("epoch_oci.disk.facts.time.time_ns", lambda: path.stat().st_ctime_ns + 3 * 10**9)
        with counted() as read:
            assert opener(tmp_path / "place", tmp_path / "cache").holds(descriptor(raw))
        assert len(raw) <= sum(read) < len(raw) + 2000
        with counted() as read:
            assert opener(tmp_path / "place", tmp_path / "cache").holds(descriptor(raw))
        assert sum(read) < 2000

    def test_that_changed_a_moment_ago_are_read_by_the_next_process_too(self, tmp_path, opener, raw):
        path = blob_of(tmp_path / "place", raw)
        path.parent.mkdir(parents=True)
        path.write_bytes(raw)
        for _ in range(2):
            store = opener(tmp_path / "place", tmp_path / "cache")
            with counted() as read:
                assert store.holds(descriptor(raw)) and store.holds(descriptor(raw))
            assert len(raw) <= sum(read) < len(raw) + 2000

    @pytest.mark.parametrize("times", ["kept", "older", "new"])
    def test_that_were_changed_are_read_again(self, tmp_path, opener, raw, times):
        store = opener(tmp_path / "place", tmp_path / "cache")
        self.put(store, raw)
        path = blob_of(tmp_path / "place", raw)
        before = path.stat()
        with path.open("r+b") as file:
            file.write(altered(raw))
        if times != "new":
            passed = 0 if times == "kept" else 10**10
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns - passed))
        assert not store.holds(descriptor(raw))
        assert not opener(tmp_path / "place", tmp_path / "cache").holds(descriptor(raw))
        self.put(store, raw)
        assert path.read_bytes() == raw and store.holds(descriptor(raw))

    def test_that_are_swapped_for_others_are_read_again(self, tmp_path, opener, raw):
        store = opener(tmp_path / "place", tmp_path / "cache")
        self.put(store, raw)
        path = blob_of(tmp_path / "place", raw)
        (tmp_path / "other").write_bytes(altered(raw))
        (tmp_path / "other").replace(path)
        assert not store.holds(descriptor(raw))

    def test_without_a_cache_are_read_by_each_process(self, tmp_path, opener, raw):
        self.put(opener(tmp_path / "place", None), raw)
        with counted() as read:
            assert opener(tmp_path / "place", None).holds(descriptor(raw))
        assert len(raw) <= sum(read) < len(raw) + 2000

    def test_that_are_linked_from_a_seed_are_marked(self, tmp_path, opener, raw):
        cache = tmp_path / "cache"
        store = opener(tmp_path / "place", cache)
        self.put(store, raw)
        copy = DirectoryBackend(tmp_path / "copy", immutable=True, marks=Marks(Facts(cache)))
        with copy.assemble(f"blobs/sha256/{Digest.of(raw).hex}", descriptor(raw)) as assembly:
            file = os.open(blob_of(tmp_path / "place", raw), os.O_RDONLY)
            assert assembly.adopt(file, lambda: None) and assembly.finish()
            os.close(file)
        with counted() as read:
            assert store.holds(descriptor(raw))
        linked = blob_of(tmp_path / "copy", raw).stat().st_nlink == 2
        assert sum(read) < 2000 or not linked


def test_a_snapshot_with_a_wrong_blob_is_not_published(bot, tmp_path):
    store = epoch_store(tmp_path / "second", None)
    for raw in bot.blobs.values():
        store.put(descriptor(raw), BytesContent(raw))
    victim = blob_of(tmp_path / "second", max(bot.blobs.values(), key=len))
    victim.write_bytes(altered(victim.read_bytes()))
    with pytest.raises(NotFoundError) as caught:
        store.publish("team/bot:v1", bot.document)
    assert victim.name in str(caught.value)
    assert not (tmp_path / "second/manifests").exists()


class TestFacts:
    @pytest.fixture
    def cache(self, tmp_path: Path) -> Path:
        return tmp_path / "deep/cache"

    def test_are_remembered_for_other_processes(self, cache):
        first, second = Facts(cache), Facts(cache)
        assert first.recall("kind", "key") is None and not cache.exists()
        first.keep("kind", "key", "one")
        assert first.recall("kind", "key") == second.recall("kind", "key") == "one"
        second.keep("kind", "key", "two")
        assert first.recall("kind", "key") == Facts(cache).recall("kind", "key") == "two"
        assert first.recall("kind", "other") is None and first.recall("other", "key") is None
        first.forget("kind", "key")
        assert second.recall("kind", "key") is None and Facts(cache).recall("kind", "key") is None

    def test_are_their_owners_alone(self, cache):
        Facts(cache).keep("kind", "key", "text")
        (file,) = cache.iterdir()
        assert [stat.S_IMODE(path.stat().st_mode) for path in (file, cache, cache.parent)] == [0o600, 0o700, 0o700]

    def test_kept_briefly_are_of_this_process(self, cache):
        first = Facts(cache)
        first.keep("kind", "key", "text", briefly=True)
        assert first.recall("kind", "key") == "text" and Facts(cache).recall("kind", "key") is None
        nowhere = Facts(None)
        nowhere.keep("kind", "key", "text")
        assert nowhere.recall("kind", "key") == "text"

    @pytest.mark.parametrize(
        "damage",
        [
            lambda file: file.write_bytes(b"not facts at all" * 1000),
            lambda file: file.write_bytes(b""),
            lambda file: file.write_bytes(file.read_bytes()[:30]),
            lambda file: file.write_bytes(os.urandom(5000)),
            lambda file: file.write_bytes(file.read_bytes() + b"x" * (3 * LIMIT)),
            lambda file: (file.unlink(), file.mkdir()),
            lambda file: (file.unlink(), file.symlink_to("/etc/passwd")),
            lambda file: (file.unlink(), os.mkfifo(file)),
            lambda file: file.chmod(0o666),
            pytest.param(
                lambda file: os.chown(file, 12345, 12345),
                marks=pytest.mark.skipif(os.geteuid() != 0, reason="giving a file away needs root"),
            ),
        ],
    )
    def test_that_are_damaged_are_as_if_never_found_out(self, cache, damage):
        Facts(cache).keep("kind", "key", "text")
        (file,) = cache.iterdir()
        damage(file)
        again = Facts(cache)
        assert again.recall("kind", "key") is None
        again.keep("kind", "key", "again")
        assert again.recall("kind", "key") == "again"
        assert Facts(cache).recall("kind", "key") in ("again", None)
        assert file.is_dir() or Facts(cache).recall("kind", "key") == "again"

    def test_of_which_a_byte_is_wrong_are_forgotten_one_by_one(self, cache):
        facts = Facts(cache)
        for number in range(3):
            facts.keep("kind", str(number), f"text-{number}")
        (file,) = cache.iterdir()
        whole = file.read_bytes()
        for place in range(len(whole)):
            file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            found = [Facts(cache).recall("kind", str(number)) for number in range(3)]
            assert all(text in (None, f"text-{number}") for number, text in enumerate(found))
            assert found.count(None) <= 2 or place < 18

    def test_that_a_kill_cut_short_spoil_no_others(self, cache):
        facts = Facts(cache)
        facts.keep("kind", "first", "text")
        (file,) = cache.iterdir()
        with file.open("ab") as torn:
            torn.write(b"\n0123456789abcdef0123 half a rec")
        facts.keep("kind", "second", "text")
        assert [Facts(cache).recall("kind", key) for key in ("first", "second")] == ["text", "text"]

    def test_grow_no_larger_than_the_limit(self, cache, monkeypatch):
        monkeypatch.setattr(facts_module, "LIMIT", 20_000)
        facts = Facts(cache)
        for number in range(1000):
            facts.keep("kind", str(number), "x" * 60)
            facts.keep("kind", "always", str(number))
        (file,) = cache.iterdir()
        assert file.stat().st_size <= 20_000
        assert all(facts.recall("kind", str(number)) for number in range(950, 1000))
        assert Facts(cache).recall("kind", "always") == "999"
        facts.keep("kind", "huge", "x" * LIMIT)
        assert facts.recall("kind", "huge") and file.stat().st_size <= 20_000

    def test_of_several_processes_are_all_there(self, cache):
        with multiprocessing.get_context("spawn").Pool(4) as pool:
            pool.starmap(keep_many, [(cache, worker) for worker in range(4)])
        facts = Facts(cache)
        kept = {facts.recall("kind", f"{worker}-{number}") for worker in range(4) for number in range(100)}
        assert kept == {"y" * 500}

    def test_that_cannot_be_written_are_no_failure(self, tmp_path):
        (tmp_path / "file").touch()
        facts = Facts(tmp_path / "file/cache")
        facts.keep("kind", "key", "text")
        assert facts.recall("kind", "key") == "text"
        assert Facts(tmp_path / "file/cache").recall("kind", "key") is None


def keep_many(cache: Path, worker: int) -> None:
    facts = Facts(cache)
    for number in range(100):
        facts.keep("kind", f"{worker}-{number}", "y" * 500)
