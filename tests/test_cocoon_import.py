"""Writing import archives: what Cocoon reads, from every writer's manifest, and never one that only looks whole."""

import io
import json
import os
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from cocoon_world import (
    BLOB_ID,
    DATA,
    Item,
    archive,
    bodies,
    config,
    ends_cleanly,
    entries,
    envelope,
    noise,
    packed,
    read,
    written,
)
from contract.contents import Failing, Raw, Unopenable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from snapshots import WRITERS, make_snapshot

from epoch_oci.cocoon.envelope import Envelope
from epoch_oci.cocoon.epoch_manifest import manifest_of
from epoch_oci.cocoon.import_archive import (
    disk_layers,
    to_descriptor,
    write_cloud_image,
    write_import_archive,
)
from epoch_oci.cocoon.tar import PAX_LIMIT
from epoch_oci.epoch import gojson
from epoch_oci.epoch.manifest import Layer, Manifest
from epoch_oci.epoch.mint import StoredFile
from epoch_oci.epoch.sparse import unpacking
from epoch_oci.errors import ContentError, LocalIOError, NotFoundError, UsageError
from epoch_oci.oci.digest import Digest
from epoch_oci.stores.base import BytesContent, Content

BODY = noise("body", 3000)


def made(kind: str) -> tuple[Manifest, dict[str, bytes]]:
    """A snapshot as writer ``kind`` writes it, and its blobs by file name."""
    snapshot = make_snapshot(kind)
    manifest = Manifest.parse(snapshot.document)
    return manifest, {layer.filename: snapshot.blobs[layer.digest.hex] for layer in manifest.layers}


def test_a_recorded_export_comes_back_byte_for_byte(tmp_path: Path) -> None:
    """Envelope, order, modes, maps: what the recorded writer wrote, but for owner and time."""
    bare = (DATA / "export-0.3.8-bare.tar").read_bytes()
    for name in ("export-0.3.8.tar", "export-0.3.8-bare.tar"):
        found = read((DATA / name).read_bytes(), tmp_path)
        assert written(found.manifest, found.blobs) == bare
    listed = json.loads((DATA / "imported.json").read_bytes())
    assert [entry["name"] for entry in listed] == list(entries(bare))
    for entry in listed:
        assert Digest.of(bodies(bare)[entry["name"]]).hex == entry["stored_sha256"]
        assert entries(bare)[entry["name"]].mode == entry["mode"]
        packed_form = unpacking(entry["pax"] or {}, entry["size"])
        if packed_form is not None:
            runs = [{"o": item.offset, "l": item.length} for item in packed_form.segments]
            assert (entry["runs"] or []) == runs and entry["logical"] == packed_form.logical_size


def test_the_older_envelope_comes_back(tmp_path: Path) -> None:
    found = read((DATA / "export-0.2.6.tar.gz").read_bytes(), tmp_path)
    raw = written(found.manifest, found.blobs)
    assert bodies(raw)["snapshot.json"] == found.document.json()["cocoonEnvelope"].encode()
    assert raw[:2] != b"\x1f\x8b"  # trap 42: raw tar is what Cocoon 0.2.8 and later read


@pytest.mark.parametrize("writer", [kind for kind in WRITERS if kind != "cloud-image"])
def test_from_every_writer(writer: str) -> None:
    """Traps 7 and 9: packed entries where there is a map, whole files elsewhere, mode 0640 where nobody knows it."""
    manifest, blobs = made(writer)
    raw = written(manifest, blobs)
    listed, content = entries(raw), bodies(raw)
    assert list(listed) == ["snapshot.json", *(layer.filename for layer in manifest.layers)]
    value = json.loads(content.pop("snapshot.json"))
    assert value["version"] == 1 and value["config"]["name"] == manifest.name
    assert content == blobs
    for layer in manifest.layers:
        header = manifest.layer_headers.get(layer.filename)
        info = listed[layer.filename]
        assert info.mode == (header.mode if header else 0o640)
        own = {key: text for key, text in info.pax_headers.items() if key.startswith("COCOON")}
        assert own == (dict(header.pax_records) if header else {})
        assert (info.mtime, info.uid, info.gid, info.uname, info.gname) == (0, 0, 0, "", "")
    assert not any(layer.filename in listed for layer in manifest.base_images)
    assert listed["snapshot.json"].mode == 0o644
    assert ends_cleanly(raw)


def test_the_order_is_the_manifests() -> None:
    """Trap 26."""
    value = json.loads(make_snapshot("W3a").raw)
    value["layers"].reverse()
    manifest = Manifest.parse(gojson.dumps(value))
    blobs = made("W3a")[1]
    assert list(entries(written(manifest, blobs)))[1:] == [layer.filename for layer in manifest.layers]


def test_the_name_can_be_another(tmp_path: Path) -> None:
    found = read(archive(Item("a", BODY), head=envelope(config(extra=1))), tmp_path)
    value = json.loads(bodies(written(found.manifest, found.blobs, name="new", description="d"))["snapshot.json"])
    assert value["config"] == {**config(extra=1), "name": "new", "description": "d"}
    with pytest.raises(ContentError):
        written(found.manifest, found.blobs, name="../x")


def test_queue_sizes_and_the_rest_survive(tmp_path: Path) -> None:
    """Traps 30 and 31: what Epoch's own artifacts lose."""
    members = config(queue_size=256, disk_queue_size=1, no_direct_io=True, windows=True, network="n", later={"x": [1]})
    found = read(archive(Item("a", BODY), head=envelope(members)), tmp_path)
    assert bodies(written(found.manifest, found.blobs))["snapshot.json"] == envelope(members)


def test_set_user_id_is_not_handed_on(tmp_path: Path) -> None:
    found = read(archive(Item("a", BODY, mode=0o6755)), tmp_path)
    assert found.manifest.layer_headers["a"].mode == 0o6755
    assert entries(written(found.manifest, found.blobs))["a"].mode == 0o755


def test_only_cocoons_own_records_are_handed_on(tmp_path: Path) -> None:
    pax = {"SCHILY.xattr.security.capability": "x", "COMMENT": "c", "COCOON.other": "o", "mtime": "1.5"}
    found = read(archive(Item("a", BODY, pax=pax)), tmp_path)
    assert found.manifest.layer_headers["a"].pax_records == pax
    info = entries(written(found.manifest, found.blobs))["a"]
    assert info.pax_headers == {"COCOON.other": "o"}


def test_names_longer_than_a_header_has_room_for(tmp_path: Path) -> None:
    name = "x" * 255
    found = read(archive(Item(name, BODY)), tmp_path)
    raw = written(found.manifest, found.blobs)
    assert list(entries(raw)) == ["snapshot.json", name]
    assert read(raw, tmp_path).document.json()["layers"][0]["filename"] == name


class Giant:
    """Content of which only the length is real: zeros."""

    def __init__(self, size: int) -> None:
        self.size = size

    def open(self, start: int = 0, length: int | None = None) -> "Giant":
        return Giant(self.size)

    def __enter__(self) -> "Giant":
        return self

    def __exit__(self, *_: object) -> None: ...

    def read(self, size: int = -1, /) -> bytes:
        count = min(size, self.size)
        self.size -= count
        return bytes(count)


def test_eight_gibibytes_need_a_record_of_their_own() -> None:
    """The size has no room in the header; only the beginning is written here."""
    size = 8 << 30
    file = StoredFile(name="cow.raw", digest=Digest.of(b"x"), size=size)
    manifest = Manifest.parse(manifest_of(Envelope.parse(envelope()), [file]))
    taken = io.BytesIO()

    def write(block: bytes) -> None:
        taken.write(block)
        if taken.tell() > 1 << 16:
            raise LocalIOError("enough")

    with pytest.raises(LocalIOError):
        write_import_archive(manifest, lambda layer: Giant(size), write)
    taken.seek(0)
    with tarfile.open(fileobj=taken, mode="r|") as opened:
        assert [opened.next().size for _ in range(2)] == [len(envelope()), size]


def test_a_map_too_long_for_any_reader() -> None:
    """Trap 12: such a file is unfolded on the way; Cocoon's import makes holes of the zeros again.

    The map alone is just short enough for a manifest, and with the other records too long for an entry.
    """
    runs, size = [(offset << 12, 1) for offset in range(40_000)], (40_000 << 12) + 5
    blob, records = noise("fragments", len(runs)), packed(runs, size)
    records["COCOON.filler"] = "f" * (PAX_LIMIT - 40 - len(records["COCOON.sparse.map"]))
    value = json.loads(make_snapshot("W3b").raw)
    value["layers"] = [{"digest": Digest.of(blob).hex, "size": len(blob), "filename": "memory-ranges"}]
    value["layerHeaders"] = {"memory-ranges": {"paxRecords": records}}
    manifest = Manifest.parse(gojson.dumps(value))
    raw = written(manifest, {"memory-ranges": blob})
    info, body = entries(raw)["memory-ranges"], bodies(raw)["memory-ranges"]
    assert (info.size, info.pax_headers) == (size, {})
    assert bytes(body[offset] for offset, _ in runs) == blob
    assert body.count(b"\x00") == size - len(blob) + blob.count(b"\x00")
    wrong = blob[:-1] + bytes([blob[-1] ^ 1])
    blocks = unfinished(manifest, lambda _: BytesContent(wrong), ContentError)
    assert not ends_cleanly(b"".join(blocks))


def unfinished(manifest: Manifest, contents: Callable[[Layer], Content], error: type[Exception]) -> list[bytes]:
    """What is written until it fails, block by block."""
    blocks: list[bytes] = []
    with pytest.raises(error):
        write_import_archive(manifest, contents, blocks.append)
    return blocks


@pytest.mark.parametrize("victim", ["cidata.img", "config.json", "memory-ranges", "overlay.qcow2", "state.json"])
def test_a_bad_last_byte_never_ends_cleanly(victim: str) -> None:
    """Reliability D7: not one of a hundred."""
    manifest, blobs = made("W3b")
    wrong = dict(blobs)
    wrong[victim] = blobs[victim][:-1] + bytes([blobs[victim][-1] ^ 1])
    for step in (1 << 20, 4096, 512, 511, 100, *range(1000, 1016)):
        blocks = unfinished(manifest, lambda layer, step=step: Raw(wrong[layer.filename], step), ContentError)
        assert not ends_cleanly(b"".join(blocks))


def failing(kind: str, raw: bytes) -> Content:
    kinds = {
        "short": BytesContent(raw[:-1]),
        "long": BytesContent(raw + b"\x00"),
        "empty": BytesContent(b""),
        "gone": Unopenable(len(raw), NotFoundError("gone")),
        "breaks-off": Failing(raw[: len(raw) // 2], NotFoundError("gone")),
        "breaks-off-at-the-end": Failing(raw, NotFoundError("gone")),
    }
    return kinds[kind]


@pytest.mark.parametrize("kind", ["short", "long", "empty", "gone", "breaks-off", "breaks-off-at-the-end"])
def test_whatever_fails_wherever(kind: str) -> None:
    """Every file in turn, between two entries too, with the packed and the empty ones among them."""
    manifest, blobs = made("empty-file")
    for victim in blobs:
        if kind in ("short", "breaks-off") and not blobs[victim]:
            continue
        if kind == "empty" and not blobs[victim]:
            continue

        def contents(layer: Layer, victim: str = victim) -> Content:
            raw = blobs[layer.filename]
            return failing(kind, raw) if layer.filename == victim else BytesContent(raw)

        blocks = unfinished(manifest, contents, (ContentError, NotFoundError))
        assert not ends_cleanly(b"".join(blocks))


def test_killed_between_any_two_writes(tmp_path: Path) -> None:
    """Every write but the last leaves an archive that breaks off; and a short one takes what lies around an end."""
    items = [
        Item("a", BODY[:512]),
        Item("b", b"", pax=packed(None, 1 << 20)),
        Item("c", b""),
        Item("d", b""),
        Item("e", BODY[:1], pax=packed([(5, 1)], 4096)),
        Item("f", BODY),
        Item("g", b""),
    ]
    found = read(archive(*items), tmp_path)
    blocks: list[bytes] = []
    write_import_archive(found.manifest, found.content, blocks.append)
    whole = b"".join(blocks)
    assert bodies(whole) == {"snapshot.json": envelope(), **{item.name: item.raw for item in items}}
    written_so_far, ends = 0, []
    for block in blocks[:-1]:
        crossed = [
            end for end in range(written_so_far, written_so_far + len(block)) if end and ends_cleanly(whole[:end])
        ]
        assert not crossed or len(block) <= 4096  # PIPE_BUF: all of it or nothing
        ends += crossed
        written_so_far += len(block)
        assert not ends_cleanly(whole[:written_so_far])
    # Behind the envelope and every file but the last one, and behind the records of the two packed ones.
    assert len([end for end in ends if end % 512 == 0]) == 1 + 6 + 2


def test_a_pipe_whose_reader_goes_away() -> None:
    manifest, blobs = made("W3b")
    reading, writing = os.pipe()
    thread = threading.Thread(target=lambda: (os.read(reading, 4096), os.close(reading)))
    thread.start()
    try:
        with pytest.raises(LocalIOError, match="closed by its reader"):
            write_import_archive(manifest, lambda layer: BytesContent(blobs[layer.filename]), to_descriptor(writing))
    finally:
        os.close(writing)
        thread.join()


def test_through_a_pipe(tmp_path: Path) -> None:
    manifest, blobs = made("W3b")
    target = tmp_path / "archive.tar"
    with target.open("wb") as file:
        write_import_archive(manifest, lambda layer: BytesContent(blobs[layer.filename]), to_descriptor(file.fileno()))
    assert target.read_bytes() == written(manifest, blobs)


@pytest.mark.skipif(shutil.which("tar") is None, reason="no tar here")
def test_a_stock_tar_lists_it(tmp_path: Path) -> None:
    manifest, blobs = made("W3b")
    done = subprocess.run(
        ["tar", "--warning=no-unknown-keyword", "-tvf", "-"],
        input=written(manifest, blobs),
        capture_output=True,
        env={**os.environ, "LC_ALL": "C", "TZ": "UTC"},
        check=True,
    )
    lines = done.stdout.decode().splitlines()
    assert [line.split()[-1] for line in lines] == ["snapshot.json", *blobs]
    assert [int(line.split()[2]) for line in lines[1:]] == [len(raw) for raw in blobs.values()]
    assert done.stderr == b""


def test_no_archive_of_a_cloud_image() -> None:
    manifest, blobs = made("cloud-image")
    with pytest.raises(UsageError):
        written(manifest, blobs)


def cloud_image(*names: str) -> tuple[Manifest, dict[str, bytes]]:
    blobs = {name: noise(name, 1000 + index) for index, name in enumerate(names)}
    layers = [{"digest": Digest.of(raw).hex, "size": len(raw), "filename": name} for name, raw in blobs.items()]
    value = {"schemaVersion": 1, "name": "win", "tag": "latest", "snapshotId": "", "layers": layers, "totalSize": 0}
    return Manifest.parse(gojson.dumps(value)), blobs


def joined(manifest: Manifest, blobs: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    length = write_cloud_image(manifest, lambda layer: BytesContent(blobs[layer.filename]), stream.write)
    assert length == len(stream.getvalue())
    return stream.getvalue()


def test_the_disk_of_a_cloud_image() -> None:
    """Traps 22 and 25: the parts in the manifest's order, without what only lies beside them."""
    manifest, blobs = cloud_image("d.qcow2.part.2", "SHA256SUMS", "d.qcow2.part.10", "d.qcow2.part.1")
    assert manifest.is_cloud_image
    assert joined(manifest, blobs) == b"".join(raw for name, raw in blobs.items() if name != "SHA256SUMS")
    manifest, blobs = cloud_image("README", "disk.raw")
    assert joined(manifest, blobs) == blobs["disk.raw"]
    manifest, blobs = made("cloud-image")
    assert joined(manifest, blobs) == b"".join(blobs.values())


@pytest.mark.parametrize(
    "names", [("a.qcow2", "b.qcow2"), ("a.qcow2.part.1", "b.qcow2.part.2"), ("a.qcow2", "a.qcow2.part.1")]
)
def test_two_disks_are_not_joined(names: tuple[str, ...]) -> None:
    with pytest.raises(ContentError) as caught:
        disk_layers(cloud_image(*names)[0])
    assert caught.value.code == "TYPE"


def test_a_wrong_part_is_withheld() -> None:
    manifest, blobs = made("cloud-image")
    last = list(blobs)[-1]
    wrong = {**blobs, last: blobs[last][:-1] + bytes([blobs[last][-1] ^ 1])}
    stream = io.BytesIO()
    with pytest.raises(ContentError):
        write_cloud_image(manifest, lambda layer: Raw(wrong[layer.filename], 4096), stream.write)
    assert len(stream.getvalue()) < sum(map(len, blobs.values()))


FILE_NAMES = st.lists(
    st.from_regex(r"[a-z_][a-z0-9._+-]{0,120}[a-z0-9_]", fullmatch=True).filter(
        lambda name: (
            name != "snapshot.json"
            and name.split(".")[0] not in {"con", "prn", "aux", "nul"}
            and not name.startswith(("com", "lpt"))
        )
    ),
    max_size=5,
    unique=True,
)


@st.composite
def items(draw: st.DrawFn) -> list[Item]:
    found = []
    for name in draw(FILE_NAMES):
        mode = draw(st.integers(1, 0o777))
        if draw(st.booleans()):
            found.append(Item(name, draw(st.binary(max_size=2000)), mode))
            continue
        end, runs = 0, []
        for gap, length in draw(st.lists(st.tuples(st.integers(0, 1 << 40), st.integers(0, 700)), max_size=4)):
            runs.append((end + gap, length))
            end += gap + length
        size = end + draw(st.integers(0 if end else 1, 1 << 40))
        raw = draw(st.binary(min_size=sum(length for _, length in runs), max_size=sum(length for _, length in runs)))
        found.append(Item(name, raw, mode, packed(runs or None, size)))
    return found


@settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(items(), st.text(st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters="/."), min_size=1))
def test_there_and_back(tmp_path: Path, made_items: list[Item], name: str) -> None:
    """Archive, manifest and blobs, archive: every file, mode, map and hole, and the envelope's bytes."""
    head = envelope(config(name=name, description=name, **{"x-new": [1, None]}))
    raw = archive(*made_items, head=head)
    found = read(raw, tmp_path)
    again = written(found.manifest, found.blobs)
    assert bodies(again) == bodies(raw) and list(entries(again)) == list(entries(raw))
    for item in made_items:
        info = entries(again)[item.name]
        assert info.mode == item.mode
        assert {key: text for key, text in info.pax_headers.items() if key.startswith("COCOON")} == item.pax
    second = read(again, tmp_path)
    assert second.files == found.files
    assert written(second.manifest, second.blobs) == again
    assert ends_cleanly(again)


def test_base_images_are_left_out_and_pinned() -> None:
    """Trap 15: their names are Cocoon's IDs; an archive has no room for them."""
    manifest, blobs = made("W1")
    raw = written(manifest, blobs)
    assert json.loads(bodies(raw)["snapshot.json"])["config"]["image_blob_ids"] == {BLOB_ID: {}}
    assert all(BLOB_ID not in name for name in entries(raw))
