"""What a Cocoon could not clone is said beforehand."""

import json
from typing import Any

import pytest
from cocoon_world import BLOB_ID, OTHER_BLOB_ID, config
from snapshots import make_snapshot

from epoch_oci.cocoon.compat import clone_warnings, config_layers, outside_paths
from epoch_oci.cocoon.envelope import Envelope
from epoch_oci.cocoon.epoch_manifest import manifest_of
from epoch_oci.epoch import gojson
from epoch_oci.epoch.manifest import LayerHeader, Manifest
from epoch_oci.epoch.mint import StoredFile
from epoch_oci.errors import ContentError
from epoch_oci.oci.digest import Digest

ROOT = "/var/lib/cocoon"
RUN = f"{ROOT}/run/cloudhypervisor/vm1"
DIRECT = ("cocoon.json", "config.json", "cow.raw", "memory-ranges", "state.json")
CLOUD = ("cidata.img", "cocoon.json", "config.json", "memory-ranges", "overlay.qcow2", "state.json")
FIRECRACKER = ("cocoon.json", "cow.raw", "mem", "vmstate")


def snapshot(*names: str, bases: tuple[str, ...] = (), **members: Any) -> Manifest:
    """A snapshot with these files, as an export or a root gives it."""

    def stored(name: str) -> StoredFile:
        return StoredFile(name=name, digest=Digest.of(name.encode()), size=len(name), header=LayerHeader(0o644, {}))

    envelope = Envelope.mint(config(**members))
    bases_found = [stored(name) for name in bases]
    return Manifest.parse(manifest_of(envelope, [stored(name) for name in names], base_images=bases_found))


def test_whole_snapshots_are_not_complained_about() -> None:
    """Every genuine layout that Cocoon 0.3.8 writes."""
    base = f"{BLOB_ID}.qcow2"
    assert clone_warnings(snapshot(*CLOUD, bases=(base,), image_blob_ids={BLOB_ID: {}})) == []
    assert clone_warnings(snapshot(*DIRECT)) == []
    assert clone_warnings(snapshot(*FIRECRACKER, hypervisor="firecracker")) == []


def test_no_sidecar() -> None:
    """Trap 43."""
    without = [tuple(name for name in names if name != "cocoon.json") for names in (CLOUD, DIRECT, FIRECRACKER)]
    base = {"bases": (f"{BLOB_ID}.qcow2",), "image_blob_ids": {BLOB_ID: {}}}
    [cloud] = clone_warnings(snapshot(*without[0], **base))
    [direct] = clone_warnings(snapshot(*without[1]))
    [firecracker] = clone_warnings(snapshot(*without[2]))
    assert "Cocoon 0.3.8 and later cannot clone it" in cloud and cloud == direct
    assert "Firecracker" in firecracker


def test_base_images() -> None:
    """Traps 14, 15, 17 and 19."""
    base = f"{BLOB_ID}.qcow2"
    ids = {"image_blob_ids": {BLOB_ID: {}, OTHER_BLOB_ID: {}}}
    [absent] = clone_warnings(snapshot(*CLOUD, bases=(base,), **ids))
    assert OTHER_BLOB_ID in absent and BLOB_ID not in absent
    [both] = clone_warnings(snapshot(*CLOUD, **ids))
    assert BLOB_ID in both and OTHER_BLOB_ID in both
    [unnamed] = clone_warnings(snapshot(*CLOUD))
    assert "neither carries nor names" in unnamed
    [oci] = clone_warnings(snapshot(*DIRECT, **ids))
    assert "OCI image" in oci
    whole = snapshot(*CLOUD, bases=(base,), image_blob_ids={BLOB_ID: {}})
    [archived] = clone_warnings(whole, with_base_images=False)
    assert "not part of the archive" in archived and base in archived


@pytest.mark.parametrize(("kind", "count"), [("W1", 1), ("W2a", 2), ("W2b", 2), ("W3a", 1), ("W3b", 1)])
def test_snapshots_of_every_writer(kind: str, count: int) -> None:
    """All of them are older than the sidecar."""
    found = clone_warnings(Manifest.parse(make_snapshot(kind).document))
    assert len(found) == count and "cocoon.json" in found[0]


def test_a_disk_without_its_map() -> None:
    """Trap 8."""
    [warning] = clone_warnings(snapshot(*DIRECT, storage=1 << 30))
    assert "sparse map was lost" in warning


CONFIGS = {
    "own": ({"disks": [{"path": f"{RUN}/cow.raw"}, {"path": f"{ROOT}/oci/blobs/{BLOB_ID}.erofs"}]}, []),
    "elsewhere": ({"disks": [{"path": "/data01/cocoon/run/cow.raw"}]}, ["/data01/cocoon/run/cow.raw"]),
    "host-file": ({"payload": {"kernel": "/etc/shadow", "cmdline": "root=/dev/vda /init x"}}, ["/etc/shadow"]),
    "neighbour": ({"a": [[{"b": f"{ROOT}-evil/x"}]]}, [f"{ROOT}-evil/x"]),
    "system": ({"serial": {"file": "/dev/null"}, "vsock": {"socket": "/run/x.sock"}, "t": "/proc/1/fd/0"}, []),
    "dots": (
        {"a": f"{ROOT}/../x", "b": "/dev/../etc/x", "c": f"{RUN}/../vm2/cow.raw"},
        ["/dev/../etc/x", f"{ROOT}/../x"],
    ),
    "relative": ({"a": "cow.raw", "b": "../x", "c": 5, "d": None, "e": True}, []),
    "twice": ({"a": "/x/1", "b": "/x/1"}, ["/x/1"]),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_paths_that_lead_out(kind: str) -> None:
    """Trap 44."""
    value, outside = CONFIGS[kind]
    raw = json.dumps(value).encode()
    assert outside_paths(raw, ROOT, "config.json") == outside
    assert outside_paths(raw, ROOT + "/", "config.json") == outside
    found = clone_warnings(snapshot(*DIRECT), {"config.json": raw}, root=ROOT)
    assert len(found) == bool(outside)
    assert all(path in found[0] for path in outside)


def test_another_root_directory() -> None:
    raw = json.dumps({"path": f"{RUN}/cow.raw"}).encode()
    assert clone_warnings(snapshot(*DIRECT), {"cocoon.json": raw}) == []
    [warning] = clone_warnings(snapshot(*DIRECT), {"cocoon.json": raw}, root="/data01/cocoon")
    assert "cocoon.json names files outside /data01/cocoon" in warning


def test_configurations_that_cannot_be_read() -> None:
    for raw in (b"{", b"\xff", b'{"a":1,"a":2}', b"[" * 100):
        [warning] = clone_warnings(snapshot(*DIRECT), {"config.json": raw})
        assert "not looked at" in warning
        with pytest.raises(ContentError):
            outside_paths(raw, ROOT, "config.json")


def test_many_paths_are_cut_short_and_safe_to_show() -> None:
    raw = json.dumps([f"/x/{index}\x1b" for index in range(100)]).encode()
    [warning] = clone_warnings(snapshot(*DIRECT), {"state.json": raw})
    assert "and 95 more" in warning and "\x1b" not in warning and len(warning) < 500


def test_a_windows_guest() -> None:
    """Trap 30: `windows` is what the clone is booted by, and an Epoch manifest never had it."""
    contents = {"config.json": json.dumps({"cpus": {"kvm_hyperv": True}}).encode()}
    assert clone_warnings(snapshot(*DIRECT, windows=True), contents) == []
    [warning] = clone_warnings(snapshot(*DIRECT), contents)
    assert "Windows" in warning
    old = Manifest.parse(make_snapshot("W3b").document)
    assert any("does not say so" in text for text in clone_warnings(old, contents))
    assert clone_warnings(snapshot(*DIRECT), {"config.json": b"[]"}) == []


def test_cloud_images() -> None:
    """Traps 22 and 28."""
    assert clone_warnings(Manifest.parse(make_snapshot("cloud-image").document)) == []
    value = json.loads(make_snapshot("cloud-image").raw)
    value["layers"].reverse()
    [order] = clone_warnings(Manifest.parse(gojson.dumps(value)))
    assert "order" in order
    value["layers"] = [{**value["layers"][0], "filename": "disk.raw"}]
    [raw] = clone_warnings(Manifest.parse(gojson.dumps(value)))
    assert "qcow2 only" in raw


def test_which_files_to_look_into() -> None:
    manifest = snapshot(*CLOUD)
    assert [layer.filename for layer in config_layers(manifest)] == ["cocoon.json", "config.json", "state.json"]
    value = manifest.document.json()
    for layer in value["layers"]:
        if layer["filename"] == "state.json":
            layer["size"] = 5 << 20
    value["layerHeaders"]["config.json"]["paxRecords"] = {"COCOON.sparse.map": "null", "COCOON.sparse.size": "5"}
    for layer in value["layers"]:
        if layer["filename"] == "config.json":
            layer.update(size=0, digest=Digest.of(b"").hex)
    found = config_layers(Manifest.parse(gojson.dumps(value)))
    assert [layer.filename for layer in found] == ["cocoon.json"]
