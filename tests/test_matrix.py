"""Every place a snapshot can be, to every place it can go: what docs/matrix.md says, tried cell by cell."""

import functools
import io
import json
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cli_runner import Here, Ran, run_cli, start_cli
from cocoon_world import BLOB_ID, DATA, ID, base_image, make_root, record, write_sparse
from cocoonstack_artifacts import CONFIG, SNAPSHOT, Packed, encoded_artifact
from matrix import ROWS, TARGETS, Outcome, page
from object_stores import Bucket
from snapshots import Made, make_snapshot, noise, put_snapshot
from support import s3
from support.legacy_epoch import LegacyEpoch

from epoch_oci.dialects.cocoonstack.vocabulary import layer_type_for_file
from epoch_oci.epoch.keys import blob_key, manifest_key
from epoch_oci.epoch.manifest import Manifest, media_type_for_file
from epoch_oci.epoch.sparse import unpacking
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.document import Document
from epoch_oci.oci.media_types import EMPTY, MANIFEST
from epoch_oci.stores.base import BytesContent
from epoch_oci.stores.oci_layout import OciLayout

CELLS = [
    (row.source, target, outcome)
    for row in ROWS
    for target, outcome in zip(TARGETS, row.outcomes, strict=True)
    if outcome != "none"
]
TITLE = "org.opencontainers.image.title"
LOSSY = ("--dialect", "cocoonstack", "--allow-loss")


@dataclass
class Origin:
    """A snapshot at its source: how to name it, what it holds file by file, and its Epoch manifest if it has one.

    `store` is what `--store` is, None for an artifact. `base` are the names of base images among the files.
    """

    name: str
    files: Mapping[str, bytes]
    store: str | None = None
    raw: bytes | None = None
    base: frozenset[str] = frozenset()
    stdin: bytes = b""
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass
class World:
    """A directory to work in, and servers as they are needed."""

    path: Path
    registry: Callable[[], str]
    bucket: Callable[[], Bucket]
    server: Callable[[], LegacyEpoch]
    here: Here
    env: dict[str, str] = field(default_factory=dict)

    def run(self, *words: object, stdin: bytes = b"") -> Ran:
        """A command, in the world's directory; 0, or 2 for what makes no sense."""
        env = {**self.env, "TMPDIR": str(self.path)}
        done = run_cli(*words, cwd=self.path, env=env, input=stdin) if stdin else self.here(*words, env=env)
        assert done.code in (0, 2), done.err
        return done

    def ok(self, *words: object, stdin: bytes = b"") -> None:
        done = self.run(*words, stdin=stdin)
        assert done.code == 0, done.err


@pytest.fixture
def world(tmp_path: Path, fake_registry, request, capsys, monkeypatch) -> World:
    monkeypatch.chdir(tmp_path)

    @functools.cache
    def bucket() -> Bucket:
        made = Bucket(dict(s3.shared_servers())["moto"]())
        found.env.update(made.server.environ(made.name))
        return made

    @functools.cache
    def server() -> LegacyEpoch:
        made = LegacyEpoch().__enter__()
        request.addfinalizer(lambda: made.__exit__(None, None, None))
        return made

    found = World(tmp_path, functools.cache(lambda: fake_registry().address), bucket, server, Here(capsys))
    return found


# Sources


def logical(made: Made) -> dict[str, bytes]:
    """The files of an Epoch snapshot, holes and all."""
    manifest, files = Manifest.parse(made.document), {}
    for layer in (*manifest.layers, *manifest.base_images):
        raw, header = made.blobs[layer.digest.hex], manifest.layer_headers.get(layer.filename)
        shape = unpacking(header.pax_records, layer.size) if header else None
        files[layer.filename] = raw if shape is None else spread(raw, shape.logical_size, shape.segments)
    return files


def spread(raw: bytes, size: int, segments) -> bytes:
    whole, at = bytearray(size), 0
    for run in segments:
        whole[run.offset : run.offset + run.length] = raw[at : at + run.length]
        at += run.length
    return bytes(whole)


def of_epoch(kind: str = "W3b", **where: object) -> tuple[Made, Origin]:
    made = make_snapshot(kind)
    base = frozenset(layer.filename for layer in Manifest.parse(made.document).base_images)
    return made, Origin(str(made.key), logical(made), raw=made.raw, base=base, **where)


def directory(world: World) -> Origin:
    made, origin = of_epoch(store="from")
    put_snapshot(world.path / "from", made)
    return origin


def image(world: World) -> Origin:
    made, origin = of_epoch("cloud-image", store="from")
    put_snapshot(world.path / "from", made)
    return origin


def bucket(world: World) -> Origin:
    made, origin = of_epoch(store=f"s3://{world.bucket().name}/from")
    for digits, raw in made.blobs.items():
        world.bucket().put("from/" + blob_key(Digest("sha256", digits)), raw)
    world.bucket().put("from/" + manifest_key(made.key), made.raw)
    return origin


def server(world: World) -> Origin:
    made, origin = of_epoch(store=f"epoch+http://{world.server().address}")
    for raw in made.blobs.values():
        world.server().put_blob(raw)
    world.server().put_manifest(made.key.name, made.key.tag, made.raw)
    return origin


def cocoon(world: World) -> Origin:
    root = make_root(world.path / "node")
    folder = root.data(ID)
    folder.mkdir(mode=0o750)
    (folder / "config.json").write_bytes(b'{"cpus":{"boot_vcpus":2}}')
    (folder / "state.json").write_bytes(b'{"s":1}' * 100)
    (folder / "empty.bin").write_bytes(b"")
    write_sparse(folder / "memory-ranges", 1 << 20, {0: noise("m0", 8192), 1 << 16: noise("m1", 4096)})
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    name = f"{BLOB_ID}.qcow2"
    files[name] = base_image(root)
    root.write_index({ID: record(name="bot:v1", image_blob_ids={BLOB_ID: {}})})
    return Origin("bot:v1", files, store="cocoon:node", base=frozenset({name}))


def archive(world: World) -> Origin:
    raw = (DATA / "export-0.3.8.tar").read_bytes()
    return Origin("-", of_archive(raw), stdin=raw)


def artifact(world: World) -> Origin:
    origin = directory(world)
    world.ok("push", origin.name, "oci:made:v1", "--store", "from")
    return Origin("oci:made:v1", origin.files, raw=origin.raw, base=origin.base)


def parts(world: World) -> Origin:
    origin = directory(world)
    target = f"{world.registry()}/acme/cut:v1"
    world.ok("push", origin.name, target, "--store", "from", "--part-size", "256KiB")
    return Origin(target, origin.files, raw=origin.raw, base=origin.base)


def chunks(world: World) -> Origin:
    origin = directory(world)
    target = f"{world.registry()}/acme/chunked:v1"
    world.ok("push", origin.name, target, "--store", "from", "--chunked")
    return Origin(target, origin.files, raw=origin.raw, base=origin.base)


PLAIN = {"config.json": b'{"cpus":{"boot_vcpus":2}}', "cow.raw": noise("cow", 90_000), "state.json": b'{"s":1}' * 90}


def modern(world: World) -> Origin:
    """As Epoch 0.2 publishes: the files as layers, and a config that says more of each."""
    layers = [row(name, layer_type_for_file(name), raw) for name, raw in PLAIN.items()]
    config = {
        "schemaVersion": "v1",
        "snapshotId": "9f3c1a7be20d4c55",
        "cpu": 2,
        "createdAt": "2026-07-20T08:30:00Z",
        "files": {name: {"mode": 0o640} for name in PLAIN},
    }
    return published(world, layers, PLAIN, Document(CONFIG, json.dumps(config).encode()), SNAPSHOT)


def encoded(world: World) -> Origin:
    zstd = pytest.importorskip("backports.zstd")
    files = {name: Packed(raw, (zstd.compress(raw),)) for name, raw in PLAIN.items()}
    encoded_artifact(files, createdAt="2026-07-20T08:30:00Z").publish(OciLayout(world.path / "made"))
    return Origin("oci:made:v1", PLAIN)


def foreign(world: World) -> Origin:
    layers = [row(name, media_type_for_file(name), raw) for name, raw in PLAIN.items()]
    return published(world, layers, PLAIN, Document(EMPTY, b"{}"), "application/vnd.unknown.artifact.v1")


def described(raw: bytes, media_type: str = "application/octet-stream") -> Descriptor:
    return Descriptor(media_type=media_type, digest=Digest.of(raw), size=len(raw))


def row(name: str, media_type: str, raw: bytes) -> dict:
    return {**described(raw, media_type).to_json(), "annotations": {TITLE: name}}


def published(world: World, layers: list[dict], files: Mapping[str, bytes], config: Document, kind: str) -> Origin:
    value = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": kind,
        "config": config.descriptor.to_json(),
        "layers": layers,
        "annotations": {"org.opencontainers.image.created": "2026-07-20T08:30:00Z"},
    }
    layout = OciLayout(world.path / "made")
    for raw in (config.raw, *files.values()):
        layout.put(described(raw), BytesContent(raw))
    layout.publish("v1", Document(MANIFEST, json.dumps(value).encode()))
    return Origin("oci:made:v1", files)


# Ways


def to_artifact(world: World, origin: Origin, target: str, *more: str) -> Ran:
    """Into an artifact: by a push, after a pull into a directory where the source is one itself."""
    if origin.store is None and origin.name != "-":
        world.ok("pull", origin.name, "--store", "between", "--as", "team/bot:v1")
        return world.run("push", "team/bot:v1", target, "--store", "between", *more)
    where = ("--store", origin.store) if origin.store else ()
    return world.run("push", origin.name, target, *where, *more, stdin=origin.stdin)


def as_artifact(world: World, origin: Origin) -> str:
    """The source as an artifact, which is what pull takes."""
    if origin.store is None and origin.name != "-":
        return origin.name
    assert to_artifact(world, origin, "oci:way:v1").code == 0
    return "oci:way:v1"


def files_of(world: World, reference: str) -> dict[str, bytes]:
    world.ok("pull", reference, "-o", "seen")
    return {path.name: path.read_bytes() for path in (world.path / "seen").iterdir()}


def document_of(world: World, reference: str) -> bytes:
    world.ok("pull", reference, "--store", "again", "--as", "team/bot:v1")
    return (world.path / "again/manifests/team/bot/v1.json").read_bytes()


def of_archive(raw: bytes) -> dict[str, bytes]:
    files = {}
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        for entry in tar:
            body = tar.extractfile(entry)
            assert body is not None
            shape = unpacking(entry.pax_headers, entry.size)
            content = body.read()
            files[entry.name] = content if shape is None else spread(content, shape.logical_size, shape.segments)
    files.pop("snapshot.json", None)
    return files


def of_root(path: Path) -> dict[str, bytes]:
    found = [*path.glob("snapshot/localfile/*/*"), *path.glob("cloudimg/blobs/*")]
    return {item.name: item.read_bytes() for item in found}


def synced(world: World, origin: Origin, target: str) -> str:
    """All of the source in one go; the one snapshot that is at the target then, named if nothing else names it."""
    source = origin.store or origin.name.rpartition(":")[0]
    there = f"{world.registry()}/synced" if target == "sync-registry" else "synced"
    world.ok("sync", source, there, "--rename", "^:=bot:")
    if target == "sync-directory":
        found = world.run("ls", there, "--format", "json").json["snapshots"]
        return f"{found[0]['name']}:{found[0]['tag']}"
    names = world.run("ls", world.registry(), "--format", "json").json["repositories"]
    name = next(name for name in names if name.startswith("synced"))
    return f"{world.registry()}/{name}:v1"


def gone(world: World, origin: Origin, target: str) -> tuple[dict[str, bytes] | None, bytes | None]:
    """The files that are at the target, and the Epoch manifest that is. None for both when it was refused."""
    if target == "copy":
        world.ok("copy", origin.name, f"{world.registry()}/copied:v1")
        return files_of(world, f"{world.registry()}/copied:v1"), document_of(world, f"{world.registry()}/copied:v1")
    if target == "sync-registry":
        reference = synced(world, origin, target)
        return files_of(world, reference), document_of(world, reference)
    if target == "sync-directory":
        key = synced(world, origin, target)
        world.ok("push", key, "oci:seen-again:v1", "--store", "synced")
        path = world.path / "synced/manifests" / (key.replace(":", "/") + ".json")
        return files_of(world, "oci:seen-again:v1"), path.read_bytes()
    if target in ("registry", "layout", "modern-registry", "modern-layout"):
        there = f"{world.registry()}/acme/bot:v1" if "registry" in target else "oci:target:v1"
        done = to_artifact(world, origin, there, *(LOSSY if target.startswith("modern") else ()))
        if done.code != 0:
            return None, None
        given_up = target.startswith("modern") and origin.base  # so that no store can have it again
        return files_of(world, there), None if given_up else document_of(world, there)
    reference = as_artifact(world, origin)
    if target == "files":
        return files_of(world, reference), None
    if target == "pipe":
        return piped(world, reference), None
    if target == "cocoon":
        make_root(world.path / "other")
        done = world.run("pull", reference, "--store", "cocoon:other", "--as", "bot:v1")
        return (of_root(world.path / "other"), None) if done.code == 0 else (None, None)
    store = f"s3://{world.bucket().name}/to" if target == "bucket" else "to"
    world.ok("pull", reference, "--store", store, "--as", "team/bot:v1")
    world.ok("push", "team/bot:v1", "oci:seen-again:v1", "--store", store)
    raw = world.bucket().get("to/manifests/team/bot/v1.json") if target == "bucket" else None
    return files_of(world, "oci:seen-again:v1"), raw or (world.path / "to/manifests/team/bot/v1.json").read_bytes()


def piped(world: World, reference: str) -> dict[str, bytes]:
    child = start_cli("pull", reference, "-o", "-", cwd=world.path, env=world.env)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 0, err
    return {"": out} if out[257:262] != b"ustar" else of_archive(out)


def outcome_of(origin: Origin, files: dict[str, bytes] | None, raw: bytes | None) -> Outcome | None:
    if files is None:
        return "refused"
    if files == {"": b"".join(origin.files.values())}:
        return "disk"
    if files == {name: body for name, body in origin.files.items() if name not in origin.base} and origin.base:
        return "no base"
    if files != origin.files:
        return None
    return "exact" if raw is not None and raw == origin.raw else "whole"


@pytest.mark.parametrize(("source", "target", "outcome"), CELLS, ids=[f"{cell[0]}-{cell[1]}" for cell in CELLS])
def test_cell(world: World, source: str, target: str, outcome: Outcome) -> None:
    origin = globals()[source](world)
    files, raw = gone(world, origin, target)
    assert outcome_of(origin, files, raw) == outcome, sorted(files or ())


def test_the_page_is_of_these_cells() -> None:
    assert (Path(__file__).parents[1] / "docs/matrix.md").read_text() == page()
