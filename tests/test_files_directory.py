"""Files for a hypervisor: whole, sparse, under their own names, and never through anything that lies in the way."""

import errno
import hashlib
import io
import os
import random
import signal
import stat
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
from cli_runner import start_function
from contract.cases import tree
from contract.contents import Failing, Raw, Unopenable
from disks import LINKS, OBSTACLES, FailingCall, drafts, free_bytes, open_under, put_in_the_way, tmpfs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.content import noise
from support.waiting import at_once

from epoch_oci.epoch.sparse import Segment
from epoch_oci.errors import ConflictError, ContentError, LocalIOError, NetworkError
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.stores.base import FileSink, FileTarget
from epoch_oci.stores.files import FilesDirectory

RAW = noise(300_000, seed=9)
OTHER = noise(300_000, seed=10)


def target(name: str, raw: bytes, **members: object) -> FileTarget:
    blob = Descriptor(media_type="application/octet-stream", digest=Digest.of(raw), size=len(raw))
    return FileTarget(name=name, blob=blob, **members)


def packed(name: str, raw: bytes, spans: Sequence[tuple[int, int]], size: int) -> FileTarget:
    return target(name, raw, segments=[Segment(*span) for span in spans], logical_size=size)


def unfolded(raw: bytes, spans: Sequence[tuple[int, int]], size: int) -> bytes:
    file, used = bytearray(size), 0
    for offset, length in spans:
        file[offset : offset + length] = raw[used : used + length]
        used += length
    return bytes(file)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def files(out: Path) -> FilesDirectory:
    return FilesDirectory(out)


def test_it_is_what_the_port_asks_for(files: FilesDirectory) -> None:
    sink: FileSink = files
    assert not sink.holds(target("a", b""))


class TestPlainFiles:
    def test_come_out_as_they_are(self, files: FilesDirectory, out: Path) -> None:
        for name, raw in (
            ("overlay.qcow2", RAW),
            ("empty", b""),
            ("zeros", bytes(1 << 20)),
            ("odd", bytes(5000) + b"x"),
        ):
            files.check([target(name, raw)])
            files.write(target(name, raw), Raw(raw, step=70_001))
            assert (out / name).read_bytes() == raw
            assert files.holds(target(name, raw))
        assert not drafts(out)
        assert len(tree(out)) == 4

    def test_are_sparse_where_they_are_zero(self, files: FilesDirectory, out: Path) -> None:
        raw = RAW[:4096] + bytes(20 << 20) + RAW[:10] + bytes(10 << 20)
        files.write(target("cow.raw", raw), Raw(raw))
        assert (out / "cow.raw").read_bytes() == raw
        assert (out / "cow.raw").stat().st_blocks * 512 <= 32 << 10

    def test_a_second_time_are_not_even_read(self, files: FilesDirectory, out: Path) -> None:
        files.write(target("a", RAW), Raw(RAW))
        before = tree(out)
        files.check([target("a", RAW)])
        files.write(target("a", RAW), Unopenable(len(RAW), AssertionError("opened")))
        assert tree(out) == before

    def test_are_written_by_threads(self, files: FilesDirectory, out: Path) -> None:
        raws = [noise(100_000, seed=seed) for seed in range(12)]
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(lambda n: files.write(target(f"f{n}", raws[n]), Raw(raws[n])), range(12)))
        assert all((out / f"f{n}").read_bytes() == raws[n] for n in range(12))
        assert not drafts(out)


class TestPackedFiles:
    SPANS = ((0, 5000), (8192, 100_000), (1 << 20, 195_000))
    SIZE = (4 << 20) + 3

    def test_are_unfolded(self, files: FilesDirectory, out: Path) -> None:
        wanted = packed("memory-ranges", RAW, self.SPANS, self.SIZE)
        assert wanted.size == self.SIZE
        files.check([wanted])
        files.write(wanted, Raw(RAW, step=9_999))
        assert (out / "memory-ranges").read_bytes() == unfolded(RAW, self.SPANS, self.SIZE)
        assert (out / "memory-ranges").stat().st_blocks * 512 <= len(RAW) + (64 << 10)
        assert files.holds(wanted)

    def test_may_be_one_hole(self, files: FilesDirectory, out: Path) -> None:
        wanted = packed("memory-ranges", b"", (), 64 << 20)
        files.write(wanted, Raw(b""))
        assert (out / "memory-ranges").stat().st_size == 64 << 20
        assert (out / "memory-ranges").stat().st_blocks == 0
        assert files.holds(wanted)
        with pytest.raises(ContentError):
            files.write(packed("other", b"", (), 64 << 20), Raw(b"x"))

    @pytest.mark.parametrize(
        ("offset", "byte"), [(0, b"?"), (5000, b"x"), (8191, b"x"), (8192, b"?"), (2 << 20, b"x"), (SIZE - 1, b"x")]
    )
    def test_with_one_byte_changed_are_not_held(
        self, files: FilesDirectory, out: Path, offset: int, byte: bytes
    ) -> None:
        wanted = packed("memory-ranges", RAW, self.SPANS, self.SIZE)
        files.write(wanted, Raw(RAW))
        with (out / "memory-ranges").open("r+b") as file:
            file.seek(offset)
            file.write(byte)
        assert not files.holds(wanted)
        with pytest.raises(ConflictError):
            files.check([wanted])

    def test_are_told_from_holes_on_file_systems_without_them(
        self, files: FilesDirectory, out: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def lseek(*_: object) -> int:
            raise OSError(errno.EINVAL, "what is a hole?")

        wanted = packed("memory-ranges", RAW, self.SPANS, self.SIZE)
        files.write(wanted, Raw(RAW))
        monkeypatch.setattr(os, "lseek", lseek)
        assert files.holds(wanted)
        with (out / "memory-ranges").open("r+b") as file:
            file.write(b"")
            os.pwrite(file.fileno(), b"x", self.SIZE - 1)
        assert not files.holds(wanted)

    def test_that_cannot_be_read_to_the_end_are_an_error(
        self, files: FilesDirectory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def lseek(*_: object) -> int:
            raise OSError(errno.EIO, "bad sector")

        wanted = packed("memory-ranges", RAW, self.SPANS, self.SIZE)
        files.write(wanted, Raw(RAW))
        monkeypatch.setattr(os, "lseek", lseek)
        with pytest.raises(LocalIOError):
            files.holds(wanted)

    @pytest.mark.parametrize(
        ("spans", "size"),
        [
            ([(0, 299_999)], 1 << 20),
            ([(0, 300_001)], 1 << 20),
            ([(0, 300_000)], 299_999),
            ([(0, 200_000), (199_999, 100_000)], 1 << 20),
            ([(500_000, 100_000), (0, 200_000)], 1 << 20),
            ([(0, 400_000), (400_000, -100_000)], 1 << 20),
            ([(-1, 300_000)], 1 << 20),
            ([], 1 << 20),
        ],
    )
    def test_with_a_map_that_does_not_fit_are_refused(
        self, files: FilesDirectory, tmp_path: Path, spans: list[tuple[int, int]], size: int
    ) -> None:
        wanted = packed("memory-ranges", RAW, spans, size)
        for call in (lambda: files.check([wanted]), lambda: files.write(wanted, Raw(RAW)), lambda: files.holds(wanted)):
            with pytest.raises(ContentError) as caught:
                call()
            assert caught.value.code == "SIZE"
        assert tree(tmp_path) == {}

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_of_any_map_are_unfolded(self, tmp_path: Path, data: st.DataObject) -> None:
        edges = sorted(data.draw(st.sets(st.integers(0, 60_000), min_size=2, max_size=12)))
        spans = [(start, end - start) for start, end in list(pairwise(edges))[::2]]
        size = edges[-1] + data.draw(st.integers(0, 9000))
        length = sum(span[1] for span in spans)
        kind = data.draw(st.sampled_from(["noise", "zeros", "mixed"]))
        raw = {"noise": noise(length), "zeros": bytes(length), "mixed": (noise(3000) + bytes(9000)) * 6}[kind][:length]
        wanted = packed("f", raw, spans, size)
        files = FilesDirectory(tmp_path)
        files.write(wanted, Raw(raw, step=data.draw(st.integers(1, 20_000))), replace=True)
        assert (tmp_path / "f").read_bytes() == unfolded(raw, spans, size)
        assert files.holds(wanted)


BAD = {
    "short": (Raw(RAW[:-1]), "SIZE"),
    "long": (Raw(RAW + b"x"), "SIZE"),
    "last-byte": (Raw(RAW[:-1] + bytes([RAW[-1] ^ 1])), "DIGEST"),
}


class TestBadContent:
    @pytest.mark.parametrize("name", BAD)
    @pytest.mark.parametrize("replace", [False, True])
    def test_is_refused_and_leaves_nothing(self, files: FilesDirectory, out: Path, name: str, replace: bool) -> None:
        files.write(target("old", OTHER), Raw(OTHER))
        before = tree(out)
        content, code = BAD[name]
        wanted = [target("new", RAW), packed("packed", RAW, [(4096, len(RAW))], 1 << 20)]
        for each in wanted + ([target("old", RAW)] if replace else []):
            with pytest.raises(ContentError) as caught:
                files.write(each, content, replace=replace)
            assert caught.value.code == code
            assert each.name in str(caught.value)
        assert tree(out) == before

    @pytest.mark.parametrize("error", [NetworkError("gone"), KeyboardInterrupt(), ZeroDivisionError()])
    def test_failures_of_the_source_leave_nothing(self, files: FilesDirectory, out: Path, error: BaseException) -> None:
        files.write(target("old", OTHER), Raw(OTHER))
        before = tree(out)
        with pytest.raises(type(error)):
            files.write(target("new", RAW), Failing(RAW[:-5], error))
        assert tree(out) == before

    def test_hostile_names_never_reach_the_disk(self, files: FilesDirectory, tmp_path: Path) -> None:
        for name in (
            "",
            ".",
            "..",
            "../x",
            "/etc/x",
            "a/b",
            "a\\b",
            "x\x00",
            "-rf",
            ".hidden",
            "con",
            "x.",
            "ä",
            "a\ud800",
        ):
            wanted = target(name, RAW)
            for call in (
                lambda wanted=wanted: files.check([wanted]),
                lambda wanted=wanted: files.write(wanted, Raw(RAW), replace=True),
                lambda wanted=wanted: files.holds(wanted),
            ):
                with pytest.raises(ContentError) as caught:
                    call()
                assert caught.value.code == "NAME"
        assert tree(tmp_path) == {}


class TestInTheWay:
    def test_another_file_is_a_conflict_unless_replaced(self, files: FilesDirectory, out: Path) -> None:
        out.mkdir(mode=0o700)
        (out / "a").write_bytes(b"precious")
        before = tree(out)
        for call in (
            lambda: files.check([target("a", RAW)]),
            lambda: files.write(target("a", RAW), Unopenable(1, AssertionError("opened"))),
        ):
            with pytest.raises(ConflictError) as caught:
                call()
            assert str(out / "a") in str(caught.value)
        assert tree(out) == before
        files.check([target("a", RAW)], replace=True)
        files.write(target("a", RAW), Raw(RAW), replace=True)
        assert (out / "a").read_bytes() == RAW

    def test_a_file_of_the_same_size_is_a_conflict_too(self, files: FilesDirectory, out: Path) -> None:
        files.write(target("a", OTHER), Raw(OTHER))
        with pytest.raises(ConflictError):
            files.check([target("a", RAW)])

    def test_all_of_it_is_named_at_once(self, files: FilesDirectory, out: Path) -> None:
        out.mkdir(mode=0o700)
        for name in "abcde":
            (out / name).touch()
        with pytest.raises(ConflictError) as caught:
            files.check([target(name, RAW) for name in "abcdef"])
        assert all(f"{out / name} has other content" in str(caught.value) for name in "abc")
        assert "(and 2 more)" in str(caught.value)

    @pytest.mark.parametrize("kind", OBSTACLES)
    @pytest.mark.parametrize("replace", [False, True])
    def test_nothing_is_followed_opened_or_waited_for(
        self, files: FilesDirectory, out: Path, kind: str, replace: bool
    ) -> None:
        out.mkdir(mode=0o700)
        put_in_the_way(kind, out / "a")
        before = tree(out)
        wanted = target("a", RAW)
        with at_once():
            assert not files.holds(wanted)
        if replace and kind in LINKS:
            files.check([wanted], replace=True)
            files.write(wanted, Raw(RAW), replace=True)
            assert stat.S_ISREG((out / "a").lstat().st_mode)
            assert (out / "a").read_bytes() == RAW
            assert kind != "symlink" or (out / "a.elsewhere").read_bytes() == b"not for anyone"
            return
        for call in (
            lambda: files.check([wanted], replace=replace),
            lambda: files.write(wanted, Unopenable(1, AssertionError("opened")), replace=replace),
        ):
            with at_once(), pytest.raises(ConflictError):
                call()
        assert tree(out) == before

    def test_what_comes_meanwhile_is_a_conflict_unless_it_is_the_same(self, files: FilesDirectory, out: Path) -> None:
        for name, raw in (("same", RAW), ("other", OTHER)):

            class Meanwhile(io.BytesIO):
                def read(self, size: int | None = -1, /, name: str = name, raw: bytes = raw) -> bytes:
                    (out / name).write_bytes(raw)
                    return super().read(size)

            class Content:
                size = len(RAW)

                def open(self, start: int = 0, length: int | None = None) -> io.BytesIO:
                    return Meanwhile(RAW)  # used before the next turn

            if name == "same":
                files.write(target(name, RAW), Content())
            else:
                with pytest.raises(ConflictError):
                    files.write(target(name, RAW), Content())
            assert (out / name).read_bytes() == raw
        assert not drafts(out)


class TestDestination:
    def test_is_pinned(self, files: FilesDirectory, tmp_path: Path, out: Path) -> None:
        """What its path comes to mean later is not where files land."""
        trap = tmp_path / "trap"
        trap.mkdir()
        files.write(target("a", RAW), Raw(RAW))
        out.rename(tmp_path / "moved")
        out.symlink_to(trap)
        files.write(target("b", RAW), Raw(RAW))
        assert sorted(path.name for path in (tmp_path / "moved").iterdir()) == ["a", "b"]
        assert list(trap.iterdir()) == []

    def test_survives_a_race_of_symlinks(self, tmp_path: Path, out: Path) -> None:
        trap, stop = tmp_path / "trap", threading.Event()
        trap.mkdir()
        out.mkdir(mode=0o700)

        def swap() -> None:
            link = out / ".swap"
            while not stop.is_set():
                for name in ("a", "b"):
                    link.symlink_to(trap / name)
                    link.rename(out / name)
                    (out / name).unlink(missing_ok=True)

        attacker = threading.Thread(target=swap)
        attacker.start()
        try:
            files, deadline = FilesDirectory(out), time.monotonic() + 1
            while time.monotonic() < deadline:
                for name in ("a", "b"):
                    for replace in (True, False):
                        with suppress(ConflictError, ContentError, LocalIOError):
                            files.write(target(name, b"secret"), Raw(b"secret"), replace=replace)
        finally:
            stop.set()
            attacker.join()
        assert list(trap.iterdir()) == []

    def test_may_be_given_as_a_link(self, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir(mode=0o700)
        (tmp_path / "link").symlink_to(tmp_path / "real")
        FilesDirectory(tmp_path / "link").write(target("a", RAW), Raw(RAW))
        assert (tmp_path / "real/a").read_bytes() == RAW

    def test_is_not_made_by_looking(self, files: FilesDirectory, tmp_path: Path) -> None:
        assert not files.holds(target("a", RAW))
        files.check([target("a", RAW)])
        assert list(tmp_path.iterdir()) == []

    def test_that_is_a_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(ContentError):
            FilesDirectory(tmp_path / "file").check([target("a", RAW)])

    @pytest.mark.parametrize(("mode", "warned"), [(0o777, True), (0o707, True), (0o1777, False), (0o770, False)])
    def test_that_everybody_can_write_to_is_told_of_once(self, out: Path, mode: int, warned: bool) -> None:
        out.mkdir()
        out.chmod(mode)
        assert ["everybody" in text for text in self.warnings(out)] == [True] * warned

    def test_of_another_user_is_told_of_once(self, out: Path) -> None:
        if os.geteuid() != 0:
            pytest.skip("giving a directory away needs root")
        out.mkdir(mode=0o700)
        os.chown(out, 12345, 12345)
        assert ["another user" in text for text in self.warnings(out)] == [True]

    def test_of_root_is_trusted(self, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        if os.geteuid() != 0:
            pytest.skip("a directory of root needs root")
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
        assert self.warnings(out) == []

    @staticmethod
    def warnings(out: Path) -> list[str]:
        """What is said while files are written there, which they are whatever it is."""
        told: list[str] = []
        files = FilesDirectory(out, warn=told.append)
        for name in ("a", "b"):
            files.check([target(name, RAW)])
            files.write(target(name, RAW), Raw(RAW))
            assert files.holds(target(name, RAW))
        return told

    def test_can_be_let_go_of(self, files: FilesDirectory, out: Path) -> None:
        assert open_under(out) == 0
        files.write(target("a", RAW), Raw(RAW))
        assert open_under(out) == 1
        files.close()
        assert open_under(out) == 0
        assert files.holds(target("a", RAW))
        del files


class TestModes:
    @pytest.mark.parametrize(
        ("mode", "result"),
        [(0o600, 0o600), (0o644, 0o600), (0o755, 0o700), (0o4755, 0o700), (0o7777, 0o700), (0o400, 0o400), (0, 0o600)],
    )
    def test_are_the_owners_bits_and_no_more(self, files: FilesDirectory, out: Path, mode: int, result: int) -> None:
        files.write(target("a", RAW, mode=mode), Raw(RAW))
        assert stat.S_IMODE((out / "a").stat().st_mode) == result

    def test_whatever_the_umask_and_from_the_first_instant(self, tmp_path: Path) -> None:
        seen: list[os.stat_result] = []

        class Spy(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                seen.extend(path.lstat() for path in (tmp_path / "new").rglob("*"))
                return super().read(size)

        class Content:
            size = len(RAW)

            def open(self, start: int = 0, length: int | None = None) -> io.BytesIO:
                return Spy(RAW)

        before = os.umask(0)
        try:
            FilesDirectory(tmp_path / "new/er/out").write(target("a", RAW, mode=0o777), Content())
        finally:
            os.umask(before)
        seen.extend(path.lstat() for path in (tmp_path / "new").rglob("*"))
        assert len([state for state in seen if stat.S_ISREG(state.st_mode)]) >= 2
        assert all(state.st_mode & 0o077 == 0 for state in [*seen, (tmp_path / "new").lstat()])


class TestFullDisk:
    def test_is_seen_before_the_first_byte(self, tmp_path: Path) -> None:
        with tmpfs(tmp_path / "disk", "size=1m,mode=700") as disk:
            for place in (disk, disk / "not/yet"):
                files = FilesDirectory(place)
                files.check([target("a", RAW), target("b", RAW)])
                with pytest.raises(LocalIOError) as caught:
                    files.check([target(name, RAW) for name in "abcd"])
                assert "1200000 bytes" in str(caught.value)
                files.close()
            assert list(disk.iterdir()) == []

    def test_a_packed_file_needs_what_is_stored(self, tmp_path: Path) -> None:
        with tmpfs(tmp_path / "disk", "size=1m,mode=700") as disk:
            files = FilesDirectory(disk)
            wanted = packed("memory", RAW, [(1 << 30, len(RAW))], 2 << 30)
            files.check([wanted])
            files.write(wanted, Raw(RAW))
            assert files.holds(wanted)
            files.close()

    def test_that_fills_up_meanwhile(self, tmp_path: Path) -> None:
        """The old file stays, and all the room comes back."""
        big = noise(900_000, seed=12)
        with tmpfs(tmp_path / "disk", "size=1m,mode=700") as disk:
            files = FilesDirectory(disk)
            files.write(target("a", RAW), Raw(RAW))
            free = free_bytes(disk)
            with pytest.raises(LocalIOError) as caught:
                files.write(target("a", big), Raw(big), replace=True)
            assert str(caught.value).startswith(f"{disk}/a: the disk is full; make room")
            assert (disk / "a").read_bytes() == RAW
            assert free_bytes(disk) == free
            assert not drafts(disk)
            files.close()


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EMFILE])
@pytest.mark.parametrize(
    "function", ["open", "stat", "fstat", "fstatvfs", "pwrite", "ftruncate", "fchmod", "fsync", "link", "pread"]
)
def test_whichever_call_fails_nothing_is_half_done(tmp_path: Path, function: str, number: int) -> None:
    wanted = packed("memory", RAW, [(4096, len(RAW))], 1 << 20)
    for n in range(1, 60):
        out = tmp_path / str(n)
        files = FilesDirectory(out)
        with FailingCall(function, n, number).armed() as failure:
            try:
                files.check([wanted])
                files.write(wanted, Raw(RAW))
                assert files.holds(wanted)
            except LocalIOError as error:
                assert failure.fired
                assert error.object
                assert str(tmp_path) in error.object
        assert not drafts(tmp_path)
        assert not (out / "memory").exists() or FilesDirectory(out).holds(wanted)
        FilesDirectory(out).write(wanted, Raw(RAW))
        assert FilesDirectory(out).holds(wanted)
        if not failure.fired:
            return
    pytest.fail("the calls never came to an end")


def write_for_ever() -> None:
    """Fill the directory that `sys.argv` names, in a process that somebody will kill."""
    files = FilesDirectory(Path(sys.argv[1]))
    print("ready", flush=True)
    while True:
        raw = os.urandom(200_000)
        files.write(target(target("x", raw).blob.digest.hex, raw), Raw(raw))
        print("written", flush=True)


class TestDrafts:
    def test_of_the_dead_are_removed(self, files: FilesDirectory, out: Path) -> None:
        out.mkdir(mode=0o700)
        (out / ".epoch-oci-0123456789abcdef.tmp").write_bytes(b"half")
        (out / ".mine").write_bytes(b"whole")
        files.write(target("a", RAW), Raw(RAW))
        assert sorted(path.name for path in out.iterdir()) == [".mine", "a"]

    def test_after_a_kill_one_is_left_at_most(self, out: Path) -> None:
        chance = random.Random(17)
        turns = caught = done = 0
        while turns < 10 or (not (caught and done) and turns < 100):
            turns += 1
            child = start_function("test_files_directory:write_for_ever", out)
            assert child.stdout.readline() == b"ready\n"
            if turns % 3 == 0:
                assert child.stdout.readline() == b"written\n"
            time.sleep(chance.uniform(0.001, 0.04))
            child.send_signal(signal.SIGKILL)
            child.wait()
            child.stdout.close()
            caught += len(drafts(out))
            assert len(drafts(out)) <= 1
            for path in out.glob("[0-9a-f]*"):
                assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
                done += 1
        assert caught, "no kill ever fell into a write"
        assert done
        FilesDirectory(out).write(target("last", RAW), Raw(RAW))
        assert not drafts(out)
