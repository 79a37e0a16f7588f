"""An OCI image layout: as the specification has it, shared with other writers, and read by foreign clients."""

import errno
import hashlib
import json
import os
import pickle
from pathlib import Path

import pytest
from contract.cases import CONFIG, plant, tree
from contract.contents import Raw
from disks import CALLS, OBSTACLES, FailingCall, drafts, put_in_the_way
from support.content import INDEX, MANIFEST, digest_of, index, manifest, noise
from support.live import LiveRegistry
from support.peers import requires_peer, run_peer
from support.waiting import at_once

from epoch_oci import schemas
from epoch_oci.errors import ConflictError, ContentError, LocalIOError, NotFoundError, UsageError
from epoch_oci.oci import media_types
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.document import MANIFEST_LIMIT, Document
from epoch_oci.stores.base import ArtifactStore, Auditor, Sink, Source
from epoch_oci.stores.oci_layout import OciLayout

BLOB = noise(50_000, seed=6)
TYPE = "application/vnd.example.thing.v1+json"


def descriptor(content: bytes) -> Descriptor:
    return Descriptor(media_type="application/octet-stream", digest=Digest.of(content), size=len(content))


def artifact(*blobs: bytes, note: str = "x") -> Document:
    raw = manifest(blobs, config=CONFIG, artifactType=TYPE, annotations={"note": note})
    return Document(media_types.MANIFEST, raw)


def fill(layout: OciLayout, tag: str, *blobs: bytes, note: str = "x", replace: bool = False) -> Document:
    for part in (CONFIG, *blobs):
        layout.put(descriptor(part), Raw(part))
    made = artifact(*blobs, note=note)
    layout.publish(tag, made, replace=replace)
    return made


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "layout"


@pytest.fixture
def layout(root: Path) -> OciLayout:
    return OciLayout(root)


def read_index(root: Path) -> dict:
    return json.loads((root / "index.json").read_bytes())


def write_index(root: Path, *entries: dict, **members: object) -> None:
    root.mkdir(exist_ok=True)
    (root / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (root / "index.json").write_bytes(index(entries, **members))


def entry(raw: bytes, tag: str | None = None, media_type: str = MANIFEST, **members: object) -> dict:
    notes = {} if tag is None else {"annotations": {media_types.REF_NAME: tag}}
    return {"mediaType": media_type, "digest": digest_of(raw), "size": len(raw), **notes, **members}


def test_it_is_what_the_ports_ask_for(layout: OciLayout) -> None:
    source: Source = layout
    sink: Sink = layout
    assert source is sink
    assert isinstance(layout, ArtifactStore)
    assert isinstance(layout, Auditor)


def test_it_can_be_sent_to_other_processes(layout: OciLayout) -> None:
    made = fill(layout, "v1", BLOB)
    assert pickle.loads(pickle.dumps(layout)).resolve("v1").raw == made.raw


class TestForm:
    def test_is_the_specifications(self, layout: OciLayout, root: Path) -> None:
        made = fill(layout, "v1", BLOB, b"")
        names = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
        stored = [CONFIG, BLOB, b"", made.raw]
        assert names == {"oci-layout", "index.json"} | {
            f"blobs/sha256/{hashlib.sha256(raw).hexdigest()}" for raw in stored
        }
        schemas.check(Document("application/json", (root / "oci-layout").read_bytes()), "oci-layout.v1", "oci-layout")
        schemas.check(
            Document("application/json", (root / "index.json").read_bytes()), "oci-image-index.v1", "index.json"
        )
        assert read_index(root) == {
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": [entry(made.raw, "v1", artifactType=TYPE)],
        }

    def test_is_legal_as_soon_as_a_blob_is_there(self, layout: OciLayout, root: Path) -> None:
        layout.put(descriptor(BLOB), Raw(BLOB))
        schemas.check(Document("application/json", (root / "oci-layout").read_bytes()), "oci-layout.v1", "oci-layout")
        assert read_index(root)["manifests"] == []
        assert list(layout.tags()) == []

    def test_has_many_tags_over_shared_blobs(self, layout: OciLayout, root: Path) -> None:
        """More than the 256 entries that an index in a registry may have."""
        for part in (CONFIG, BLOB):
            layout.put(descriptor(part), Raw(part))
        made = [artifact(BLOB, note=str(number)) for number in range(3)]
        write_index(root, *[entry(made[0].raw, f"t{number}") for number in range(300)])
        layout.put(made[0].descriptor, Raw(made[0].raw))
        for number, each in enumerate(made):
            layout.publish(f"v{number}", each)
        assert len(list(layout.tags())) == 303
        assert layout.resolve("t299").raw == made[0].raw
        assert layout.resolve("v2").raw == made[2].raw
        assert len(list((root / "blobs/sha256").iterdir())) == 5

    def test_takes_sha512(self, layout: OciLayout, root: Path) -> None:
        target = Descriptor(media_type="a/b", digest=Digest("sha512", hashlib.sha512(BLOB).hexdigest()), size=len(BLOB))
        layout.put(target, Raw(BLOB))
        assert layout.has(target)
        assert (root / "blobs/sha512" / hashlib.sha512(BLOB).hexdigest()).read_bytes() == BLOB
        with pytest.raises(ContentError):
            layout.put(target, Raw(BLOB[:-1] + b"?"))

    def test_an_index_of_indexes_is_published_too(self, layout: OciLayout) -> None:
        made = fill(layout, "v1", BLOB)
        outer = Document(media_types.INDEX, index([entry(made.raw)]))
        layout.publish("all", outer)
        assert layout.resolve("all").media_type == INDEX
        lost = Document(media_types.INDEX, index([entry(b"nowhere")]))
        with pytest.raises(NotFoundError):
            layout.publish("lost", lost)


class TestIndex:
    def test_of_others_is_kept(self, layout: OciLayout, root: Path) -> None:
        foreign = [
            entry(b"a", "theirs", annotations={media_types.REF_NAME: "theirs", "k": "v"}, platform={"os": "linux"}),
            entry(
                b"b", media_type="application/vnd.example.other", urls=["https://example.com/b"], x={"y": [1.50, None]}
            ),
            entry(b"c", "docker.io/library/c:latest"),
        ]
        write_index(root, *foreign, annotations={"who": "they"}, unknown={"deep": [True]})
        made = fill(layout, "v1", BLOB)
        value = read_index(root)
        assert value["manifests"] == [*foreign, entry(made.raw, "v1", artifactType=TYPE)]
        assert value["annotations"] == {"who": "they"}
        assert value["unknown"] == {"deep": [True]}
        assert list(layout.tags()) == ["latest", "theirs", "v1"]

    def test_keeps_the_place_of_a_tag_that_is_replaced(self, layout: OciLayout, root: Path) -> None:
        documents = {tag: fill(layout, tag, BLOB, note=tag) for tag in ("a", "b", "c")}
        new = fill(layout, "b", BLOB, note="new", replace=True)
        assert [item["digest"] for item in read_index(root)["manifests"]] == [
            str(documents["a"].digest),
            str(new.digest),
            str(documents["c"].digest),
        ]
        assert layout.resolve(str(documents["b"].digest)).raw == documents["b"].raw

    def test_adds_a_tag_to_what_has_another_or_none(self, layout: OciLayout, root: Path) -> None:
        made = fill(layout, "v1", BLOB)
        write_index(root, entry(made.raw))
        layout.publish("v1", made)
        layout.publish("v2", made)
        assert [item.get("annotations") for item in read_index(root)["manifests"]] == [
            None,
            {media_types.REF_NAME: "v1"},
            {media_types.REF_NAME: "v2"},
        ]

    def test_with_null_for_manifests_has_none(self, layout: OciLayout, root: Path) -> None:
        write_index(root)
        (root / "index.json").write_text('{"schemaVersion":2,"manifests":null}')
        assert list(layout.tags()) == []
        made = fill(layout, "v1", BLOB)
        assert layout.resolve("v1").raw == made.raw

    def test_with_one_tag_twice_is_refused_where_it_matters(self, layout: OciLayout, root: Path) -> None:
        one, two = fill(layout, "x", BLOB, note="1"), fill(layout, "y", BLOB, note="2")
        write_index(root, entry(one.raw, "v1"), entry(two.raw, "v1"), entry(two.raw, "v2"))
        before = tree(root)
        for call in (lambda: layout.resolve("v1"), lambda: layout.publish("v1", one, replace=True)):
            with pytest.raises(ContentError) as caught:
                call()
            assert '"v1"' in str(caught.value)
        assert tree(root) == before
        assert layout.resolve("v2").raw == two.raw
        assert list(layout.tags()) == ["v1", "v2"]
        assert layout.resolve(str(one.digest)).raw == one.raw

    @pytest.mark.parametrize(
        "raw",
        [
            b"",
            b"[]",
            b'{"schemaVersion":1,"manifests":[]}',
            b'{"schemaVersion":true,"manifests":[]}',
            b'{"schemaVersion":2,"manifests":{}}',
            b'{"schemaVersion":2,"manifests":[{}]}',
            b'{"schemaVersion":2,"manifests":[],"Manifests":[]}',
            b'{"schemaVersion":2,"manifests":[],"manifests":[]}',
            b'{"schemaVersion":2,"mediaType":"application/json","manifests":[]}',
        ],
    )
    def test_that_is_damaged_is_refused_and_left(self, layout: OciLayout, root: Path, raw: bytes) -> None:
        made = fill(layout, "v1", BLOB)
        (root / "index.json").write_bytes(raw)
        before = tree(root)
        new = artifact(BLOB, note="new")
        for call in (
            lambda: layout.resolve("v1"),
            lambda: list(layout.tags()),
            layout.sole_entry,
            lambda: layout.publish("v1", made),
            lambda: layout.publish("v2", new, replace=True),
        ):
            with pytest.raises(ContentError):
                call()
        assert tree(root) == before
        assert next(item.severity for item in layout.audit()) == "error"

    def test_with_a_number_that_cannot_be_written_again_is_left(self, layout: OciLayout, root: Path) -> None:
        fill(layout, "v1", BLOB)
        (root / "index.json").write_bytes(b'{"schemaVersion":2,"manifests":[],"x":1e999}')
        before = tree(root)
        with pytest.raises(ContentError):
            layout.publish("v2", artifact(BLOB))
        assert tree(root) == before

    def test_has_a_largest_size(self, layout: OciLayout, root: Path) -> None:
        fill(layout, "v1", BLOB)
        text = (root / "index.json").read_bytes()
        (root / "index.json").write_bytes(text + b" " * (MANIFEST_LIMIT - len(text)))
        assert list(layout.tags()) == ["v1"]
        (root / "index.json").write_bytes(text + b" " * (MANIFEST_LIMIT - len(text) + 1))
        with pytest.raises(ContentError) as caught:
            list(layout.tags())
        assert caught.value.code == "SIZE"


class TestResolving:
    def test_by_digest(self, layout: OciLayout, root: Path) -> None:
        made = fill(layout, "v1", BLOB)
        write_index(root, entry(made.raw))
        found = layout.resolve(str(made.digest))
        assert (found.raw, found.media_type) == (made.raw, MANIFEST)
        with pytest.raises(NotFoundError):
            layout.resolve("v1")

    @pytest.mark.parametrize(
        ("members", "media_type"),
        [({}, MANIFEST), ({"mediaType": None}, MANIFEST), ({"mediaType": "a/b"}, "a/b")],
        ids=["stated", "unstated", "other"],
    )
    def test_a_child_of_another_index(self, layout: OciLayout, root: Path, members: dict, media_type: str) -> None:
        value = {**json.loads(artifact(BLOB).raw), **members}
        raw = json.dumps({key: item for key, item in value.items() if item is not None}).encode()
        write_index(root)
        layout.put(descriptor(raw), Raw(raw))
        assert layout.resolve(digest_of(raw)).media_type == media_type
        inner = index([entry(raw)]).replace(f'"mediaType": "{INDEX}", '.encode(), b"")
        layout.put(descriptor(inner), Raw(inner))
        assert layout.resolve(digest_of(inner)).media_type == INDEX

    def test_what_the_index_names_is_checked(self, layout: OciLayout, root: Path) -> None:
        made = fill(layout, "v1", BLOB)
        plant(root, made.digest, made.raw.replace(b'"x"', b'"y"'))
        for name in ("v1", str(made.digest)):
            with pytest.raises(ContentError) as caught:
                layout.resolve(name)
            assert caught.value.code == "DIGEST"
        plant(root, made.digest, made.raw + b" ")
        with pytest.raises(ContentError) as caught:
            layout.resolve("v1")
        assert caught.value.code == "SIZE"
        (root / "blobs/sha256" / made.digest.hex).unlink()
        with pytest.raises(NotFoundError):
            layout.resolve("v1")

    def test_a_manifest_has_a_largest_size(self, layout: OciLayout, root: Path) -> None:
        write_index(root, {**entry(b"", "v1"), "size": MANIFEST_LIMIT + 1})
        with pytest.raises(ContentError) as caught:
            layout.resolve("v1")
        assert caught.value.code == "SIZE"

    def test_a_miss_lists_the_tags(self, layout: OciLayout) -> None:
        fill(layout, "v1", BLOB)
        with pytest.raises(NotFoundError) as caught:
            layout.resolve("v2")
        assert "v1" in str(caught.value)
        with pytest.raises(NotFoundError):
            layout.resolve(digest_of(b"nothing"))

    def test_what_is_no_layout(self, layout: OciLayout, root: Path) -> None:
        calls = [lambda: layout.resolve("v1"), lambda: list(layout.tags()), layout.sole_entry]
        for call in calls:
            with pytest.raises(NotFoundError):
                call()
        root.mkdir()
        (root / "index.json").write_bytes(index([]))
        for call in calls:
            with pytest.raises(NotFoundError) as caught:
                call()
            assert "oci-layout" in str(caught.value)
        (root / "index.json").rename(root / "oci-layout")
        for call in calls:
            with pytest.raises(ContentError):
                call()

    @pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b'{"imageLayoutVersion":"2.0.0"}', b'{"imageLayoutVersion":1}'])
    def test_another_version_is_neither_read_nor_written(self, layout: OciLayout, root: Path, raw: bytes) -> None:
        made = fill(layout, "v1", BLOB)
        (root / "oci-layout").write_bytes(raw)
        before = tree(root)
        for call in (
            lambda: layout.resolve("v1"),
            lambda: layout.put(descriptor(BLOB), Raw(BLOB)),
            lambda: layout.publish("v2", made),
        ):
            with pytest.raises(ContentError):
                call()
        assert tree(root) == before


class TestSoleEntry:
    def test_is_the_only_one(self, layout: OciLayout, root: Path) -> None:
        made = fill(layout, "v1", BLOB)
        assert layout.sole_entry() == "v1"
        write_index(root, entry(made.raw))
        assert layout.sole_entry() == str(made.digest)
        write_index(root, entry(made.raw), entry(made.raw, "v1"))
        assert layout.sole_entry() == "v1"

    def test_else_latest_else_none(self, layout: OciLayout) -> None:
        fill(layout, "v1", BLOB)
        fill(layout, "v2", BLOB)
        with pytest.raises(NotFoundError) as caught:
            layout.sole_entry()
        assert "v1, v2" in str(caught.value)
        fill(layout, "latest", BLOB)
        assert layout.sole_entry() == "latest"

    def test_of_an_empty_layout(self, layout: OciLayout, root: Path) -> None:
        write_index(root)
        with pytest.raises(NotFoundError):
            layout.sole_entry()


class TestReferrers:
    """Signatures, attestations and the like are no artifacts of their own."""

    def referring(self, root: Path, made: Document, note: str = "") -> bytes:
        raw = manifest([], config=b"{}", subject=entry(made.raw), annotations={"note": note})
        plant(root, Digest.of(raw), raw)
        return raw

    def test_are_not_the_only_entry_nor_beside_it(self, layout: OciLayout, root: Path) -> None:
        made = fill(layout, "v1", BLOB)
        signature = self.referring(root, made)
        scheme = f"sha256-{made.digest.hex}"
        listed = index([entry(signature)])
        plant(root, Digest.of(listed), listed)
        odd = artifact(BLOB, note="a signature of another kind")
        plant(root, odd.digest, odd.raw)
        for tag in ("v1", None):
            others = [
                entry(signature, artifactType="application/vnd.example.signature"),
                entry(listed, scheme, media_type=INDEX),
                entry(odd.raw, f"{scheme}.sig"),
            ]
            write_index(root, *others, entry(made.raw, tag))
            name = tag or str(made.digest)
            assert layout.artifacts() == [name] and layout.sole_entry() == name
            notes = [item for item in layout.audit() if "refers to" in item.problem]
            assert [item.severity for item in notes] == ["warning"] * 3
            assert layout.resolve(scheme).raw == listed and layout.resolve(str(Digest.of(signature))).raw == signature
        write_index(root, *others)
        with pytest.raises(NotFoundError):
            layout.sole_entry()

    def test_are_not_found_by_what_cannot_be_read(self, layout: OciLayout, root: Path) -> None:
        made = fill(layout, "v1", BLOB)
        write_index(root, entry(made.raw), entry(b"gone"), entry(b"huge", size=5 << 20))
        assert len(layout.artifacts()) == 3

    def test_one_listed_very_often_is_read_once(self, layout: OciLayout, root: Path) -> None:
        made = fill(layout, "v1", BLOB)
        write_index(root, *[entry(made.raw)] * 900, *[entry(b"gone")] * 900)
        opened, real = [], layout._backend.open
        layout._backend.open = lambda key, *span: opened.append(key) or real(key, *span)
        assert layout.artifacts() == [str(made.digest), digest_of(b"gone")]
        assert sum(made.digest.hex in key for key in opened) == 1
        assert [item.code for item in layout.audit()].count("NOT_FOUND") == 1


class TestFullNames:
    """Some tools write the whole reference as an entry's name (nerdctl, buildah, `crane pull` of several images)."""

    @pytest.mark.parametrize("name", ["docker.io/acme/bot:v1", "localhost:5000/bot:v1", "bot:v1"])
    def test_are_known_by_their_tags(self, layout: OciLayout, root: Path, name: str) -> None:
        made = fill(layout, "other", BLOB)
        write_index(root, entry(made.raw, name))
        assert list(layout.tags()) == layout.artifacts() == ["v1"] and layout.sole_entry() == "v1"
        for asked in ("v1", name, str(made.digest)):
            assert layout.resolve(asked).raw == made.raw
        with pytest.raises(NotFoundError):
            layout.resolve("v2")

    def test_with_one_tag_for_two_are_known_by_their_digests(self, layout: OciLayout, root: Path) -> None:
        first, second = fill(layout, "a", BLOB), fill(layout, "b", BLOB, note="second")
        write_index(root, entry(first.raw, "docker.io/x/bot:v1"), entry(second.raw, "ghcr.io/y/bot:v1"))
        assert layout.artifacts() == [str(first.digest), str(second.digest)] and list(layout.tags()) == []
        with pytest.raises(ContentError):
            layout.resolve("v1")
        assert layout.resolve("ghcr.io/y/bot:v1").raw == second.raw
        write_index(root, entry(first.raw, "docker.io/x/bot:v1"), entry(first.raw, "ghcr.io/y/bot:v1"))
        assert layout.artifacts() == ["v1"] and layout.resolve("v1").raw == first.raw

    def test_give_way_to_the_tag_itself(self, layout: OciLayout, root: Path) -> None:
        first, second = fill(layout, "a", BLOB), fill(layout, "b", BLOB, note="second")
        write_index(root, entry(first.raw, "docker.io/x/bot:v1"), entry(second.raw, "v1"))
        assert layout.resolve("v1").raw == second.raw
        assert layout.artifacts() == ["v1", str(first.digest)]

    @pytest.mark.parametrize(
        "name", ["", "a b", "docker.io/x/bot", f"docker.io/x/bot@{digest_of(b'x')}", "x:" + "y" * 200]
    )
    def test_without_a_tag_are_known_by_their_digests(self, layout: OciLayout, root: Path, name: str) -> None:
        made = fill(layout, "a", BLOB)
        write_index(root, entry(made.raw, name))
        assert layout.artifacts() == [str(made.digest)] and layout.sole_entry() == str(made.digest)

    def test_are_neither_overwritten_nor_lost(self, layout: OciLayout, root: Path) -> None:
        made, new = fill(layout, "a", BLOB), artifact(BLOB, note="new")
        theirs = entry(made.raw, "docker.io/x/bot:v1")
        write_index(root, theirs)
        layout.publish("v1", made)
        assert read_index(root)["manifests"] == [theirs]
        with pytest.raises(ConflictError):
            layout.publish("v1", new)
        layout.publish("v1", new, replace=True)
        assert read_index(root)["manifests"][0] == theirs and layout.resolve("v1").raw == new.raw

    def test_can_be_removed(self, layout: OciLayout, root: Path) -> None:
        made = fill(layout, "a", BLOB)
        write_index(root, entry(made.raw, "docker.io/x/bot:v1"), entry(made.raw, "keep"))
        layout.remove("v1")
        assert list(layout.tags()) == ["keep"]


@pytest.mark.parametrize(("value", "sound"), [({"manifests": None}, True), ({"manifests": []}, True), ({}, False)])
def test_an_index_without_manifests_is_damaged_and_not_empty(
    layout: OciLayout, root: Path, value: dict, sound: bool
) -> None:
    write_index(root)
    (root / "index.json").write_text(json.dumps({"schemaVersion": 2, **value}))
    before = (root / "index.json").read_bytes()
    if sound:
        assert list(layout.tags()) == [] and list(layout.audit()) == []
        return
    assert [item.severity for item in layout.audit()] == ["error"]
    made = artifact(BLOB)
    for part in (CONFIG, BLOB):
        layout.put(descriptor(part), Raw(part))
    for call in (lambda: list(layout.tags()), lambda: layout.resolve("v1"), lambda: layout.publish("v1", made)):
        with pytest.raises(ContentError):
            call()
    assert (root / "index.json").read_bytes() == before


class TestPublishing:
    @pytest.mark.parametrize("name", ["", "a/b", "a:b", "-x", ".x", "x" * 129, digest_of(b""), "ä", "a b"])
    def test_takes_only_legal_tags(self, layout: OciLayout, root: Path, name: str) -> None:
        made = fill(layout, "v1", BLOB)
        before = tree(root)
        with pytest.raises(UsageError):
            layout.publish(name, made)
        assert tree(root) == before

    @pytest.mark.parametrize("lost", [CONFIG, BLOB])
    def test_needs_the_config_and_every_layer(self, layout: OciLayout, root: Path, lost: bytes) -> None:
        made = artifact(BLOB)
        for part in {CONFIG, BLOB} - {lost}:
            layout.put(descriptor(part), Raw(part))
        before = tree(root)
        with pytest.raises(NotFoundError) as caught:
            layout.publish("v1", made)
        assert digest_of(lost) in str(caught.value)
        assert tree(root) == before

    def test_refuses_a_document_without_a_type(self, layout: OciLayout) -> None:
        made = fill(layout, "v1", BLOB)
        with pytest.raises(ContentError):
            layout.publish("v2", Document("", made.raw))

    def test_mends_a_manifest_that_is_lost_or_damaged(self, layout: OciLayout, root: Path) -> None:
        made = fill(layout, "v1", BLOB)
        for raw in (made.raw[:-1], b"?" + made.raw[1:]):
            plant(root, made.digest, raw)
            layout.publish("v1", made)
            assert layout.resolve("v1").raw == made.raw

    def test_conflict_names_both(self, layout: OciLayout, root: Path) -> None:
        made = fill(layout, "v1", BLOB)
        with pytest.raises(ConflictError) as caught:
            layout.publish("v1", artifact(BLOB, note="new"))
        assert str(made.digest) in str(caught.value)
        assert '"v1"' in str(caught.value)


class TestAudit:
    def test_finds_nothing_in_a_good_layout(self, layout: OciLayout) -> None:
        fill(layout, "v1", BLOB)
        assert list(layout.audit()) == []

    def test_finds_what_is_listed_twice_or_not_there(self, layout: OciLayout, root: Path) -> None:
        made = fill(layout, "v1", BLOB)
        write_index(root, entry(made.raw, "v1"), entry(made.raw, "v1"), entry(b"gone", "v2"), entry(made.raw))
        assert [(item.code, item.severity) for item in layout.audit()] == [
            ("SCHEMA", "error"),
            ("NOT_FOUND", "error"),
            ("NAME", "warning"),
        ]


class TestInTheWay:
    @pytest.mark.parametrize("kind", OBSTACLES)
    @pytest.mark.parametrize("name", ["oci-layout", "index.json", "blobs/sha256/manifest", "blobs/sha256/blob"])
    def test_nothing_is_followed(self, layout: OciLayout, root: Path, kind: str, name: str) -> None:
        made = fill(layout, "v1", BLOB)
        place = name.replace("manifest", made.digest.hex).replace("/blob", f"/{Digest.of(BLOB).hex}")
        put_in_the_way(kind, root / place)
        before = tree(root)
        new = artifact(BLOB, note="new")
        calls = [lambda: layout.publish("v1", made), lambda: layout.publish("v1", new, replace=True)]
        if "blob" not in name:
            calls.append(lambda: list(layout.tags()))
        if name.endswith("manifest"):
            calls = [lambda: layout.resolve("v1"), lambda: layout.resolve(str(made.digest)), calls[0]]
        for call in calls:
            with at_once(), pytest.raises(ContentError) as caught:
                call()
            assert str(root / place) in str(caught.value)
        assert tree(root) == before


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("function", [*CALLS, "rename"])
def test_whichever_call_fails_the_next_run_mends_it(tmp_path: Path, function: str, number: int) -> None:
    for n in range(1, 200):
        root = tmp_path / str(n)
        with FailingCall(function, n, number).armed() as failure:
            try:
                fill(OciLayout(root), "v1", BLOB)
            except LocalIOError:
                assert failure.fired
        if (root / "index.json").exists():
            for item in read_index(root)["manifests"]:
                assert digest_of((root / "blobs/sha256" / item["digest"][7:]).read_bytes()) == item["digest"]
        made = fill(OciLayout(root), "v1", BLOB)
        assert OciLayout(root).resolve("v1").raw == made.raw
        assert list(OciLayout(root).audit()) == []
        assert not drafts(root)
        if not failure.fired:
            return
    pytest.fail("the calls never came to an end")


class TestForeignClients:
    """What they read of ours, and what we read of theirs. An image config, because not all of them move artifacts."""

    @requires_peer("skopeo")
    def test_skopeo_copies_and_we_read_its_copy(self, layout: OciLayout, root: Path, tmp_path: Path) -> None:
        made = fill(layout, "v1", BLOB, noise(10, seed=8))
        fill(layout, "v2", BLOB)
        shown = run_peer("skopeo", "inspect", "--raw", f"oci:{root}:v1", home=tmp_path).stdout
        assert shown == made.raw
        copy = tmp_path / "copy"
        run_peer("skopeo", "copy", f"oci:{root}:v1", f"oci:{copy}:moved", home=tmp_path)
        theirs = OciLayout(copy)
        assert theirs.resolve("moved").raw == made.raw
        assert list(theirs.tags()) == ["moved"]
        assert theirs.has(descriptor(BLOB))

    @requires_peer("skopeo")
    def test_skopeo_adds_to_our_layout_and_we_to_its(self, layout: OciLayout, root: Path, tmp_path: Path) -> None:
        first = fill(layout, "v1", BLOB)
        run_peer("skopeo", "copy", f"oci:{root}:v1", f"oci:{root}:theirs", home=tmp_path)
        second = fill(layout, "v2", BLOB, note="second")
        assert list(layout.tags()) == ["theirs", "v1", "v2"]
        assert layout.resolve("theirs").raw == first.raw
        assert run_peer("skopeo", "inspect", "--raw", f"oci:{root}:v2", home=tmp_path).stdout == second.raw
        assert list(layout.audit()) == []

    @requires_peer("oras")
    def test_oras_reads_and_writes(self, layout: OciLayout, root: Path, tmp_path: Path) -> None:
        made = fill(layout, "v1", BLOB)
        fetch = run_peer("oras", "manifest", "fetch", "--oci-layout", f"{root}:v1", home=tmp_path)
        assert fetch.stdout == made.raw
        tags = run_peer("oras", "repo", "tags", "--oci-layout", str(root), home=tmp_path).stdout.split()
        assert tags == [b"v1"]
        blob = run_peer(
            "oras", "blob", "fetch", "--oci-layout", f"{root}@{Digest.of(BLOB)}", "--output", "-", home=tmp_path
        )
        assert blob.stdout == BLOB
        (tmp_path / "file").write_bytes(b"theirs")
        run_peer("oras", "push", "--oci-layout", f"{root}:theirs", "file:a/b", home=tmp_path)
        assert list(layout.tags()) == ["theirs", "v1"]
        assert layout.has(descriptor(b"theirs"))
        second = fill(layout, "v2", BLOB, note="second")
        fetch = run_peer("oras", "manifest", "fetch", "--oci-layout", f"{root}:v2", home=tmp_path)
        assert fetch.stdout == second.raw

    @requires_peer("crane")
    def test_crane_pushes_the_layout_to_a_registry(
        self, layout: OciLayout, root: Path, tmp_path: Path, live_registry: LiveRegistry, repo_name: str
    ) -> None:
        made = fill(layout, "v1", BLOB)
        target = f"{live_registry.address}/{repo_name}:v1"
        run_peer("crane", "push", str(root), target, home=tmp_path)
        assert run_peer("crane", "digest", target, home=tmp_path).stdout.decode().strip() == str(made.digest)
        run_peer("crane", "pull", "--format", "oci", target, str(tmp_path / "back"), home=tmp_path)
        assert OciLayout(tmp_path / "back").resolve(str(made.digest)).raw == made.raw


def test_modes_are_the_owners(layout: OciLayout, root: Path) -> None:
    before = os.umask(0)
    try:
        fill(layout, "v1", BLOB)
    finally:
        os.umask(before)
    for path in [root, *root.rglob("*")]:
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


def test_blobs_of_others_are_made_safe_before_a_manifest_names_them(
    layout: OciLayout, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may have died between giving a blob its name and syncing the directory."""
    made = fill(layout, "v1", BLOB)
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
    OciLayout(root).publish("v2", made)
    assert blobs in events[: events.index("index.json")]
