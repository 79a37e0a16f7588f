"""File systems that lack something (locks, modes, syncs, advice, links): no reason to fail; what is at risk is said."""

import errno
import fcntl
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cli_runner import Here, run_cli, run_fresh
from snapshots import Made, make_snapshot, put_snapshot, tree
from support.content import noise

from epoch_oci.disk.assembly import Assembly
from epoch_oci.disk.draft import Draft
from epoch_oci.disk.facts import Facts
from epoch_oci.disk.journals import PrivateDirectory
from epoch_oci.disk.lock import open_locked
from epoch_oci.oci import media_types
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.stores.oci_layout import OciLayout
from epoch_oci.transfer.execute import execute
from epoch_oci.transfer.plan import Want, plan_blobs

BIG = noise(5 << 20)
TARGET = Descriptor(media_type=media_types.OCTET_STREAM, digest=Digest.of(BIG), size=len(BIG))


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


@contextmanager
def lacking(module: object, name: str, number: int, only: Callable[[int], bool] = lambda descriptor: True) -> Iterator:
    """Have a system call fail for the descriptors (or names) that `only` picks, as file systems without it do."""
    real = getattr(module, name)

    def call(first, *arguments: object, **keywords: object) -> object:
        if only(first):
            raise OSError(number, os.strerror(number))
        return real(first, *arguments, **keywords)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, name, call)
        yield


def is_directory(descriptor: int) -> bool:
    return stat.S_ISDIR(os.fstat(descriptor).st_mode)


def warnings(err: str) -> list[str]:
    """What is said of the file system; the sample is one that Cocoon cannot clone."""
    return [line for line in err.splitlines() if "Cloud Hypervisor" not in line and "state.json" not in line]


def check_transfers(cli: Here, tmp_path: Path, told: int) -> None:
    """Into a layout, from there into a store and into files, all whole, with `told` warnings for layout and store."""
    for words in (
        ("push", "team/bot:v1", "oci:layout", "--store", "store"),
        ("pull", "oci:layout", "--store", "second"),
        ("pull", "oci:layout", "-o", "files"),
    ):
        ran = cli(*words)
        assert ran.code == 0, ran.err
        assert len(warnings(ran.err)) == (told if "files" not in words else 0), ran.err
    assert cli("verify", "second").code == cli("verify", "oci:layout").code == 0
    before, after = tree(tmp_path / "store"), tree(tmp_path / "second")
    assert {key: after[key] for key in before} == before


@pytest.mark.parametrize(
    "number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF, errno.EACCES]
)
def test_without_locks_is_written_to_with_one_warning(cli, bot, tmp_path, number):
    with lacking(fcntl, "flock", number):
        check_transfers(cli, tmp_path, told=1)
    assert not list(tmp_path.rglob(".epoch-oci*"))


@pytest.mark.parametrize(
    ("name", "number", "only"),
    [
        *(("fchmod", number, lambda descriptor: True) for number in (errno.EPERM, errno.EACCES, errno.EOPNOTSUPP)),
        *(("fsync", number, is_directory) for number in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF)),
        ("fsync", errno.EINVAL, lambda descriptor: True),
        ("posix_fadvise", errno.ENOSYS, lambda descriptor: True),
        ("posix_fadvise", errno.ESPIPE, lambda descriptor: True),
        ("fstatvfs", errno.ENOSYS, lambda descriptor: True),
        ("link", errno.EPERM, lambda name: True),
        ("link", errno.EOPNOTSUPP, lambda name: True),
        ("link", errno.EINVAL, lambda name: True),
    ],
)
def test_without_a_call_is_written_to(cli, bot, tmp_path, name, number, only):
    with lacking(os, name, number, only):
        check_transfers(cli, tmp_path, told=0)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_a_sync_that_failed_is_not_one_that_is_lacking(cli, bot, number):
    with lacking(os, "fsync", number):
        ran = cli("push", "team/bot:v1", "oci:layout", "--store", "store")
    assert ran.code == 7 and "IO" in ran.error


def test_one_that_does_not_tell_its_size_has_room(cli, bot, tmp_path, monkeypatch):
    nothing = os.statvfs_result((4096, 4096, 0, 0, 0, 0, 0, 0, 0, 255))
    monkeypatch.setattr(os, "fstatvfs", lambda descriptor: nothing)
    check_transfers(cli, tmp_path, told=0)


def test_large_blobs_are_put_together_without_locks_too(tmp_path):
    told: list[str] = []
    layout = OciLayout(tmp_path / "layout", warn=told.append)
    with lacking(fcntl, "flock", errno.ENOSYS):
        wants = [Want(target=TARGET, content=Content(BIG))]
        execute(plan_blobs(layout, wants), moved="received")
        execute(plan_blobs(layout, wants), moved="received")
    assert (tmp_path / "layout/blobs/sha256" / TARGET.digest.hex).read_bytes() == BIG
    assert len(told) == 1 and "no locks" in told[0]


class Content:
    def __init__(self, raw: bytes) -> None:
        self.raw, self.size = raw, len(raw)

    @contextmanager
    def open(self, start: int = 0, length: int | None = None) -> Iterator:
        import io

        yield io.BytesIO(self.raw[start : None if length is None else start + length])


SHIM = """
#include <errno.h>
#include <sys/stat.h>
#include <sys/types.h>
int flock(int fd, int operation) { errno = ENOSYS; return -1; }
int fchmod(int fd, mode_t mode) { errno = EPERM; return -1; }
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_without_locks_and_modes_as_processes(bot, tmp_path):
    (tmp_path / "shim.c").write_text(SHIM)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", "shim.so", "shim.c"], cwd=tmp_path, check=True)
    preload = {"LD_PRELOAD": str(tmp_path / "shim.so")}
    pushed = run_fresh("push", "team/bot:v1", "oci:layout", "--store", "store", cwd=tmp_path, env=preload)
    assert pushed.code == 0 and len(warnings(pushed.err)) == 1, pushed.err
    assert run_cli("verify", "oci:layout", cwd=tmp_path).code == 0


class TestUmask:
    """What is made is usable by its owner and by nobody else, whatever the umask."""

    @pytest.mark.parametrize("mask", [0o777, 0o377, 0o277, 0o022, 0o000])
    def test_folders_and_files(self, cli, bot, tmp_path, mask):
        (tmp_path / "top").mkdir()
        before = os.umask(mask)
        try:
            for words in (
                ("push", "team/bot:v1", "oci:top/new/layout", "--store", "store"),
                ("pull", "oci:top/new/layout", "--store", "top/other/store"),
                ("pull", "oci:top/new/layout", "-o", "top/more/files"),
            ):
                assert cli(*words).code == 0
        finally:
            os.umask(before)
        for path in (tmp_path / "top").rglob("*"):
            mode = stat.S_IMODE(path.stat().st_mode)
            assert mode == 0o700 if path.is_dir() else mode in (0o600, 0o400, 0o700, 0o500), (path, oct(mode))

    def test_what_is_left_to_go_on_with(self, tmp_path):
        directory = os.open(tmp_path, os.O_RDONLY)
        before = os.umask(0o777)
        try:
            with Assembly(directory, "blob", TARGET, "blob") as assembly:
                assembly.write(0, BIG[: 1 << 20], 0)
                assembly.settle(0, 1 << 20)
        finally:
            os.umask(before)
            os.close(directory)
        left = {path.suffix: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
        assert left == {".part": 0o600, ".done": 0o600}

    def test_what_is_remembered_and_locked(self, tmp_path):
        directory = os.open(tmp_path, os.O_RDONLY)
        before = os.umask(0o777)
        try:
            Facts(tmp_path / "cache").keep("kind", "key", "text")
            private, name = PrivateDirectory(tmp_path / "state"), "ab" * 32
            assert private.lock(name) is not None
            private.write(name, b"{}")
            assert open_locked("lock", directory) is not None
            draft = Draft(directory, "draft")
            draft.__enter__()
        finally:
            os.umask(before)
        found = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*") if path.is_file()}
        assert len(found) == 5 and set(found.values()) == {0o600}
