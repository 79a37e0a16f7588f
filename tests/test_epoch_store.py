"""Epoch's key layout: the keys, the catalog, what lies in the way, and what a kill leaves."""

import errno
import hashlib
import itertools
import json
import os
import pickle
import random
import resource
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_runner import start_function
from contract.cases import plant, tree
from contract.contents import Raw
from disks import CALLS, OBSTACLES, FailingCall, drafts, put_in_the_way, tmpfs
from support.content import noise
from support.waiting import at_once

from epoch_oci.epoch.gojson import is_time
from epoch_oci.epoch.keys import SnapshotKey
from epoch_oci.epoch.manifest import EPOCH_MANIFEST, MANIFEST_LIMIT, Manifest
from epoch_oci.errors import ConflictError, ContentError, EpochOciError, LocalIOError, NotFoundError, UsageError
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.document import Document
from epoch_oci.oci.verifying import VerifyingReader
from epoch_oci.stores.backends.directory import DirectoryBackend
from epoch_oci.stores.base import Auditor, Sink, SnapshotStore, Source
from epoch_oci.stores.epoch_store import EpochStore, go_now

NOW = "2026-04-05T06:07:08.123456789Z"
LATER = "2026-04-06T00:00:00Z"
BLOB = noise(50_000, seed=5)


def descriptor(content: bytes) -> Descriptor:
    return Descriptor(media_type="application/octet-stream", digest=Digest.of(content), size=len(content))


def document(*blobs: bytes, note: str = "id") -> Document:
    layers = [
        {"digest": Digest.of(blob).hex, "size": len(blob), "filename": f"file-{number}", "mediaType": "a/b"}
        for number, blob in enumerate(blobs)
    ]
    return Document(EPOCH_MANIFEST, json.dumps({"snapshotId": note, "layers": layers or None}).encode())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


def open_store(root: Path, now: str = NOW) -> EpochStore:
    return EpochStore(DirectoryBackend(root), str(root), clock=lambda: now)


@pytest.fixture
def store(root: Path) -> EpochStore:
    return open_store(root)


def fill(store: EpochStore, name: str, *blobs: bytes, note: str = "id", replace: bool = False) -> Document:
    for blob in blobs:
        store.put(descriptor(blob), Raw(blob))
    made = document(*blobs, note=note)
    store.publish(name, made, replace=replace)
    return made


def catalog_text(*entries: tuple[str, dict[str, str], str], now: str = NOW) -> str:
    """A catalog as Epoch's encoder writes it, spelt out by hand."""
    lines = ["{", '  "repositories": {']
    for number, (name, tags, updated) in enumerate(entries):
        lines += [f'    "{name}": {{', '      "tags": {']
        rows = [f'        "{tag}": "{value}"' for tag, value in tags.items()]
        lines += [row + ("," if row is not rows[-1] else "") for row in rows]
        lines += ["      },", f'      "updatedAt": "{updated}"', "    }" + ("," if number < len(entries) - 1 else "")]
    return "\n".join([*lines, "  },", f'  "updatedAt": "{now}"', "}"])


def test_it_is_what_the_ports_ask_for(store: EpochStore) -> None:
    source: Source = store
    sink: Sink = store
    assert source is sink
    assert isinstance(store, SnapshotStore)
    assert isinstance(store, Auditor)


def test_it_can_be_sent_to_other_processes(root: Path) -> None:
    fill(EpochStore(DirectoryBackend(root), "s"), "bot:v1", BLOB)
    copy = pickle.loads(pickle.dumps(EpochStore(DirectoryBackend(root), "s")))
    assert [entry.name for entry in copy.snapshots()] == ["bot"]


class TestKeys:
    def test_and_bytes_are_epochs(self, store: EpochStore, root: Path) -> None:
        made = fill(store, "acme/tools/bot:v1", BLOB, b"")
        files = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        text = catalog_text(("acme/tools/bot", {"v1": "manifests/acme/tools/bot/v1.json"}, NOW))
        assert files == {
            f"blobs/sha256/{hashlib.sha256(BLOB).hexdigest()}": BLOB,
            f"blobs/sha256/{hashlib.sha256(b'').hexdigest()}": b"",
            "manifests/acme/tools/bot/v1.json": made.raw,
            "catalog.json": text.encode(),
        }

    def test_no_tag_is_latest(self, store: EpochStore) -> None:
        fill(store, "bot", BLOB)
        assert store.resolve("bot:latest").raw == store.resolve("bot").raw

    def test_say_where_a_snapshot_is_whatever_the_document_says(self, store: EpochStore) -> None:
        """Writer W4, and pushes of Epoch before 0.1.4 (trap 3)."""
        raw = b'{"name":"other","tag":"v9","layers":null}'
        store.publish("bot:v1", Document(EPOCH_MANIFEST, raw))
        assert [(entry.name, entry.tag) for entry in store.snapshots()] == [("bot", "v1")]
        assert store.resolve("bot:v1").raw == raw

    def test_only_sha256_is_epochs(self, store: EpochStore) -> None:
        target = Descriptor(media_type="a/b", digest=Digest("sha512", hashlib.sha512(BLOB).hexdigest()), size=len(BLOB))
        with pytest.raises(ContentError):
            store.put(target, Raw(BLOB))

    def test_a_listing_is_of_the_manifests_and_in_order(self, store: EpochStore, root: Path) -> None:
        made = fill(store, "bot:v1", BLOB)
        pseudo = f"sha256:{'a' * 64}"
        for key in ("bot/v10", "bot/v2", "a/b/c/x", "Bot/V1", f"bot/{pseudo}", "bot/_digests/sha256-" + "a" * 64):
            path = root / "manifests" / f"{key}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(made.raw)
        (root / "manifests/stray.json").touch()
        (root / "manifests/bot/notes.txt").touch()
        (root / "catalog.json").write_text('{"repositories":{"ghost":{"tags":{"v1":"x"}}}}')
        names = [f"{entry.name}:{entry.tag}" for entry in store.snapshots()]
        assert names == ["Bot:V1", "a/b/c:x", f"bot:{pseudo}", "bot:v1", "bot:v10", "bot:v2"]
        assert store.resolve(f"bot:{pseudo}").raw == made.raw

    def test_of_every_listed_snapshot_can_be_asked_for(self, store: EpochStore, root: Path) -> None:
        for name in ("UPPER", "with space", "a:b", "100%", "a%3Ab", "ünï"):
            store.publish(str(SnapshotKey(name, "t.1")), document(note=name))
        for entry in store.snapshots():
            assert Manifest.parse(store.resolve(str(SnapshotKey(entry.name, entry.tag)))).snapshot_id == entry.name

    def test_an_empty_directory_is_an_empty_store_and_none_is_none(self, store: EpochStore, root: Path) -> None:
        with pytest.raises(NotFoundError):
            list(store.snapshots())
        root.mkdir()
        assert list(store.snapshots()) == []

    def test_a_miss_says_what_is_missing(self, store: EpochStore, root: Path) -> None:
        with pytest.raises(NotFoundError) as caught:
            store.resolve("bot:v1")
        assert str(root) in str(caught.value)
        root.mkdir()
        with pytest.raises(NotFoundError) as caught:
            store.resolve("bot:v1")
        assert "bot:v1" in str(caught.value)

    @pytest.mark.parametrize("name", ["../x:v1", "a/../b:v1", "/a:v1", "a//b:v1", "a:..", "a:b/c", "a\x1b:v1"])
    def test_hostile_names_are_refused_with_a_reason(self, store: EpochStore, name: str, tmp_path: Path) -> None:
        for call in (lambda: store.resolve(name), lambda: store.publish(name, document())):
            with pytest.raises(ContentError) as caught:
                call()
            assert caught.value.code == "NAME"
        assert tree(tmp_path) == {}

    @pytest.mark.parametrize("name", ["", ":v1", "bot:"])
    def test_half_a_name_is_a_usage_error(self, store: EpochStore, name: str) -> None:
        with pytest.raises(UsageError):
            store.resolve(name)


class TestManifests:
    def test_have_a_largest_size(self, store: EpochStore, root: Path) -> None:
        path = root / "manifests/bot/v1.json"
        path.parent.mkdir(parents=True)
        path.write_bytes(b" " * MANIFEST_LIMIT)
        assert store.resolve("bot:v1").size == MANIFEST_LIMIT
        path.write_bytes(b" " * (MANIFEST_LIMIT + 1))
        with pytest.raises(ContentError) as caught:
            store.resolve("bot:v1")
        assert caught.value.code == "SIZE"

    def test_are_not_parsed_when_they_are_read(self, store: EpochStore, root: Path) -> None:
        path = root / "manifests/bot/v1.json"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"\xff not json")
        assert store.resolve("bot:v1").raw == b"\xff not json"
        assert store.resolve("bot:v1").media_type == EPOCH_MANIFEST

    def test_name_base_images_that_must_be_there_too(self, store: EpochStore) -> None:
        base = {"digest": Digest.of(BLOB).hex, "size": len(BLOB), "filename": "base.qcow2"}
        made = Document(EPOCH_MANIFEST, json.dumps({"layers": [], "baseImages": [base]}).encode())
        with pytest.raises(NotFoundError):
            store.publish("bot:v1", made)
        store.put(descriptor(BLOB), Raw(BLOB))
        store.publish("bot:v1", made)

    def test_a_blob_of_another_size_is_missing(self, store: EpochStore, root: Path) -> None:
        plant(root, Digest.of(BLOB), BLOB[:-1])
        with pytest.raises(NotFoundError):
            store.publish("bot:v1", document(BLOB))


MODERN = b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[]}'


def lay(root: Path, key: str, raw: bytes) -> None:
    path = root / f"manifests/{key}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(raw)


def copy_of(raw: bytes) -> str:
    return f"_digests/sha256-{Digest.of(raw).hex}"


class TestGenerations:
    """Traps 39 and 40: Epoch 0.1.6 and later keeps artifacts under the same keys."""

    @pytest.mark.parametrize(
        ("raw", "media_type"),
        [
            (MODERN, "application/vnd.oci.image.manifest.v1+json"),
            (
                b'{"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}',
                "application/vnd.oci.image.index.v1+json",
            ),
            (b'{"schemaVersion":2,"manifests":[]}', "application/vnd.oci.image.index.v1+json"),
            (
                b'{"schemaVersion":2,"config":{"mediaType":"a/b"},"layers":[]}',
                "application/vnd.oci.image.manifest.v1+json",
            ),
            (b'{"schemaVersion":1,"name":"bot","tag":"v1","layers":[]}', EPOCH_MANIFEST),
            (b'{"name":"\\"config\\"","layers":null}', EPOCH_MANIFEST),
            (b"", EPOCH_MANIFEST),
            (b"{", EPOCH_MANIFEST),
        ],
    )
    def test_are_told_apart_by_the_body(self, store: EpochStore, root: Path, raw: bytes, media_type: str) -> None:
        lay(root, "bot/v1", raw)
        assert store.resolve("bot:v1") == Document(media_type, raw)

    def test_a_copy_is_read_by_its_digest_and_must_be_what_it_is_called(self, store: EpochStore, root: Path) -> None:
        lay(root, f"bot/{copy_of(MODERN)}", MODERN)
        assert store.resolve(f"bot@{Digest.of(MODERN)}").raw == MODERN
        lay(root, f"bot/{copy_of(MODERN)}", MODERN + b" ")
        with pytest.raises(ContentError) as caught:
            store.resolve(f"bot@{Digest.of(MODERN)}")
        assert caught.value.code == "DIGEST"
        with pytest.raises(NotFoundError):
            store.resolve(f"bot@{Digest.of(b'other')}")

    @pytest.mark.parametrize(
        ("words", "name", "tag"),
        [
            ("Edge_Case.1:v1", "Edge_Case.1", "v1"),
            ("team/direct:v7:v1", "team/direct:v7", "v1"),
            ("plain:name", "plain:name", "latest"),
            ("bot:v1:x", "bot", "v1:x"),
            ("nothing:of:this", "nothing", "of:this"),
        ],
    )
    def test_a_word_is_whatever_is_there(self, store: EpochStore, root: Path, words: str, name: str, tag: str) -> None:
        for key in ("Edge_Case.1/v1", "team/direct:v7/v1", "plain:name/latest", "bot/v1:x", "bot:v1/x"):
            lay(root, key, MODERN)
        found = store.find(words)
        assert (found.name, found.tag) == (name, tag)

    @pytest.mark.parametrize("keys", [["other/v1"], [f"other/{copy_of(MODERN)}"], ["a/b/c/latest", "x/y"]])
    def test_an_old_manifest_beside_new_ones_takes_force(self, store: EpochStore, root: Path, keys: list[str]) -> None:
        for key in keys:
            lay(root, key, MODERN)
        store.put(descriptor(BLOB), Raw(BLOB))
        made = document(BLOB)
        for attempt in (store.expect, store.publish):
            with pytest.raises(ConflictError) as caught:
                attempt("bot:v1", made)
            assert "0.1.6" in caught.value.message and "--force" in (caught.value.hint or "")
        assert not (root / "manifests/bot").exists() and not (root / "catalog.json").exists()
        store.publish("bot:v1", made, replace=True)
        assert open_store(root).resolve("bot:v1") == made
        open_store(root).publish("bot:v1", made)  # what is there already is no question any more

    def test_copies_of_old_manifests_are_no_new_ones(self, store: EpochStore, root: Path) -> None:
        """The builds between the generations kept both (epoch-formats 3.6)."""
        made = fill(store, "bot:v1", BLOB)
        lay(root, f"bot/{copy_of(made.raw)}", made.raw)
        assert open_store(root).expect("bot:v2", made) is False
        fill(open_store(root), "bot:v2", BLOB)


class TestCatalog:
    def test_gets_a_tag_and_keeps_the_rest(self, store: EpochStore, root: Path) -> None:
        root.mkdir()
        (root / "catalog.json").write_text(
            '{"future":[1.5,"é<"],"repositories":{"zoo":{"tags":{"b":"manifests/zoo/b.json"},"updatedAt":"'
            + LATER
            + '","x":1},"nil":{"tags":null,"updatedAt":"0001-01-01T00:00:00Z"}},"updatedAt":"'
            + LATER
            + '"}'
        )
        fill(store, "bot:v1", BLOB)
        value = json.loads((root / "catalog.json").read_bytes())
        assert value["repositories"]["bot"] == {"tags": {"v1": "manifests/bot/v1.json"}, "updatedAt": NOW}
        assert value["repositories"]["zoo"] == {"tags": {"b": "manifests/zoo/b.json"}, "updatedAt": LATER, "x": 1}
        assert value["repositories"]["nil"]["tags"] == {}
        assert value["future"] == [1.5, "é<"]
        assert value["updatedAt"] == NOW

    def test_gets_the_tag_it_lost_and_nothing_else_is_written(self, store: EpochStore, root: Path) -> None:
        """A foreign writer without our lock may drop an entry (epoch-formats 2.3); the next publish mends it."""
        made = fill(store, "bot:v1", BLOB)
        (root / "catalog.json").write_text('{"repositories":null,"updatedAt":"0001-01-01T00:00:00Z"}')
        before = tree(root / "manifests")
        store.publish("bot:v1", made)
        assert (root / "catalog.json").read_text() == catalog_text(("bot", {"v1": "manifests/bot/v1.json"}, NOW))
        assert tree(root / "manifests") == before

    def test_times_move_when_a_snapshot_is_replaced(self, store: EpochStore, root: Path) -> None:
        fill(store, "a:v1", BLOB)
        fill(store, "b:v1", BLOB)
        fill(open_store(root, LATER), "b:v1", BLOB, note="new", replace=True)
        value = json.loads((root / "catalog.json").read_bytes())
        assert [value["repositories"][name]["updatedAt"] for name in ("a", "b")] == [NOW, LATER]
        assert value["updatedAt"] == LATER

    def test_a_conflict_leaves_it(self, store: EpochStore, root: Path) -> None:
        fill(store, "bot:v1", BLOB)
        before = tree(root)
        with pytest.raises(ConflictError):
            open_store(root, LATER).publish("bot:v1", document(BLOB, note="new"))
        assert tree(root) == before

    @pytest.mark.parametrize(
        "raw",
        [
            b"",
            b"{",
            b"[]",
            b'{"repositories":[]}',
            b'{"repositories":{"a":{"tags":{"b":1}}}}',
            b'{"a":1,"a":1}',
            b"\xff",
        ],
    )
    def test_that_is_damaged_stops_a_publish_before_anything_is_written(
        self, store: EpochStore, root: Path, raw: bytes
    ) -> None:
        store.put(descriptor(BLOB), Raw(BLOB))
        (root / "catalog.json").write_bytes(raw)
        before = tree(root)
        for replace in (False, True):
            with pytest.raises(ContentError):
                store.publish("bot:v1", document(BLOB), replace=replace)
        assert tree(root) == before
        assert (root / "catalog.json").read_bytes() == raw
        with pytest.raises(ContentError):
            store.catalog()

    def test_that_is_damaged_is_no_matter_to_readers(self, store: EpochStore, root: Path) -> None:
        made = fill(store, "bot:v1", BLOB)
        (root / "catalog.json").write_bytes(b"{")
        assert store.resolve("bot:v1").raw == made.raw
        assert len(list(store.snapshots())) == 1

    def test_can_be_read(self, store: EpochStore, root: Path) -> None:
        root.mkdir()
        assert store.catalog() is None
        fill(store, "bot:v1", BLOB)
        catalog = store.catalog()
        assert catalog is not None
        assert catalog.lists(SnapshotKey("bot", "v1"))


class TestAudit:
    def found(self, store: EpochStore) -> list[tuple[str, str, str]]:
        return [(item.path, item.code, item.severity) for item in store.audit()]

    def test_finds_nothing_in_a_good_store(self, store: EpochStore) -> None:
        fill(store, "bot:v1", BLOB)
        fill(store, "a/b:v2", BLOB)
        assert self.found(store) == []

    def test_tells_what_is_wrong_from_what_is_odd(self, store: EpochStore, root: Path) -> None:
        made = fill(store, "bot:v1", BLOB)
        for key in ("bot/unlisted", f"bot/_digests/sha256-{'a' * 64}", "moved/v1"):
            path = root / "manifests" / f"{key}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(made.raw)
        (root / "manifests/stray").touch()
        tags = {"v1": "manifests/bot/v1.json", "ghost": "manifests/bot/ghost.json"}
        moved = {"v1": "../../etc/passwd"}
        hostile = {"..": "manifests/x/...json"}
        repositories = {"bot": {"tags": tags}, "moved": {"tags": moved}, "x": {"tags": hostile}}
        (root / "catalog.json").write_text(json.dumps({"repositories": repositories}))
        assert self.found(store) == [
            ("manifests/stray", "NAME", "warning"),
            ("manifests/", "NAME", "warning"),
            ("catalog.json", "MISMATCH", "error"),
            ("catalog.json", "MISMATCH", "error"),
            ("catalog.json", "NAME", "error"),
            ("catalog.json", "MISMATCH", "warning"),
        ]
        text = " ".join(item.problem for item in store.audit())
        assert all(word in text for word in ("ghost", "moved", "etc/passwd", "..", "unlisted"))

    def test_finds_a_damaged_catalog(self, store: EpochStore, root: Path) -> None:
        root.mkdir()
        (root / "catalog.json").write_bytes(b'{"repositories":{"a":1,"b":2}}')
        assert [path for path, _, severity in self.found(store) if severity == "error"] == ["catalog.json"] * 2


class TestInTheWay:
    @pytest.mark.parametrize("kind", OBSTACLES)
    def test_of_a_blob(self, store: EpochStore, root: Path, kind: str) -> None:
        made = fill(store, "bot:v1", BLOB)
        put_in_the_way(kind, root / "blobs/sha256" / Digest.of(BLOB).hex)
        target = descriptor(BLOB)
        calls = [
            lambda: store.has(target),
            lambda: store.content(target).open().__enter__(),
            lambda: store.put(target, Raw(BLOB)),
            lambda: store.publish("bot:v2", made),
        ]
        for call in calls:
            with at_once(), pytest.raises(ContentError) as caught:
                call()
            assert Digest.of(BLOB).hex in str(caught.value)

    @pytest.mark.parametrize("kind", OBSTACLES)
    @pytest.mark.parametrize("key", ["manifests/bot/v1.json", "catalog.json"])
    def test_of_a_manifest_or_the_catalog(self, store: EpochStore, root: Path, kind: str, key: str) -> None:
        made = fill(store, "bot:v1", BLOB)
        put_in_the_way(kind, root / key)
        before = tree(root)
        for replace in (False, True):
            if key == "manifests/bot/v1.json" and "directory" in kind:
                # A directory is no object; it is looked at only by who wants the object.
                assert list(store.snapshots()) == []
            with at_once(), pytest.raises(ContentError):
                store.publish("bot:v1", made, replace=replace)
        assert tree(root) == before


class TestFaults:
    """One system call after the other fails, once: an error in words, no lie, and the next run mends it."""

    @pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
    @pytest.mark.parametrize("function", [*CALLS, "rename"])
    def test_while_publishing(self, tmp_path: Path, function: str, number: int) -> None:
        for n in range(1, 200):
            root = tmp_path / str(n)
            with FailingCall(function, n, number).armed() as failure:
                try:
                    fill(open_store(root), "bot:v1", BLOB, b"")
                except LocalIOError:
                    assert failure.fired
            check_closed(root)
            made = fill(open_store(root), "bot:v1", BLOB, b"")
            assert open_store(root).resolve("bot:v1").raw == made.raw
            assert list(open_store(root).audit()) == []
            assert not drafts(root)
            if not failure.fired:
                return
        pytest.fail("the calls never came to an end")

    def test_on_disks_of_every_size(self, tmp_path: Path) -> None:
        """The disk is full at one point or another: what is visible is whole, and the old snapshot stays."""
        blobs = [noise(60_000, seed=seed) for seed in range(4)]
        outcomes = set()
        for pages in range(4, 90, 5):
            with tmpfs(tmp_path / "disk", f"size={pages * 4096}") as disk:
                try:
                    fill(open_store(disk), "old:v1", b"small")
                    for blob in blobs:
                        fill(open_store(disk), f"bot:{blob[:2].hex()}", blob)
                    outcomes.add("done")
                except LocalIOError as error:
                    assert "the disk" in str(error)
                    outcomes.add("full")
                check_closed(disk)
                assert not drafts(disk)
        assert outcomes == {"done", "full"}


def check_closed(root: Path) -> list[str]:
    """Every visible blob is whole, every manifest has its blobs, the catalog lists what is there; the snapshots."""
    for path in root.glob("blobs/sha256/[0-9a-f]*"):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
    names = []
    for path in root.glob("manifests/**/*.json"):
        for layer in json.loads(path.read_bytes())["layers"] or []:
            assert (root / "blobs/sha256" / layer["digest"]).stat().st_size == layer["size"]
        names.append(str(path.relative_to(root)))
    if (root / "catalog.json").exists():
        repositories = json.loads((root / "catalog.json").read_bytes())["repositories"]
        listed = [value for repository in repositories.values() for value in repository["tags"].values()]
        assert set(listed) <= set(names)
    return names


def write_for_ever() -> None:
    """Fill the store that `sys.argv` names, in a process that somebody will kill."""
    store = open_store(Path(sys.argv[1]))
    print("ready", flush=True)
    for number in itertools.count():
        fill(store, f"bot:{os.getpid()}-{number}", os.urandom(100_000), os.urandom(100_000))
        print("stored", flush=True)


def test_killed_at_any_instant(root: Path) -> None:
    chance = random.Random(13)
    caught = turns = 0
    while turns < 20 or (not caught and turns < 200):
        turns += 1
        child = start_function("test_epoch_store:write_for_ever", root)
        assert child.stdout.readline() == b"ready\n"
        if turns % 4 == 0:
            assert child.stdout.readline() == b"stored\n"
        # A draft of an earlier child stays until somebody writes into its folder again.
        before = set(drafts(root))
        time.sleep(chance.uniform(0.001, 0.04))
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        left = set(drafts(root)) - before
        assert len(left) <= 1
        caught += len(left)
        check_closed(root)
    store = open_store(root)
    assert len(list(store.snapshots())) >= 5
    assert caught, "no kill ever fell into a write"
    fill(store, "bot:last", BLOB)
    assert not drafts(root)
    assert not [item for item in store.audit() if item.severity == "error"]


def test_memory_stays_flat(root: Path) -> None:
    """256 MiB go in and come out of a process that grows by a few blocks."""
    code = """
        import hashlib, os, resource, sys
        from contextlib import contextmanager
        from pathlib import Path
        from epoch_oci.oci.descriptor import Descriptor
        from epoch_oci.oci.digest import Digest
        from epoch_oci.oci.verifying import VerifyingReader
        from epoch_oci.stores.backends.directory import DirectoryBackend
        from epoch_oci.stores.epoch_store import EpochStore

        SIZE, BLOCK = 256 << 20, os.urandom(64 << 10)

        class Endless:
            size = SIZE
            @contextmanager
            def open(self, start=0, length=None):
                self.left = SIZE
                yield self
            def read(self, size=-1):
                block = BLOCK[:min(size, self.left, len(BLOCK))]
                self.left -= len(block)
                return block

        hasher = hashlib.sha256()
        for _ in range(SIZE // len(BLOCK)):
            hasher.update(BLOCK)
        target = Descriptor(media_type="a/b", digest=Digest("sha256", hasher.hexdigest()), size=SIZE)
        store = EpochStore(DirectoryBackend(Path(sys.argv[1])), "s")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        store.put(target, Endless())
        with store.content(target).open() as reader:
            for _ in VerifyingReader(reader, target).blocks():
                pass
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(root)], capture_output=True, text=True, check=True, timeout=60
    )
    (root / "blobs").rename(root.parent / "done")
    assert int(done.stdout) < 16 << 10, "KiB"


def test_a_limit_on_file_size_is_an_error_in_words(root: Path) -> None:
    code = """
        import resource, sys
        from pathlib import Path
        sys.path.insert(0, sys.argv[2])
        from test_epoch_store import BLOB, Raw, descriptor, open_store
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        open_store(Path(sys.argv[1])).put(descriptor(BLOB), Raw(BLOB))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(root), str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert "LocalIOError" in done.stderr
    assert "larger than the file system or the limits of this process allow" in done.stderr
    assert tree(root) == {}


class TestClock:
    @pytest.mark.parametrize(
        ("nanoseconds", "text"),
        [
            (0, "1970-01-01T00:00:00Z"),
            (1_775_369_228_123_456_789, "2026-04-05T06:07:08.123456789Z"),
            (1_775_369_228_120_000_000, "2026-04-05T06:07:08.12Z"),
            (1_775_369_228_000_000_001, "2026-04-05T06:07:08.000000001Z"),
            (1_775_369_220_000_000_000, "2026-04-05T06:07:00Z"),
        ],
    )
    def test_writes_as_go_does(self, monkeypatch: pytest.MonkeyPatch, nanoseconds: int, text: str) -> None:
        monkeypatch.setattr(time, "time_ns", lambda: nanoseconds)
        assert go_now() == text
        assert is_time(text)

    def test_is_the_time_of_day(self, store: EpochStore, root: Path) -> None:
        fill(EpochStore(DirectoryBackend(root), "s"), "bot:v1", BLOB)
        catalog = store.catalog()
        assert catalog is not None
        assert is_time(catalog.updated_at)
        assert catalog.updated_at[:13] in {time.strftime("%Y-%m-%dT%H", time.gmtime(time.time() - s)) for s in (0, 60)}


def test_every_error_names_its_object(store: EpochStore, root: Path) -> None:
    made = fill(store, "bot:v1", BLOB)
    for call in every_error(store, made):
        with pytest.raises(EpochOciError) as caught:
            call()
        assert caught.value.object
        assert caught.value.message


def every_error(store: EpochStore, made: Document) -> Iterator:
    yield lambda: store.resolve("bot:v2")
    yield lambda: store.resolve("../x")
    yield lambda: store.publish("bot:v1", document(BLOB, note="other"))
    yield lambda: store.publish("bot:v2", document(b"absent"))
    yield lambda: store.put(descriptor(b"absent"), Raw(b"Absent"))
    yield lambda: store.content(descriptor(b"absent")).open().__enter__()


def test_reading_vouches_for_nothing_and_verifying_does(store: EpochStore, root: Path) -> None:
    fill(store, "bot:v1", BLOB)
    path = root / "blobs/sha256" / Digest.of(BLOB).hex
    path.write_bytes(b"?" + BLOB[1:])
    assert store.has(descriptor(BLOB))
    with pytest.raises(ContentError), store.content(descriptor(BLOB)).open() as reader:
        list(VerifyingReader(reader, descriptor(BLOB)).blocks())


def test_few_descriptors_are_enough(root: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    store = open_store(root)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 6, hard))
    try:
        fill(store, "a/b/c/d/e/f/g/h/i/j:v1", BLOB)
        assert len(list(store.snapshots())) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_blobs_of_others_are_made_safe_before_a_manifest_names_them(
    store: EpochStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may have died between giving a blob its name and syncing the directory."""
    made = fill(store, "bot:v1", BLOB)
    blobs, events = (root / "blobs/sha256").stat().st_ino, []
    real_fsync, real_rename = os.fsync, os.rename

    def fsync(descriptor: int) -> None:
        events.append(os.fstat(descriptor).st_ino)
        real_fsync(descriptor)

    def rename(old: str, new: str, **directories: int) -> None:
        events.append(new)
        real_rename(old, new, **directories)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    open_store(root).publish("bot:v2", made)
    assert blobs in events[: events.index("v2.json")]
