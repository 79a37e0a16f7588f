"""The key space in a directory: what it refuses, what it leaves behind, and in what order it makes things durable."""

import errno
import fcntl
import hashlib
import io
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cli_runner import start_function
from contract.cases import descriptor
from disks import (
    OBSTACLES,
    FailingCall,
    drafts,
    free_bytes,
    open_under,
    put_in_the_way,
    tmpfs,
)
from support.content import noise
from support.waiting import at_once

from epoch_oci.disk import draft as draft_module
from epoch_oci.disk.draft import Draft
from epoch_oci.disk.facts import Marks
from epoch_oci.disk.holes import write_sparse
from epoch_oci.errors import ContentError, LocalIOError, NotFoundError
from epoch_oci.stores.backends.base import read_if_there, read_object
from epoch_oci.stores.backends.directory import DirectoryBackend

BAD_KEYS = ["", "/", "/etc/passwd", "..", "../x", "a/../b", "a/./b", "a//b", "a/", "./a", "a\x00b", "a/\ud800"]
OUR_NAMES = [".epoch-oci.lock", ".epoch-oci-0123456789abcdef.tmp", ".epoch-oci-x.part"]


@pytest.fixture
def backend(tmp_path: Path) -> DirectoryBackend:
    return DirectoryBackend(tmp_path / "space")


def write(backend: DirectoryBackend, key: str, raw: bytes) -> None:
    backend.write(key, lambda: io.BytesIO(raw), len(raw))


def read(backend: DirectoryBackend, key: str) -> bytes:
    return read_object(backend, key, limit=1 << 20, what=key)


class TestKeys:
    @pytest.mark.parametrize("key", [*BAD_KEYS, *OUR_NAMES, f"a/{OUR_NAMES[0]}", f"{OUR_NAMES[1]}/a"])
    def test_that_lead_astray_never_reach_the_disk(self, backend: DirectoryBackend, key: str, tmp_path: Path) -> None:
        calls = [
            lambda: backend.head(key),
            lambda: backend.open(key).__enter__(),
            lambda: write(backend, key, b"x"),
            lambda: backend.delete(key),
            lambda: backend.update(key, lambda old: b"x", limit=10),
        ]
        for call in calls:
            with pytest.raises(ContentError) as caught:
                call()
            assert caught.value.code == "NAME"
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]

    @pytest.mark.parametrize("key", ["a", "a b/c:d", "sha256:x", "Ä/ö.json", "...", ".hidden", "-rf", "%2e%2e/x"])
    def test_that_are_only_odd_work(self, backend: DirectoryBackend, key: str) -> None:
        write(backend, key, b"x")
        assert backend.head(key) == 1
        assert list(backend.keys("")) == [key]

    def test_are_listed_below_a_prefix(self, backend: DirectoryBackend, tmp_path: Path) -> None:
        for key in ("m/a/1", "m/a/b/2", "m/ab/3", "ma", "n/4"):
            write(backend, key, b"x")
        (tmp_path / "space/m/a/.epoch-oci-0123456789abcdef.tmp").touch()
        (tmp_path / "space/m/a").joinpath(os.fsdecode(b"\xff")).touch()
        (tmp_path / "space/m/link").symlink_to(tmp_path / "space/n")
        assert sorted(backend.keys("m/")) == ["m/a/1", "m/a/b/2", "m/ab/3", "m/link"]
        assert sorted(backend.keys("m/a")) == ["m/a/1", "m/a/b/2", "m/ab/3"]
        assert sorted(backend.keys("m/a/b/2")) == ["m/a/b/2"]
        assert list(backend.keys("nothing/")) == []

    def test_of_great_depth_are_listed_with_few_descriptors(self, backend: DirectoryBackend) -> None:
        key = "/".join(["d"] * 200)
        write(backend, key, b"x")
        assert list(backend.keys("")) == [key]


class TestAbsence:
    def test_of_the_place_and_of_an_object_differ(self, backend: DirectoryBackend) -> None:
        with pytest.raises(NotFoundError):
            backend.check()
        assert backend.head("a/b") is None
        assert list(backend.keys("")) == []
        backend.delete("a/b")
        backend.flush("a/")
        write(backend, "x", b"")
        backend.check()
        assert backend.head("a/b") is None
        assert read_if_there(backend, "a/b", limit=1, what="a/b") is None

    def test_reading_does_not_make_the_place(self, backend: DirectoryBackend, tmp_path: Path) -> None:
        backend.head("a/b")
        with pytest.raises(NotFoundError), backend.open("a/b"):
            pass
        assert list(tmp_path.iterdir()) == []

    def test_a_relative_path_means_where_it_was_made(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        backend = DirectoryBackend(Path("here"))
        monkeypatch.chdir("/")
        write(backend, "a", b"x")
        assert (tmp_path / "here/a").read_bytes() == b"x"


class TestInTheWay:
    @pytest.mark.parametrize("kind", OBSTACLES)
    def test_of_an_object_it_is_refused_and_stays(self, backend: DirectoryBackend, kind: str, tmp_path: Path) -> None:
        write(backend, "a/b", b"x")
        before = put_in_the_way(kind, tmp_path / "space/a/b")
        calls = [
            lambda: backend.head("a/b"),
            lambda: read(backend, "a/b"),
            lambda: write(backend, "a/b", b"new"),
            lambda: backend.delete("a/b"),
            lambda: backend.update("a/b", lambda old: b"new", limit=10),
        ]
        for call in calls:
            with at_once(), pytest.raises(ContentError) as caught:
                call()
            assert caught.value.code == "TYPE"
            assert str(tmp_path / "space/a/b") in str(caught.value)
        after = (tmp_path / "space/a/b").lstat()
        assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
        assert not drafts(tmp_path)

    @pytest.mark.parametrize("kind", [kind for kind in OBSTACLES if "directory" not in kind])
    def test_of_a_directory_it_is_refused(self, backend: DirectoryBackend, kind: str, tmp_path: Path) -> None:
        write(backend, "a/b", b"x")
        (tmp_path / "space/a").rename(tmp_path / "moved")
        put_in_the_way(kind, tmp_path / "space/a")
        for call in (
            lambda: backend.head("a/b"),
            lambda: write(backend, "a/b", b"y"),
            lambda: list(backend.keys("a/")),
        ):
            with at_once(), pytest.raises(ContentError):
                call()
        assert (tmp_path / "moved/b").read_bytes() == b"x"

    def test_a_link_to_a_directory_is_not_followed(self, backend: DirectoryBackend, tmp_path: Path) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "secret").write_bytes(b"secret")
        backend.path.mkdir()
        (backend.path / "a").symlink_to(outside)
        for call in (lambda: read(backend, "a/secret"), lambda: write(backend, "a/new", b"x")):
            with pytest.raises(ContentError):
                call()
        assert [path.name for path in outside.iterdir()] == ["secret"]

    def test_the_root_itself_may_be_a_link(self, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "real")
        write(DirectoryBackend(tmp_path / "link"), "a/b", b"x")
        assert (tmp_path / "real/a/b").read_bytes() == b"x"

    def test_a_file_for_a_root_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        for call in (DirectoryBackend(tmp_path / "file").check, lambda: DirectoryBackend(tmp_path / "file").head("a")):
            with pytest.raises(ContentError) as caught:
                call()
            assert "a regular file" in str(caught.value)

    def test_a_fifo_that_appears_after_the_look_does_not_block(
        self, backend: DirectoryBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(backend, "b", b"x")
        real = os.open

        def swapping(path: object, *arguments: object, **keywords: object) -> int:
            if path == "b":
                put_in_the_way("fifo", tmp_path / "space/b")
            return real(path, *arguments, **keywords)

        monkeypatch.setattr(os, "open", swapping)
        with at_once(), pytest.raises(ContentError):
            read(backend, "b")


class TestModes:
    def test_nothing_is_open_to_others_whatever_the_umask(self, tmp_path: Path) -> None:
        backend = DirectoryBackend(tmp_path / "new/space")
        seen: dict[str, int] = {}

        class Spy(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                seen.update({path.name: path.lstat().st_mode for path in tmp_path.rglob("*")})
                return super().read(size)

        before = os.umask(0)
        try:
            backend.write("a/b", lambda: Spy(b"x"), 1)
        finally:
            os.umask(before)
        seen.update({path.name: path.lstat().st_mode for path in tmp_path.rglob("*")})
        assert len([name for name in seen if name.endswith(".tmp")]) == 1
        for name, mode in seen.items():
            assert stat.S_IMODE(mode) == (0o700 if stat.S_ISDIR(mode) else 0o600), name

    def test_the_owner_can_read_whatever_the_umask(self, tmp_path: Path) -> None:
        backend = DirectoryBackend(tmp_path)
        before = os.umask(0o277)
        try:
            write(backend, "b", b"x")
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o600


class TestDrafts:
    def test_nothing_shows_before_the_end(self, backend: DirectoryBackend, tmp_path: Path) -> None:
        write(backend, "a/b", b"old")

        class Spy(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                assert (tmp_path / "space/a/b").read_bytes() == b"old"
                assert list(backend.keys("")) == ["a/b"]
                return super().read(size)

        backend.write("a/b", lambda: Spy(b"new"), 3)
        assert read(backend, "a/b") == b"new"
        assert not drafts(tmp_path)

    def test_of_the_dead_are_removed_and_nothing_else(self, backend: DirectoryBackend, tmp_path: Path) -> None:
        write(backend, "a/first", b"x")
        folder = tmp_path / "space/a"
        stale = [folder / f".epoch-oci-{number:016x}.tmp" for number in range(3)]
        kept = [folder / ".epoch-oci-0.tmp", folder / ".hidden.tmp", folder / "x.epoch-oci-0000000000000000.tmp"]
        for path in [*stale, *kept]:
            path.write_bytes(b"half")
        fifo = folder / ".epoch-oci-ffffffffffffffff.tmp"
        os.mkfifo(fifo)
        with at_once():
            write(DirectoryBackend(tmp_path / "space"), "a/second", b"x")
        assert not any(path.exists() for path in stale)
        assert all(path.exists() for path in [*kept, fifo])

    def test_of_the_living_are_left_alone(self, backend: DirectoryBackend, tmp_path: Path) -> None:
        class Spy(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                write(DirectoryBackend(tmp_path / "space"), "a/other", b"y")
                return super().read(size)

        backend.write("a/b", lambda: Spy(b"new"), 3)
        assert read(backend, "a/b") == b"new"

    def test_what_another_process_deletes_first_is_deleted(
        self, backend: DirectoryBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(backend, "a/b", b"x")
        unlink = os.unlink

        def after_another(name: str, *, dir_fd: int | None = None) -> None:
            unlink(name, dir_fd=dir_fd)
            unlink(name, dir_fd=dir_fd)

        monkeypatch.setattr(os, "unlink", after_another)
        backend.delete("a/b")
        monkeypatch.undo()
        assert not (tmp_path / "space/a/b").exists()

    def test_a_sweep_that_is_quicker_than_the_owner_is_noticed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Between making a draft and locking it another process may take it for a stale one."""
        real, swept = fcntl.flock, []

        def flock(descriptor: int, operation: int) -> None:
            if not swept:
                swept.append(descriptor)
                draft_module.sweep(directory)
            real(descriptor, operation)

        directory = os.open(tmp_path, os.O_RDONLY)
        monkeypatch.setattr(fcntl, "flock", flock)
        with Draft(directory, "x") as draft:
            draft.write(b"content")
            assert draft.commit("x")
        os.close(directory)
        assert swept
        assert (tmp_path / "x").read_bytes() == b"content"

    def test_without_locks_files_are_written_all_the_same(
        self, backend: DirectoryBackend, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        def flock(descriptor: int, operation: int) -> None:
            raise OSError(errno.ENOLCK, "no locks")

        monkeypatch.setattr(fcntl, "flock", flock)
        write(backend, "a", b"x")
        stale = tmp_path / "space/.epoch-oci-0123456789abcdef.tmp"
        stale.touch()
        write(DirectoryBackend(tmp_path / "space"), "b", b"x")
        assert stale.exists()

    def test_a_name_that_is_taken_is_not_replaced_unless_asked(self, tmp_path: Path) -> None:
        self.check_taken(tmp_path)

    def test_nor_where_there_are_no_hard_links(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def link(*_: object, **__: object) -> None:
            raise OSError(errno.EPERM, "no links")

        monkeypatch.setattr(os, "link", link)
        self.check_taken(tmp_path)

    @staticmethod
    def check_taken(tmp_path: Path) -> None:
        (tmp_path / "taken").write_bytes(b"old")
        (tmp_path / "dangling").symlink_to("nowhere")
        directory = os.open(tmp_path, os.O_RDONLY)
        for name, committed in (("taken", False), ("dangling", False), ("free", True)):
            with Draft(directory, name) as draft:
                draft.write(b"new")
                assert draft.commit(name, replace=False) is committed
        with Draft(directory, "taken") as draft:
            draft.write(b"new")
            assert draft.commit("taken")
        os.close(directory)
        found = {path.name: path.read_bytes() for path in tmp_path.iterdir() if not path.is_symlink()}
        assert found == {"taken": b"new", "free": b"new"}


class TestSparse:
    @pytest.mark.parametrize("offset", [0, 1, 4095, 4096, 5000])
    def test_every_byte_is_right_and_zeros_take_no_room(self, tmp_path: Path, offset: int) -> None:
        data = noise(4096, seed=3)
        pieces = [data, bytes(4096 * 9), data[:100], bytes(8192), data, bytes(5000), data, bytes(1 << 16)]
        raw = b"".join(pieces)
        descriptor = os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT)
        for start in range(0, len(raw), 30_000):
            write_sparse(descriptor, raw[start : start + 30_000], offset + start)
        os.ftruncate(descriptor, offset + len(raw))
        os.close(descriptor)
        assert (tmp_path / "f").read_bytes() == bytes(offset) + raw
        assert (tmp_path / "f").stat().st_blocks * 512 <= len(raw) - (1 << 16)

    @pytest.mark.parametrize(
        ("offset", "runs", "written"),
        [
            (0, [("x", 4096), ("0", 4096), ("x", 4096), ("0", 8192)], [(0, 4096), (8192, 4096)]),
            (0, [("0", 8192)], []),
            (4096, [("x", 4096), ("0", 4096)], [(4096, 4096)]),
            (1, [("x", 4095), ("0", 4096), ("x", 4097)], [(1, 4095), (8192, 4097)]),
            (1, [("x", 4096), ("0", 8191), ("x", 10)], [(1, 8191), (12288, 10)]),
            (0, [("x", 10), ("0", 4096), ("x", 10)], [(0, 4116)]),
        ],
    )
    def test_pages_of_the_file_count_and_not_of_the_block(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        offset: int,
        runs: list[tuple[str, int]],
        written: list[tuple[int, int]],
    ) -> None:
        calls: list[tuple[int, int]] = []
        real = os.pwrite

        def pwrite(descriptor: int, view: memoryview, at: int) -> int:
            calls.append((at, len(view)))
            return real(descriptor, view, at)

        monkeypatch.setattr(os, "pwrite", pwrite)
        raw = b"".join((b"x" if kind == "x" else b"\0") * length for kind, length in runs)
        descriptor = os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT)
        write_sparse(descriptor, raw, offset)
        os.ftruncate(descriptor, offset + len(raw))
        os.close(descriptor)
        assert (tmp_path / "f").read_bytes() == bytes(offset) + raw
        assert calls == written

    def test_short_writes_are_gone_on_with(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        real = os.pwrite
        monkeypatch.setattr(os, "pwrite", lambda descriptor, view, at: real(descriptor, view[:1000], at))
        raw = noise(10_000, seed=14)
        write(DirectoryBackend(tmp_path), "a", raw)
        assert (tmp_path / "a").read_bytes() == raw

    def test_the_disk_is_set_to_work_as_bytes_come(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        advice: list[tuple[int, int]] = []
        monkeypatch.setattr(os, "posix_fadvise", lambda _, start, length, __: advice.append((start, length)))
        directory = os.open(tmp_path, os.O_RDONLY)
        with Draft(directory, "x") as draft:
            for _ in range(70):
                draft.write(bytes(1 << 20))
        os.close(directory)
        assert advice == [(start << 20, 16 << 20) for start in (0, 16, 32, 48)]

    def test_objects_are_sparse(self, backend: DirectoryBackend) -> None:
        raw = bytes(8 << 20) + b"end"
        write(backend, "a", raw)
        assert (backend.path / "a").stat().st_blocks * 512 <= 1 << 16
        with backend.open("a") as reader:
            assert b"".join(iter(lambda: reader.read(1 << 20), b"")) == raw


class TestUpdate:
    def test_reads_changes_and_writes(self, backend: DirectoryBackend) -> None:
        assert backend.update("a/b", lambda old: b"1" if old is None else b"?", limit=10)
        assert backend.update("a/b", lambda old: old + b"2", limit=10)
        assert read(backend, "a/b") == b"12"

    def test_writes_nothing_when_nothing_changes(self, backend: DirectoryBackend) -> None:
        write(backend, "a", b"1")
        before = (backend.path / "a").stat()
        assert not backend.update("a", lambda old: None, limit=10)
        assert not backend.update("a", lambda old: old, limit=10)
        assert (backend.path / "a").stat() == before
        assert not backend.update("b", lambda old: None, limit=10)
        assert backend.head("b") is None

    def test_refuses_what_is_too_large_and_leaves_it(self, backend: DirectoryBackend) -> None:
        write(backend, "a", b"1" * 11)
        with pytest.raises(ContentError) as caught:
            backend.update("a", lambda old: b"x", limit=10)
        assert caught.value.code == "SIZE"
        assert read(backend, "a") == b"1" * 11
        assert not backend.update("a", lambda old: None, limit=11)

    def test_passes_on_what_the_change_raises(self, backend: DirectoryBackend) -> None:
        write(backend, "a", b"1")
        with pytest.raises(ZeroDivisionError):
            backend.update("a", lambda old: 1 // 0, limit=10)
        backend.update("a", lambda old: b"2", limit=10)
        assert read(backend, "a") == b"2"

    def test_loses_nothing_among_threads(self, backend: DirectoryBackend) -> None:
        self.count_up(backend)
        assert not drafts(backend.path)

    def test_nor_where_only_files_can_be_locked(
        self, backend: DirectoryBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As on NFS, where an exclusive lock needs a descriptor that is open for writing."""
        real = fcntl.flock

        def flock(descriptor: int, operation: int) -> None:
            if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
                raise OSError(errno.EBADF, "not open for writing")
            real(descriptor, operation)

        monkeypatch.setattr(fcntl, "flock", flock)
        self.count_up(backend)
        assert [path.name for path in drafts(backend.path)] == [".epoch-oci.lock"]
        assert sorted(backend.keys("")) == ["n"]

    @staticmethod
    def count_up(backend: DirectoryBackend) -> None:
        def add(_: int) -> None:
            def change(old: bytes | None) -> bytes:
                time.sleep(0.001)
                return str(int(old or b"0") + 1).encode()

            DirectoryBackend(backend.path).update("n", change, limit=10)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(add, range(40)))
        assert read(backend, "n") == b"40"


class Meddling(Marks):
    """Between the look at a file and its reading somebody does something."""

    def __init__(self, *deeds) -> None:
        super().__init__()
        self.deeds = list(deeds)

    def digest(self, found, form):
        if self.deeds:
            self.deeds.pop(0)()


class TestHolding:
    """Whether an object is a blob, while others are at it."""

    RAW = noise(200_000, seed=5)

    def held(self, tmp_path: Path, *deeds) -> bool:
        path = tmp_path / "space"
        write(DirectoryBackend(path), "blob", self.RAW)
        return DirectoryBackend(path, marks=Meddling(*deeds)).holds("blob", descriptor(self.RAW))

    def test_another_process_that_puts_it_as_well_does_not_take_it_away(self, tmp_path: Path) -> None:
        def put() -> None:
            write(DirectoryBackend(tmp_path / "space"), "blob", self.RAW)

        assert self.held(tmp_path, put, put)

    def test_one_that_is_replaced_by_something_else_is_not_there(self, tmp_path: Path) -> None:
        def put() -> None:
            write(DirectoryBackend(tmp_path / "space"), "blob", self.RAW[:-1] + b"x")

        assert not self.held(tmp_path, put)

    def test_one_that_is_written_to_all_the_time_is_not_there(self, tmp_path: Path) -> None:
        def touch() -> None:
            os.utime(tmp_path / "space/blob")

        assert not self.held(tmp_path, *[touch] * 50)

    def test_one_that_is_taken_away_is_not_there(self, tmp_path: Path) -> None:
        assert not self.held(tmp_path, (tmp_path / "space/blob").unlink)


class TestDurability:
    def test_bytes_then_name_then_directories(self, backend: DirectoryBackend, monkeypatch: pytest.MonkeyPatch) -> None:
        """A file is synced after its last byte and before it gets its name, its directories after."""
        events: list[tuple[str, int]] = []

        def recording(name: str, key: int) -> None:
            real = getattr(os, name)

            def call(*arguments: object, **keywords: object) -> object:
                inode = os.fstat(arguments[0]).st_ino if key == 0 else 0
                result = real(*arguments, **keywords)
                events.append((name, inode or os.stat(backend.path / "a/b/c").st_ino))
                return result

            monkeypatch.setattr(os, name, call)

        for name in ("fsync", "pwrite", "ftruncate", "fchmod"):
            recording(name, 0)
        recording("rename", 1)
        write(backend, "a/b/c", b"x")
        path = backend.path
        file = (path / "a/b/c").stat().st_ino
        assert [name for name, inode in events if inode == file] == ["pwrite", "ftruncate", "fchmod", "fsync", "rename"]
        named = events.index(("rename", file))
        assert ("fsync", (path / "a/b").stat().st_ino) in events[named:]
        synced = {inode for name, inode in events if name == "fsync"}
        above = [path / "a", path, path.parent]
        assert {folder.stat().st_ino for folder in above} <= synced

    def test_of_directories_that_somebody_else_made(
        self, backend: DirectoryBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Who made them may have died before they were safe; who makes them again must look after them again."""
        (backend.path / "a/b").mkdir(parents=True)
        above = [backend.path / name for name in (".", "a", "a/b")]
        synced: set[int] = set()
        real = os.fsync

        def fsync(descriptor: int) -> None:
            synced.add(os.fstat(descriptor).st_ino)
            real(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)
        write(backend, "a/b/c", b"x")
        assert {folder.stat().st_ino for folder in above} <= synced
        shutil.rmtree(backend.path / "a")
        synced.clear()
        write(backend, "a/b/c", b"x")
        assert {folder.stat().st_ino for folder in above} <= synced

    def test_flush_syncs_every_directory_on_the_way(
        self, backend: DirectoryBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(backend, "a/b/c", b"x")
        synced: set[int] = set()
        monkeypatch.setattr(os, "fsync", lambda descriptor: synced.add(os.fstat(descriptor).st_ino))
        backend.flush("a/b/")
        assert synced == {(backend.path / name).stat().st_ino for name in (".", "a", "a/b")}

    def test_a_file_system_that_cannot_sync_directories_will_do(
        self, backend: DirectoryBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = os.fsync

        def fsync(descriptor: int) -> None:
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, "no such call")
            real(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)
        write(backend, "a/b", b"x")
        assert read(backend, "a/b") == b"x"


REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EACCES: "permission denied",
    errno.EROFS: "the file system is read-only",
    errno.EIO: "the disk reported an error",
    errno.EMFILE: "too many files are open",
    errno.ESTALE: os.strerror(errno.ESTALE).lower(),
}

CALLS = ("open", "stat", "mkdir", "fstat", "fstatvfs", "pwrite", "ftruncate", "fchmod", "fsync", "rename")
WRITING = [
    (function, number)
    for function in CALLS
    for number in REASONS
    if (function, number) != ("fchmod", errno.EACCES)  # so a file system may say that it has no modes
]


class TestErrors:
    @pytest.mark.parametrize(("function", "number"), WRITING)
    def test_of_every_call_while_writing(
        self, backend: DirectoryBackend, tmp_path: Path, function: str, number: int
    ) -> None:
        """Whichever call fails: an error in words with the object's name, nothing half-done, and then it works."""
        raw = noise(100_000, seed=4)
        for n in range(1, 40):
            with FailingCall(function, n, number).armed() as failure:
                try:
                    write(backend, f"a/b{n}", raw)
                except LocalIOError as error:
                    assert REASONS[number] in str(error)
                    assert error.object and str(tmp_path) in error.object
                    assert error.__cause__.errno == number
                else:
                    assert not failure.fired
            assert not drafts(tmp_path)
            if (tmp_path / f"space/a/b{n}").exists():
                assert read(backend, f"a/b{n}") == raw
            if not failure.fired:
                break
        else:
            pytest.fail("the calls never came to an end")
        assert n > 1
        write(backend, "a/b1", raw)
        assert read(backend, "a/b1") == raw

    @pytest.mark.parametrize("function", ["open", "stat", "fstat", "pread"])
    def test_of_every_call_while_reading(self, backend: DirectoryBackend, function: str) -> None:
        write(backend, "a/b", b"x")
        for n in range(1, 20):
            with FailingCall(function, n).armed() as failure:
                try:
                    assert read(backend, "a/b") == b"x"
                except LocalIOError as error:
                    assert failure.fired
                    assert "the disk reported an error" in str(error)
            if not failure.fired:
                break
        assert n > 1

    def test_a_closed_descriptor_is_never_left(self, backend: DirectoryBackend, tmp_path: Path) -> None:
        before = open_under(tmp_path)
        write(backend, "a/b", b"x")
        for n in range(1, 12):
            for function in ("open", "fstat", "fsync", "pwrite", "rename", "stat"):
                with FailingCall(function, n).armed():
                    for call in (lambda: write(backend, "a/c", b"x"), lambda: read(backend, "a/b")):
                        with_errors(call)
        assert open_under(tmp_path) == before


def with_errors(call) -> None:
    try:
        call()
    except LocalIOError:
        return


class TestFullDisk:
    def test_is_seen_before_the_first_byte(self, tmp_path: Path) -> None:
        with tmpfs(tmp_path / "disk", "size=1m") as disk:
            backend = DirectoryBackend(disk)
            with pytest.raises(LocalIOError) as caught:
                backend.write("a", lambda: pytest.fail("opened"), 2 << 20)
            assert "room" in str(caught.value)

    def test_that_fills_up_meanwhile_gives_all_room_back(self, tmp_path: Path) -> None:
        with tmpfs(tmp_path / "disk", "size=4m") as disk:
            backend = DirectoryBackend(disk)
            write(backend, "b/old", b"old")
            free = free_bytes(disk)

            class Greedy(io.BytesIO):
                def read(self, size: int | None = -1, /) -> bytes:
                    if not (disk / "other").exists():
                        (disk / "other").write_bytes(b"x" * (2 << 20))
                    return super().read(size)

            with pytest.raises(LocalIOError) as caught:
                backend.write("b/old", lambda: Greedy(noise(3 << 20)), 3 << 20)
            assert str(caught.value).startswith(f"{disk}/b/old: the disk is full; make room")
            assert read(backend, "b/old") == b"old"
            assert not drafts(disk)
            (disk / "other").unlink()
            assert free_bytes(disk) == free

    def test_of_inodes(self, tmp_path: Path) -> None:
        with tmpfs(tmp_path / "disk", "size=4m,nr_inodes=4") as disk:
            backend = DirectoryBackend(disk)
            write(backend, "a", b"x")
            with pytest.raises(LocalIOError) as caught:
                for number in range(8):
                    write(backend, f"b{number}", b"x")
            assert "the disk is full" in str(caught.value)
            assert not drafts(disk)

    def test_read_only(self, tmp_path: Path) -> None:
        with tmpfs(tmp_path / "disk", "size=1m") as disk:
            write(DirectoryBackend(disk), "a", b"x")
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
            for call in (
                lambda: write(DirectoryBackend(disk), "b", b"x"),
                lambda: write(DirectoryBackend(disk), "c/d", b"x"),
                lambda: DirectoryBackend(disk).delete("a"),
            ):
                with pytest.raises(LocalIOError) as caught:
                    call()
                assert "read-only" in str(caught.value)
            assert read(DirectoryBackend(disk), "a") == b"x"


def write_for_ever() -> None:
    """Fill the space that `sys.argv` names, in a process that somebody will kill."""
    backend = DirectoryBackend(Path(sys.argv[1]))
    print("ready", flush=True)
    while True:
        raw = os.urandom(300_000)
        backend.write("b/" + hashlib.sha256(raw).hexdigest(), lambda raw=raw: io.BytesIO(raw), len(raw))


def test_killed_at_any_instant_leaves_whole_objects_and_one_draft_at_most(tmp_path: Path) -> None:
    chance = random.Random(11)
    space, seen_draft, turns = tmp_path / "space", 0, 0
    while turns < 20 or (not seen_draft and turns < 200):
        turns += 1
        child = start_function("test_directory_backend:write_for_ever", space)
        assert child.stdout.readline() == b"ready\n"
        time.sleep(chance.uniform(0.001, 0.05))
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        left = drafts(space)
        assert len(left) <= 1
        seen_draft += len(left)
        for path in space.glob("b/[0-9a-f]*"):
            assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
            path.unlink()
    assert seen_draft, "no kill ever fell into a write"
    write(DirectoryBackend(space), "b/last", b"x")
    assert not drafts(space)


def test_threads_that_make_the_same_directories(tmp_path: Path) -> None:
    barrier = threading.Barrier(8)

    def work(number: int) -> None:
        barrier.wait()
        write(DirectoryBackend(tmp_path / "x/y"), f"a/b/c/{number}", b"x")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert len(list(DirectoryBackend(tmp_path / "x/y").keys(""))) == 8
