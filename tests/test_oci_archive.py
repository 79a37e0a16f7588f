"""OCI image layouts in tar archives: read where they lie, written in one step, and never believed."""

import gzip
import io
import os
import signal
import tarfile
from pathlib import Path

import pytest
from backports import zstd
from cli_runner import Here, run_cli, start_cli
from layouts import Layout, write_tar
from snapshots import make_snapshot, noise, put_snapshot, tree
from support.peers import requires_peer, run_peer
from support.waiting import until
from test_sync import small

from epoch_oci.disk import local
from epoch_oci.errors import ContentError, LocalIOError, NotFoundError
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.document import Document
from epoch_oci.stores.base import BytesContent
from epoch_oci.stores.oci_archive import ArchiveBackend, OciArchive

BLOB = "blobs/sha256/" + "ab" * 32


@pytest.fixture
def cli(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Here(capsys)


@pytest.fixture
def bot(cli, tmp_path):
    made = make_snapshot("W3b")
    put_snapshot(tmp_path / "store", made)
    return made


def content(store: Path) -> dict[str, bytes]:
    """All of a store but its catalog, which has times in it."""
    return {name: raw for name, raw in tree(store).items() if name != "catalog.json"}


def layout_of(tag: str | None = "v1") -> Layout:
    layout = Layout()
    layout.artifact(tag=tag)
    return layout


def entry(name: str, raw: bytes = b"x", kind: bytes = tarfile.REGTYPE, **more: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.type = len(raw), kind
    for key, value in more.items():
        setattr(info, key, value)
    return info, raw


def with_entries(path: Path, *entries: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> Path:
    """A good layout, and these entries behind it."""
    with tarfile.open(path, "w", format=form) as made:
        for name, raw in layout_of().members().items():
            made.addfile(*reversed((io.BytesIO(raw), entry(name, raw)[0])))
        for info, raw in entries:
            made.addfile(info, io.BytesIO(raw))
    return path


def test_there_and_back(cli, bot, tmp_path):
    pushed = cli("push", "team/bot:v1", "oci-archive:a.tar", "--store", "store", "--format", "json").json
    assert pushed["reference"] == "oci-archive:a.tar:v1"
    assert cli("ls", "oci-archive:a.tar").out == "v1\n"
    assert cli("inspect", "oci-archive:a.tar", "-q").out.strip() == pushed["digest"]
    assert cli("verify", "oci-archive:a.tar", "--format", "json").json["checked"]["blobs"] == 6
    assert cli("pull", f"oci-archive:a.tar:v1@{pushed['digest']}", "--store", "copy").code == 0
    assert content(tmp_path / "copy") == content(tmp_path / "store")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar", "copy", "store"]
    assert (tmp_path / "a.tar").stat().st_mode & 0o777 == 0o600


def test_the_same_content_makes_the_same_file(cli, bot, tmp_path):
    for name, jobs in (("one.tar", "1"), ("two.tar", "8")):
        assert cli("push", "team/bot:v1", f"oci-archive:{name}", "--store", "store", "--jobs", jobs).code == 0
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    with tarfile.open(tmp_path / "one.tar") as archive:
        items = archive.getmembers()
    assert [item.name for item in items[:4]] == ["oci-layout", "index.json", "blobs", "blobs/sha256"]
    assert [item.name for item in items[4:]] == sorted(item.name for item in items[4:])
    assert {(item.mtime, item.uid, item.gid, item.uname) for item in items} == {(0, 0, 0, "")}


def test_another_snapshot_joins_those_that_are_there(cli, bot, tmp_path):
    put_snapshot(tmp_path / "store", make_snapshot("W2b", tag="v2"))
    assert cli("push", "team/bot:v1", "oci-archive:a.tar", "--store", "store").code == 0
    (tmp_path / "a.tar").chmod(0o640)
    (tmp_path / "link.tar").symlink_to("a.tar")
    more = cli("push", "team/bot:v2", "oci-archive:link.tar", "--store", "store", "--format", "json")
    assert more.json["bytesReused"] > 1_000_000, "the files that both have are there"
    assert cli("ls", "oci-archive:a.tar").out.split() == ["v1", "v2"]
    assert cli("verify", "oci-archive:a.tar").code == 0
    assert (tmp_path / "link.tar").is_symlink() and (tmp_path / "a.tar").stat().st_mode & 0o777 == 0o640
    taken = cli("push", "team/bot:v2", "oci-archive:a.tar:v1", "--store", "store")
    assert (
        taken.code == 9 and cli("push", "team/bot:v2", "oci-archive:a.tar:v1", "--store", "store", "--force").code == 0
    )


def test_what_a_broken_push_had_stored_is_gone_on_with(cli, bot, tmp_path):
    last = tmp_path / "store/blobs/sha256" / sorted(bot.blobs, key=lambda digest: len(bot.blobs[digest]))[0]
    good = last.read_bytes()
    last.write_bytes(b"?" * len(good))
    words = ("push", "team/bot:v1", "oci-archive:a.tar", "--store", "store", "--jobs", "1")
    assert run_cli(*words, cwd=tmp_path).code == 3 and not (tmp_path / "a.tar").exists()
    assert (tmp_path / ".epoch-oci-a.tar").is_dir()
    last.write_bytes(good)
    again = cli(*words, "--format", "json").json
    assert 0 < again["bytesTransferred"] < 10_000 and again["bytesReused"] > 1_000_000
    assert not (tmp_path / ".epoch-oci-a.tar").exists()


def test_what_is_left_beside_an_archive_is_named_and_does_not_get_into_it(cli, bot, tmp_path):
    stray = noise("stray", 5000)
    store = OciArchive(tmp_path / "a.tar")
    store.put(Descriptor(media_type="a/b", digest=Digest.of(stray), size=len(stray)), BytesContent(stray))
    store.close()
    assert cli("push", "team/bot:v1", "oci-archive:a.tar", "--store", "store").code == 0
    assert cli("push", "team/bot:v1", "oci-archive:b.tar", "--store", "store").code == 0
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    ran = cli("verify", "oci-archive:a.tar")
    assert ran.code == 0 and f"{tmp_path}/.epoch-oci-a.tar has what an unfinished push has stored" in ran.out


def test_an_archive_that_cannot_be_written_leaves_the_old_one(cli, bot, tmp_path):
    """A bit that flips on the disk between storing and writing is found by the last reading."""
    assert cli("push", "team/bot:v1", "oci-archive:a.tar", "--store", "store").code == 0
    before = (tmp_path / "a.tar").read_bytes()
    store = OciArchive(tmp_path / "a.tar")
    layout, raw = Layout(), noise("other", 4096)
    manifest = layout.artifact({"memory-ranges": ("application/vnd.cocoon.memory", raw)})
    for digest, blob in layout.blobs.items():
        store.put(Descriptor(media_type="a/b", digest=Digest("sha256", digest), size=len(blob)), BytesContent(blob))
    waiting = tmp_path / ".epoch-oci-a.tar/blobs/sha256" / Digest.of(raw).hex
    flipped = os.stat(waiting)
    waiting.write_bytes(raw[:-1] + b"?")
    os.utime(waiting, ns=(flipped.st_atime_ns, flipped.st_mtime_ns))
    document = store.resolve(manifest["digest"])
    with pytest.raises((ContentError, NotFoundError)):
        store.publish("v2", document)
    assert (tmp_path / "a.tar").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".tmp")] == []


def test_a_full_disk_is_said_before_it_is_filled(tmp_path, monkeypatch):
    store, layout = OciArchive(tmp_path / "a.tar"), layout_of()
    for digest, blob in layout.blobs.items():
        store.put(Descriptor(media_type="a/b", digest=Digest("sha256", digest), size=len(blob)), BytesContent(blob))
    monkeypatch.setattr(local, "free_space", lambda directory, what: 100)
    (listed,) = layout.entries
    document = Document(listed["mediaType"], layout.blobs[listed["digest"].removeprefix("sha256:")])
    with pytest.raises(LocalIOError, match="room for 100"):
        store.publish("v1", document)
    assert not (tmp_path / "a.tar").exists()


def damage(path: Path) -> str:
    """Flip a bit of the largest blob; its name."""
    with tarfile.open(path) as archive:
        member = max(archive.getmembers(), key=lambda member: member.size)
    with path.open("r+b") as file:
        file.seek(member.offset_data + 100)
        old = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([old[0] ^ 1]))
    return member.name.rpartition("/")[2]


def is_sound(path: Path) -> bool:
    """Whether every blob in the archive itself is what its name says."""
    with tarfile.open(path) as archive:
        members = [member for member in archive.getmembers() if member.isreg() and "blobs/sha256/" in member.name]
        return bool(members) and all(
            Digest.of(archive.extractfile(member).read()).hex == member.name.rpartition("/")[2] for member in members
        )


def test_wrong_bytes_of_the_right_size_are_replaced_in_the_archive(cli, bot, tmp_path):
    words = ("push", "team/bot:v1", "oci-archive:a.tar", "--store", "store")
    assert cli(*words).code == 0 and is_sound(tmp_path / "a.tar")
    name = damage(tmp_path / "a.tar")
    ran = cli(*words)
    assert ran.code == 0 and f"{name} in" in ran.err
    assert is_sound(tmp_path / "a.tar") and not list(tmp_path.glob(".epoch-oci*"))
    assert cli("verify", "oci-archive:a.tar").code == 0


def test_what_waits_to_mend_an_archive_does_not_count_as_in_there(cli, bot, tmp_path):
    words = ("push", "team/bot:v1", "oci-archive:a.tar", "--store", "store")
    assert cli(*words).code == 0
    name = damage(tmp_path / "a.tar")
    right = (tmp_path / "store/blobs/sha256" / name).read_bytes()
    target = Descriptor(media_type="a/b", digest=Digest.of(right), size=len(right))
    OciArchive(tmp_path / "a.tar").put(target, BytesContent(right))  # and then this run was killed
    assert not OciArchive(tmp_path / "a.tar").holds(target)
    assert cli(*words).code == 0 and is_sound(tmp_path / "a.tar")


@pytest.mark.parametrize("packing", [gzip.compress, zstd.compress])
def test_a_compressed_archive_is_read_and_not_written_to(cli, bot, tmp_path, packing):
    assert cli("push", "team/bot:v1", "oci-archive:a.tar", "--store", "store").code == 0
    packed = packing((tmp_path / "a.tar").read_bytes())
    (tmp_path / "a.tar.x").write_bytes(packed)
    assert cli("verify", "oci-archive:a.tar.x").code == 0
    assert cli("pull", "oci-archive:a.tar.x:v1", "--store", "copy").code == 0
    for words in (
        ("push", "team/bot:v1", "oci-archive:a.tar.x:v2", "--store", "store"),
        ("tag", "oci-archive:a.tar.x", "v2"),
    ):
        ran = cli(*words)
        assert ran.code == 2 and "is compressed" in ran.error
    assert (tmp_path / "a.tar.x").read_bytes() == packed
    (tmp_path / "a.tar.x").write_bytes(packed[:-20])
    assert cli("verify", "oci-archive:a.tar.x").code == 3


def test_a_plain_archive_is_not_unpacked(cli, tmp_path, monkeypatch):
    layout_of().write(tmp_path / "layout")
    write_tar(tmp_path / "a.tar", layout_of().members())
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))
    before = tree(tmp_path)
    assert cli("verify", "oci-archive:a.tar").code == 0
    assert cli("inspect", "oci-archive:a.tar:v1").code == 0
    assert tree(tmp_path) == before


@pytest.mark.parametrize("prefix", ["", "./"])
def test_archives_of_others(cli, tmp_path, prefix):
    """`tar -C DIR -cf FILE .`, and what `docker save` puts beside the layout."""
    members = {f"{prefix}{name}": raw for name, raw in layout_of().members().items()}
    write_tar(tmp_path / "a.tar", {**members, "manifest.json": b"[]", "repositories": b"{}"})
    assert cli("verify", "oci-archive:a.tar").code == 0
    assert cli("pull", "oci-archive:a.tar", "-o", "files").code == 0
    assert cli("tag", "oci-archive:a.tar:v1", "v2").code == 0
    with tarfile.open(tmp_path / "a.tar") as written:
        kept = {name: written.extractfile(name).read() for name in ("manifest.json", "repositories")}
    assert kept == {"manifest.json": b"[]", "repositories": b"{}"}
    assert cli("verify", "oci-archive:a.tar:v2").code == 0


@pytest.mark.parametrize(
    "words",
    [
        ("push", "team/bot:v1", "oci-archive:mine.tar", "--store", "store"),
        ("push", "team/bot:v1", "oci-archive:mine.tar", "--store", "store", "--force", "--chunked"),
        ("copy", "oci:layout", "oci-archive:mine.tar"),
        ("sync", "store", "oci-archive:mine.tar"),
        ("sync", "store", "oci-archive:mine.tar", "--dry-run"),
    ],
    ids=" ".join,
)
def test_a_tar_of_something_else_is_left_alone(cli, bot, tmp_path, words):
    layout_of().write(tmp_path / "layout")
    write_tar(tmp_path / "mine.tar", {"thesis.tex": b"the only copy"})
    before = tree(tmp_path)
    ran = cli(*words)
    assert ran.code == 9 and "mine.tar is a tar of something else" in ran.error
    assert tree(tmp_path) == before


HOSTILE = {
    "symbolic link": entry(BLOB, b"", tarfile.SYMTYPE, linkname="/etc/passwd"),
    "link": entry(BLOB, b"", tarfile.LNKTYPE, linkname="index.json"),
    "character device": entry(BLOB, b"", tarfile.CHRTYPE),
    "block device": entry(BLOB, b"", tarfile.BLKTYPE),
    "FIFO": entry(BLOB, b"", tarfile.FIFOTYPE),
    "sparse file": entry(BLOB, b"x", pax_headers={"GNU.sparse.map": "0,1", "GNU.sparse.size": "99999999999"}),
    "unknown type": entry(BLOB, b"", b"V"),
    "way up": entry("blobs/sha256/../../../etc/passwd"),
    "way up at the top": entry("../index.json"),
    "absolute": entry("/index.json"),
    "nested": entry("blobs/sha256/x/y"),
    "other folder": entry("rootfs/etc/passwd"),
    "folder": entry("etc", b"", tarfile.DIRTYPE),
    "not hexadecimal": entry("blobs/sha256/nonsense"),
    "upper case": entry("blobs/sha256/" + "AB" * 32),
    "twice": entry("index.json", b"{}"),
    "twice in other words": entry("./index.json", b"{}"),
    "control character": entry("a\x1b[31m"),
    "long name": entry("x" * 2_000_000),
    "long PAX header": entry("x", pax_headers={"comment": "y" * 2_000_000}),
}


@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT], ids=["pax", "gnu"])
def test_hostile_archives(cli, tmp_path, what, form):
    info, raw = HOSTILE[what]
    if form == tarfile.GNU_FORMAT and info.pax_headers:
        pytest.skip("has no PAX headers")
    with_entries(tmp_path / "a.tar", (info, raw), form=form)
    for words in (
        ("verify", "oci-archive:a.tar"),
        ("ls", "oci-archive:a.tar"),
        ("pull", "oci-archive:a.tar", "-o", "f"),
    ):
        ran = cli(*words)
        assert ran.code == 3 and "\x1b" not in ran.err and len(ran.err) < 2000, ran.err
    assert not (tmp_path / "f").exists()


def test_damaged_archives(cli, tmp_path):
    whole = write_tar(tmp_path / "a.tar", layout_of().members()).read_bytes()
    assert cli("verify", "oci-archive:a.tar").code == 0
    negative = bytearray(whole)
    negative[124:136] = b"\xff" * 12  # the size of the first member, in base 256
    for raw in (
        b"",
        b"x",
        whole[:100],
        whole[:700],
        whole[:2000],
        b"\0" * 512 + b"x" * 512,
        b"PK\3\4" + whole,
        negative,
    ):
        (tmp_path / "a.tar").write_bytes(raw)
        ran = cli("verify", "oci-archive:a.tar")
        assert ran.code in (3, 5) and "Traceback" not in ran.err, (raw[:10], ran.err)
    middle = bytearray(whole)
    middle[1024:1026] = b"??"  # a header that is none, and members behind it
    (tmp_path / "a.tar").write_bytes(middle)
    assert cli("verify", "oci-archive:a.tar").code == 3


def test_headers_without_end(cli, tmp_path):
    block = tarfile.TarInfo("x")
    block.type, block.size = tarfile.XHDTYPE, 512
    chain = (block.tobuf() + b"20 comment=yyyyyyyyy\n".ljust(512, b" ")) * 3000
    (tmp_path / "a.tar").write_bytes(chain)
    assert cli("verify", "oci-archive:a.tar").code == 3


def test_an_archive_that_is_no_layout(cli, tmp_path):
    write_tar(tmp_path / "a.tar", {"manifest.json": b"[]"})
    ran = cli("verify", "oci-archive:a.tar")
    assert ran.code == 5 and "has no oci-layout" in ran.error
    assert cli("verify", "oci-archive:nowhere.tar").code == 5
    (tmp_path / "dir").mkdir()
    assert cli("verify", "oci-archive:dir").code == 2


def test_wrong_bytes_in_an_archive(cli, tmp_path):
    layout = layout_of()
    digest = next(iter(layout.blobs))
    layout.blobs[digest] = layout.blobs[digest][:-1] + b"?"
    write_tar(tmp_path / "a.tar", layout.members())
    ran = cli("verify", "oci-archive:a.tar", "--format", "json")
    assert ran.code == 3 and ran.json["findings"][0]["code"] == "DIGEST"
    assert cli("pull", "oci-archive:a.tar", "-o", "files").code == 3


@requires_peer("skopeo")
def test_skopeo_reads_ours_and_its_own_is_read(cli, bot, tmp_path):
    digest = cli("push", "team/bot:v1", "oci-archive:a.tar", "--store", "store", "-q").out.strip()
    raw = run_peer("skopeo", "inspect", "--raw", "oci-archive:a.tar:v1", home=tmp_path, cwd=tmp_path).stdout
    assert str(Digest.of(raw)) == digest
    run_peer("skopeo", "copy", "oci-archive:a.tar:v1", "oci-archive:b.tar:v1", home=tmp_path, cwd=tmp_path)
    run_peer("skopeo", "copy", "oci-archive:a.tar:v1", "oci-archive:c.tar", home=tmp_path, cwd=tmp_path)
    for word, copy in (("oci-archive:b.tar:v1", "b"), ("oci-archive:c.tar", "c")):
        assert cli("inspect", word, "-q").out.strip() == digest
        assert cli("pull", word, "--store", copy, "--as", "team/bot:v1").code == 0
        assert content(tmp_path / copy) == content(tmp_path / "store")


@requires_peer("regctl")
def test_regctl_reads_ours_and_its_own_is_read(cli, bot, tmp_path):
    digest = cli("push", "team/bot:v1", "oci-archive:a.tar", "--store", "store", "-q").out.strip()
    run_peer("regctl", "image", "import", "ocidir://layout:v1", "a.tar", home=tmp_path, cwd=tmp_path)
    assert cli("inspect", "oci:layout:v1", "-q").out.strip() == digest
    run_peer("regctl", "image", "export", "ocidir://layout:v1", "b.tar", home=tmp_path, cwd=tmp_path)
    assert cli("verify", "oci-archive:b.tar").code == 0
    assert cli("inspect", "oci-archive:b.tar", "-q").out.strip() == digest


def test_a_sync_goes_through_an_archive_that_is_written_once(cli, bot, tmp_path, monkeypatch):
    for number in range(5):
        put_snapshot(tmp_path / "store", make_snapshot("W3b", tag=f"v{number}"))
    written: list[bytes] = []
    write = ArchiveBackend._write_archive
    monkeypatch.setattr(ArchiveBackend, "_write_archive", lambda *words: (written.append(words[-1]), write(*words))[1])
    done = cli("sync", "store", "oci-archive:a.tar", "--format", "json")
    assert done.code == 0 and done.json["counts"]["synced"] == 5 and len(written) == 1
    # What they share waits beside the archive only once.
    assert done.json["bytesTransferred"] < 2 * done.json["bytes"]["union"] and done.json["bytes"]["shared"] > 0
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".epoch-oci")] == []
    again = cli("sync", "store", "oci-archive:a.tar", "--format", "json")
    assert again.json["counts"]["there"] == 5 and len(written) == 1
    assert cli("sync", "oci-archive:a.tar", "copy").code == 0
    assert content(tmp_path / "copy") == content(tmp_path / "store")
    assert cli("verify", "oci-archive:a.tar").code == 0
    for number in range(3):
        (tmp_path / "store" / "manifests" / "team" / "bot" / f"v{number}.json").unlink()
    assert cli("sync", "store", "oci-archive:a.tar", "--delete").code == 0 and len(written) == 2
    assert cli("ls", "oci-archive:a.tar").out == "team--bot--v3\nteam--bot--v4\n"
    assert cli("prune", "oci-archive:a.tar", "--keep-last", "1", "--yes").code == 2
    refused = cli("sync", "store", "oci-archive:b.tar", "--workers", "2")
    assert refused.code == 2 and "by one process" in refused.error


def test_a_sync_into_an_archive_that_is_killed_leaves_it_as_it_was_and_is_gone_on_with(cli, tmp_path):
    for number in range(12):
        put_snapshot(tmp_path / "store", small(f"bot{number}", "v1", unique=100_000))
    assert cli("sync", "store", "oci-archive:a.tar", "--include", "bot0:*").code == 0
    before = (tmp_path / "a.tar").read_bytes()
    waiting = tmp_path / ".epoch-oci-a.tar" / "blobs" / "sha256"
    running = start_cli("sync", "store", "oci-archive:a.tar", "--limit-rate", "500K", "--jobs", "1", cwd=tmp_path)
    until(lambda: waiting.is_dir() and sum(path.stat().st_size for path in stored(waiting)) >= 250_000)
    running.kill()
    assert running.wait(60) == -signal.SIGKILL
    assert (tmp_path / "a.tar").read_bytes() == before
    kept = sum(path.stat().st_size for path in stored(waiting))
    done = cli("sync", "store", "oci-archive:a.tar", "--format", "json")
    assert done.code == 0 and done.json["counts"] == {**done.json["counts"], "there": 1, "synced": 11}
    assert done.json["bytesTransferred"] <= 11 * 101_500 - kept
    assert not waiting.exists() and cli("sync", "oci-archive:a.tar", "copy").code == 0
    assert content(tmp_path / "copy") == content(tmp_path / "store")


def stored(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if not path.name.startswith(".")]


def test_tags_are_set_and_taken_away_in_an_archive(cli, bot, tmp_path):
    assert cli("push", "team/bot:v1", "oci-archive:a.tar", "--store", "store").code == 0
    assert cli("tag", "oci-archive:a.tar:v1", "v2").code == 0 and cli("ls", "oci-archive:a.tar").out == "v1\nv2\n"
    assert cli("rm", "oci-archive:a.tar:v1", "--yes").code == 0 and cli("ls", "oci-archive:a.tar").out == "v2\n"
    assert cli("copy", "oci-archive:a.tar:v2", "oci-archive:b.tar").code == 0
    assert cli("verify", "oci-archive:b.tar").code == 0
