"""Reading files where they are: `open_file`, `cat`, the fsspec file system, and a mount."""

import hashlib
import io
import mmap
import os
import random
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest
from cli_runner import command, environment, run_bytes, run_cli
from snapshots import make_snapshot, noise, put_snapshot
from support.faults import IgnoreRange, Respond
from support.waiting import until
from test_chunked import CHUNK, DISK, MEMORY, snapshot

from epoch_oci import ContentError, NotFoundError, RemoteFile, open_file
from epoch_oci.disk import kept_bound
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.reading import mount_log
from epoch_oci.reading.readable_files import ReadableFile
from epoch_oci.reading.remote_file import PAGE
from epoch_oci.stores.base import BytesContent


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A store with a snapshot, and layouts with it in either form."""
    path = tmp_path_factory.mktemp("reading")
    put_snapshot(path / "store", snapshot("v1", MEMORY, DISK))
    put_snapshot(path / "store", make_snapshot("W3b"))
    for name, *flags in (("plain",), ("chunked", "--chunked")):
        for key in ("bot:v1", "team/bot:v1"):
            target = f"oci:{path}/{name}:{key.replace('/', '-').replace(':', '-')}"
            assert run_cli("push", key, target, "--store", path / "store", *flags).code == 0
    return path


@pytest.fixture(params=["plain", "chunked"])
def where(request, home) -> str:
    return f"oci:{home}/{request.param}:bot-v1"


def test_a_file_is_read_where_it_is(where, home):
    with open_file(where, "memory-ranges") as file:
        assert (file.size, file.readable(), file.seekable(), file.writable()) == (len(MEMORY), True, True, False)
        assert file.read(100) == MEMORY[:100] and file.tell() == 100
        assert file.seek(-50, io.SEEK_END) == len(MEMORY) - 50
        assert file.read() == MEMORY[-50:] and file.read(1) == b""
        assert file.pread(3 * CHUNK, 5 * CHUNK - 7) == MEMORY[5 * CHUNK - 7 : 8 * CHUNK - 7]
        file.seek(0)
        assert hashlib.sha256(file.read()).digest() == hashlib.sha256(MEMORY).digest()
    with open_file("bot:v1", "overlay.qcow2", store=str(home / "store")) as file:
        assert file.read() == DISK


@pytest.mark.parametrize("form", ["plain", "chunked"])
def test_a_packed_file_is_read_as_the_hypervisor_sees_it(home, form):
    made = make_snapshot("W3b")
    stored = next(raw for raw in made.blobs.values() if len(raw) == 1_500_000)
    with open_file(f"oci:{home}/{form}:team-bot-v1", "memory-ranges") as file:
        raw = file.read()
    assert len(raw) == 1 << 23
    assert raw[:655_360] == stored[:655_360] and not any(raw[655_360:1_048_576])
    assert raw[1_048_576 : 1_048_576 + len(stored) - 655_360] == stored[655_360:]


def test_many_threads_read_one_file(where):
    chosen = random.Random(3)
    spots = [(chosen.randrange(len(MEMORY)), chosen.randrange(1, 300_000)) for _ in range(60)]
    with open_file(where, "memory-ranges") as file, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda spot: file.pread(spot[1], spot[0]), spots))
    assert found == [MEMORY[at : at + size] for at, size in spots]


class Counting:
    """Content that says what was asked of it."""

    def __init__(self, raw: bytes) -> None:
        self.raw, self.asked = raw, []
        self.size = len(raw)

    def open(self, start=0, length=None):
        self.asked.append((start, length))
        return BytesContent(self.raw).open(start, length)


def remote(raw: bytes, **more) -> tuple[RemoteFile, Counting]:
    content = Counting(raw)
    return RemoteFile(ReadableFile("f", content, None, True), **more), content


def test_scattered_reads_fetch_hardly_more_than_they_need():
    file, content = remote(noise("r", 8 << 20))
    for at in random.Random(1).sample(range(0, 8 << 20, PAGE), 40):
        file.pread(PAGE, at)
    assert sum(length for _, length in content.asked) <= 1.3 * 40 * PAGE


def test_reading_in_order_takes_few_long_reads_and_nothing_twice():
    raw = noise("r", 16 << 20)
    file, content = remote(raw)
    assert b"".join(iter(lambda: file.read(4096), b"")) == raw
    assert len(content.asked) < 16 and sum(length for _, length in content.asked) == len(raw)


def test_what_is_kept_is_bounded():
    raw = noise("r", 4 << 20)
    file, content = remote(raw, cache=1 << 20)
    for _ in range(2):
        file.seek(0)
        assert file.read() == raw
    assert sum(len(page) for page in file._held.values()) <= 1 << 20
    assert sum(length for _, length in content.asked) > len(raw)


def test_a_plain_file_that_is_not_what_it_should_be_is_told_at_its_end():
    target = Descriptor(media_type="x/y", digest=Digest.of(b"other"), size=200_000)
    file = RemoteFile(ReadableFile("f", BytesContent(noise("x", 200_000)), target, False))
    assert file.read(100_000)
    with pytest.raises(ContentError, match="has digest"):
        file.read()


def test_a_file_that_is_not_there_is_told_with_those_that_are(where):
    with pytest.raises(NotFoundError, match="config\\.json, memory-ranges, overlay\\.qcow2"):
        open_file(where, "memory")


# cat


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, MEMORY),
        ("0-0", MEMORY[:1]),
        ("100-199999", MEMORY[100:200_000]),
        ("6000000-", MEMORY[6_000_000:]),
        ("-17", MEMORY[-17:]),
        ("5-99999999", MEMORY[5:]),
    ],
)
def test_cat_writes_a_file_or_a_part_of_it(where, text, expected):
    words = ["cat", where, "memory-ranges", *(["--range", text] if text else [])]
    done = run_bytes(*words)
    assert (done.returncode, done.stdout == expected) == (0, True), done.stderr


@pytest.mark.parametrize("text", ["x", "-", "5", "9-3", "99999999-", "1-2-3"])
def test_cat_refuses_a_range_that_is_none(home, text):
    done = run_cli("cat", f"oci:{home}/plain:bot-v1", "memory-ranges", f"--range={text}")
    assert done.code == 2 and ("write A-B" in done.error or "see `epoch-oci cat --help`" in done.error)


def test_cat_of_a_damaged_file_does_not_pass_for_whole(home, tmp_path):
    assert run_cli("push", "bot:v1", f"oci:{tmp_path}/l:v1", "--store", home / "store", "--chunked").code == 0
    pack = max((tmp_path / "l" / "blobs" / "sha256").iterdir(), key=lambda path: path.stat().st_size)
    raw = pack.read_bytes()
    os.chmod(pack, 0o600)
    pack.write_bytes(raw[: len(raw) - 200_000] + bytes(100_000) + raw[-100_000:])
    done = subprocess.run(
        command("cat", f"oci:{tmp_path}/l:v1", "overlay.qcow2"), env=environment(), capture_output=True, timeout=60
    )
    assert done.returncode == 3 and len(done.stdout) < len(DISK)
    assert DISK.startswith(done.stdout)


# fsspec


def test_every_tool_on_fsspec_reads_snapshots(where):
    with fsspec.open(f"epoch-oci://{where}/memory-ranges") as file:
        file.seek(1000)
        assert file.read(70_000) == MEMORY[1000:71_000]
    system = fsspec.filesystem("epoch-oci")
    assert [Path(name).name for name in system.ls(where, detail=False)] == [
        "config.json",
        "memory-ranges",
        "overlay.qcow2",
    ]
    assert system.info(f"{where}/overlay.qcow2")["size"] == len(DISK)
    assert system.cat_file(f"{where}/overlay.qcow2", 5, 10) == DISK[5:10]
    assert system.isdir(where) and system.exists(f"{where}/config.json") and not system.exists(f"{where}/nothing")
    with pytest.raises(FileNotFoundError):
        system.open(f"{where}/nothing")
    with pytest.raises(ValueError, match="only read"):
        system.open(f"{where}/config.json", "wb")


# mount

can_mount = pytest.mark.skipif(
    not os.access("/dev/fuse", os.R_OK | os.W_OK) or os.geteuid() != 0, reason="no FUSE here"
)


@can_mount
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_mount_shows_the_files_and_ends_cleanly_on_a_signal(where, tmp_path, signum):
    directory = tmp_path / "mnt"
    directory.mkdir()
    process = subprocess.Popen(command("mount", where, str(directory), "-f"), env=environment())
    try:
        until(lambda: process.poll() is not None or os.path.ismount(directory))
        found = sorted(path.name for path in directory.iterdir())
        assert found == ["config.json", "memory-ranges", "overlay.qcow2"]
        with (directory / "memory-ranges").open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as view:
            assert view[3 * CHUNK : 3 * CHUNK + 10] == MEMORY[3 * CHUNK : 3 * CHUNK + 10]
        assert (directory / "overlay.qcow2").read_bytes() == DISK
        with pytest.raises(OSError, match="Read-only"):
            (directory / "new").write_bytes(b"x")
        process.send_signal(signum)
        assert process.wait(60) == 0
        assert not os.path.ismount(directory)
    finally:
        process.kill()
        process.wait()
        subprocess.run(["umount", str(directory)], capture_output=True, check=False)


@can_mount
def test_a_mount_goes_to_the_background_when_it_stands(where, tmp_path):
    directory = tmp_path / "mnt"
    directory.mkdir()
    done = run_cli("mount", where, directory)
    try:
        assert done.code == 0 and os.path.ismount(directory), done.err
        assert (directory / "config.json").read_bytes() == b'{"cpus":{"boot_vcpus":2}}'
    finally:
        subprocess.run(["umount", str(directory)], check=True)


def test_what_cannot_be_mounted_is_one_line(where, tmp_path):
    assert run_cli("mount", where, tmp_path / "nothing").code == 5
    (tmp_path / "file").write_bytes(b"")
    assert run_cli("mount", where, tmp_path).code == 2
    (tmp_path / "empty").mkdir()
    done = run_cli("mount", f"{where}x", tmp_path / "empty")
    assert done.code == 5 and not os.path.ismount(tmp_path / "empty")
    done.error  # noqa: B018 (one line)


# What was read is kept


@pytest.fixture
def registered(tmp_path, home, fake_registry):
    """A registry with the snapshot in chunks, and how many bytes of packs it has given."""
    registry = fake_registry()
    done = run_cli("push", "bot:v1", f"{registry.address}/acme/bot:v1", "--store", home / "store", "--chunked")
    assert done.code == 0, done.err
    return registry, f"{registry.address}/acme/bot:v1"


def given(registry) -> int:
    """Requests for packs or parts of them."""
    packs = [digest for digest, size in registry.blobs("acme/bot").items() if size > CHUNK]
    return sum(registry.recording.count("GET", pack) for pack in packs)


def cat(where: str, name: str, *words: object, code: int = 0) -> bytes:
    words = ("cat", where, name, *words)
    done = run_bytes(*words)
    assert done.returncode == code, done.stderr
    return done.stdout


def test_what_was_read_is_kept_and_not_fetched_again(registered, tmp_path):
    registry, where = registered
    words = (where, "memory-ranges", "--range", f"{CHUNK}-{9 * CHUNK}", "--cache", tmp_path / "kept")
    assert cat(*words) == MEMORY[CHUNK : 9 * CHUNK + 1]
    asked = given(registry)
    assert asked
    assert cat(*words) == MEMORY[CHUNK : 9 * CHUNK + 1]
    with open_file(where, "memory-ranges", cache=tmp_path / "kept") as file:
        assert file.pread(100, 3 * CHUNK) == MEMORY[3 * CHUNK : 3 * CHUNK + 100]
    system = fsspec.filesystem("epoch-oci", cache=str(tmp_path / "kept"))
    assert system.cat_file(f"{where}/memory-ranges", 5 * CHUNK, 6 * CHUNK) == MEMORY[5 * CHUNK : 6 * CHUNK]
    assert given(registry) == asked
    files = [path for path in (tmp_path / "kept").rglob("*") if path.is_file()]
    assert files and all(path.stat().st_mode & 0o077 == 0 for path in files)


def test_a_pull_takes_what_was_read_before(registered, tmp_path):
    _, where = registered
    plain = run_cli("pull", where, "-o", tmp_path / "plain", "--format", "json").json
    assert cat(where, "memory-ranges", "--cache", tmp_path / "kept") == MEMORY
    words = ("pull", where, "--cache", tmp_path / "kept", "--format", "json")
    report = run_cli(*words, "-o", tmp_path / "files").json
    row = next(item for item in report["blobs"] if item["title"] == "memory-ranges")
    assert row["bytes"] == 0
    assert next(item for item in plain["blobs"] if item["title"] == "memory-ranges")["bytes"] > 10 * CHUNK
    assert (tmp_path / "files" / "memory-ranges").read_bytes() == MEMORY
    assert (tmp_path / "files" / "overlay.qcow2").read_bytes() == DISK


def test_what_is_kept_is_not_believed(registered, tmp_path):
    _, where = registered
    cache = tmp_path / "kept"
    assert cat(where, "memory-ranges", "--cache", cache) == MEMORY
    kept = cache / "chunks" / Digest.of(MEMORY).hex
    with kept.open("r+b") as file:
        file.seek(2 * CHUNK)
        file.write(b"somebody was here")
    assert cat(where, "memory-ranges", "--cache", cache) == MEMORY
    kept.write_bytes(b"short")
    done = run_cli("cat", where, "memory-ranges", "--cache", cache)
    assert done.code and not done.out
    done.error  # noqa: B018 (one line)
    assert run_cli("pull", where, "-o", tmp_path / "files", "--cache", cache).code == 0
    assert (tmp_path / "files" / "memory-ranges").read_bytes() == MEMORY


def test_a_plain_snapshot_is_read_and_nothing_of_it_kept(home, tmp_path):
    words = (f"oci:{home}/plain:bot-v1", "config.json", "--cache", tmp_path / "kept")
    assert cat(*words) == b'{"cpus":{"boot_vcpus":2}}'
    assert "not in chunks" in run_cli("cat", *words).err
    assert not (tmp_path / "kept").exists()


def test_a_directory_that_others_may_write_keeps_nothing(registered, tmp_path):
    (tmp_path / "open" / "chunks").mkdir(parents=True)
    (tmp_path / "open" / "chunks").chmod(0o777)
    done = run_cli("cat", registered[1], "memory-ranges", "--cache", tmp_path / "open")
    assert done.code == 7 and not done.out
    done.error  # noqa: B018 (one line)
    assert not list((tmp_path / "open" / "chunks").iterdir())


def test_a_cache_that_cannot_be_is_one_line(registered, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    done = run_cli("cat", registered[1], "memory-ranges", "--cache", tmp_path / "file")
    assert done.code and not done.out
    done.error  # noqa: B018 (one line)


def test_where_ranges_are_refused_a_file_is_read_all_the_same(home, fake_registry):
    registry = fake_registry()
    registry.fault("GET", "/blobs/sha256:", IgnoreRange())
    where = f"{registry.address}/acme/bot:v1"
    assert run_cli("push", "bot:v1", where, "--store", home / "store", "--chunked").code == 0
    with open_file(where, "memory-ranges") as file:
        assert file.pread(100, 3 * CHUNK) == MEMORY[3 * CHUNK : 3 * CHUNK + 100]


def on_disk(cache: Path) -> int:
    """Bytes that files in parts take."""
    return sum(path.stat().st_blocks * 512 for path in (cache / "chunks").iterdir())


@pytest.fixture
def small_segments(monkeypatch):
    monkeypatch.setattr(kept_bound, "SEGMENT", 4 * CHUNK)


def test_a_cache_keeps_no_more_than_it_may(small_segments, registered, tmp_path):
    """And what went is fetched again when it is asked for: the bytes are right in any case."""
    registry, where = registered
    cache, most = tmp_path / "kept", 1 << 20
    with open_file(where, "memory-ranges", cache=cache, cache_size=most) as file:
        assert file.read() == MEMORY
        assert 0 < on_disk(cache) <= most
        asked = given(registry)
        assert file.pread(CHUNK, len(MEMORY) - CHUNK) == MEMORY[-CHUNK:] and given(registry) == asked
        file.seek(0)
        assert file.read() == MEMORY and on_disk(cache) <= most
    with open_file(where, "memory-ranges", cache=cache, cache_size=most) as file:
        assert file.read() == MEMORY and on_disk(cache) <= most


def test_a_cache_that_is_too_large_shrinks_when_it_is_opened(small_segments, registered, tmp_path):
    _, where = registered
    cache, most = tmp_path / "kept", 1 << 20
    assert cat(where, "memory-ranges", "--cache", cache) == MEMORY
    assert on_disk(cache) > most
    with open_file(where, "memory-ranges", cache=cache, cache_size=most) as file:
        assert on_disk(cache) <= most
        assert file.read() == MEMORY


def test_files_that_nobody_reads_go_before_those_that_are_read(small_segments, registered, home, tmp_path):
    registry, where = registered
    put_snapshot(tmp_path / "store", snapshot("v2", noise("other", len(MEMORY)), DISK))
    second = where.replace(":v1", ":v2")
    assert run_cli("push", "bot:v2", second, "--store", tmp_path / "store", "--chunked").code == 0
    cache, most = tmp_path / "kept", 4 << 20
    with open_file(where, "memory-ranges", cache=cache, cache_size=None) as file:
        assert file.read() == MEMORY
    del file
    first = cache / "chunks" / Digest.of(MEMORY).hex
    os.utime(first, (1, 1))
    with open_file(second, "memory-ranges", cache=cache, cache_size=most) as file:
        assert file.pread(3 << 20, 0) == noise("other", len(MEMORY))[: 3 << 20]
        asked = registry.recording.count("GET", "/blobs/")
        assert not first.exists() or first.stat().st_blocks == 0
        assert file.pread(3 << 20, 0) == noise("other", len(MEMORY))[: 3 << 20]
        assert registry.recording.count("GET", "/blobs/") == asked


def test_prune_brings_a_cache_down(registered, tmp_path):
    """Files that were used longest ago go; the others are left, and what they have is not fetched again."""
    registry, where = registered
    cache = tmp_path / "kept"
    assert cat(where, "memory-ranges", "--cache", cache) == MEMORY
    old = cache / "chunks" / ("0" * 64)
    old.write_bytes(noise("old", 64 << 20))
    os.utime(old, (1, 1))
    words = ("prune", "--cache", cache, "--cache-size", "64MiB", "--format", "json")
    foretold = run_cli(*words, "--dry-run").json
    assert old.exists() and foretold["dryRun"] and foretold["bytesFreed"] == old.stat().st_blocks * 512
    done = run_cli(*words).json
    assert not old.exists() and done["blobs"] == foretold["blobs"] == {old.name: foretold["bytesFreed"]}
    asked = given(registry)
    assert cat(where, "memory-ranges", "--cache", cache) == MEMORY and given(registry) == asked
    assert run_cli(*words).json["bytesFreed"] == 0
    assert run_cli("prune", where, "--cache", cache).code == 2
    assert run_cli("prune", "--cache", tmp_path / "nothing").code == 5


@pytest.mark.parametrize("size", ["1MiB", "much", "0"])
def test_a_cache_size_that_is_none_is_a_matter_of_usage(registered, tmp_path, size):
    done = run_cli("cat", registered[1], "memory-ranges", "--cache", tmp_path / "kept", "--cache-size", size)
    assert done.code == 2 and "--cache-size" in done.error and not (tmp_path / "kept").exists()


@can_mount
def test_what_a_mount_in_the_background_cannot_read_is_told_in_its_log(registered, tmp_path):
    """Whoever reads gets EIO; the line says of which mount it is, and comes once."""
    registry, where = registered
    directory = tmp_path / "mnt"
    directory.mkdir()
    env = {"XDG_STATE_HOME": str(tmp_path / "state"), "EPOCH_OCI_RETRIES": "0"}
    assert run_cli("mount", where, directory, env=env).code == 0
    try:
        registry.fault("GET", "/blobs/sha256:", Respond(404), optional=True)
        for _ in range(2):
            with pytest.raises(OSError, match="Input/output error"), (directory / "memory-ranges").open("rb") as file:
                file.read(CHUNK)
    finally:
        subprocess.run(["umount", str(directory)], check=True)
    log = tmp_path / "state" / "epoch-oci" / "mount.log"
    assert log.stat().st_mode & 0o077 == 0
    lines = log.read_text().splitlines()
    assert lines and all(f"Z {directory}: memory-ranges: " in line for line in lines)
    assert len({line.partition(" ")[2] for line in lines}) == len(lines)


def test_the_log_of_mounts_is_bounded(monkeypatch, tmp_path):
    monkeypatch.setattr(mount_log, "_LIMIT", 2000)
    log = mount_log.MountLog(tmp_path / "state", tmp_path)
    for number in range(500):
        log.say(f"error {number}")
    files = sorted((tmp_path / "state").iterdir())
    assert [path.name for path in files][-1] == "mount.log.1" and sum(path.stat().st_size for path in files) < 6000
    (tmp_path / "file").write_bytes(b"")
    mount_log.MountLog(tmp_path / "file", tmp_path).say("nowhere")
    mount_log.MountLog(None, tmp_path).say("nowhere")
