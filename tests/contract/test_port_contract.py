"""Every store keeps what its further ports promise: of artifacts, of snapshots, and those that cross the kinds."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.content import noise

from contract.cases import ARTIFACT, CASES, StoreCase, Subject, descriptor
from contract.contents import Raw
from epoch_oci.errors import AccessError, ConflictError, ContentError, NotFoundError
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.document import Document
from epoch_oci.oci.verifying import BLOCK
from epoch_oci.stores.base import (
    ArtifactStore,
    Assembler,
    Auditor,
    Collecting,
    Layout,
    Node,
    Remote,
    Remover,
    SnapshotStore,
    full_name,
)

BLOB = noise(70_001, seed=11)
LARGE = noise(5 * BLOCK + 9, seed=12)
NOBODYS = Digest.of(b"nobody has this")


def made(request: pytest.FixtureRequest, path: Path) -> Iterator[Subject]:
    case: StoreCase = request.param
    with case.factory(path) as subject:
        yield subject


def name(case: StoreCase) -> str:
    return case.name


@pytest.fixture(params=CASES, ids=name)
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Subject]:
    yield from made(request, tmp_path)


@pytest.fixture(params=[case for case in CASES if not case.name.startswith("epoch-")], ids=name)
def artifacts(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Subject]:
    yield from made(request, tmp_path)


@pytest.fixture(params=[case for case in CASES if case.name.startswith("epoch-")], ids=name)
def snapshots(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Subject]:
    yield from made(request, tmp_path)


def having(subject: Subject, port: type) -> Subject:
    if not isinstance(subject.store, port):
        pytest.skip(f"it is no {port.__name__}")
    return subject


def put(subject: Subject, *blobs: bytes) -> None:
    for part in subject.kind.parts(blobs):
        subject.store.put(descriptor(part), Raw(part))


def publish(subject: Subject, tag: str, *blobs: bytes) -> Document:
    put(subject, *blobs)
    document = subject.kind.document(blobs, tag)
    subject.store.publish(subject.kind.name(tag), document)
    return document


def about(subject: Subject, document: Document, *blobs: bytes) -> Document:
    """A manifest that refers to another one."""
    raw = {**json.loads(subject.kind.document(blobs, "about").raw), "subject": document.descriptor.to_json()}
    return Document(document.media_type, json.dumps(raw).encode())


def remove(store, name: str) -> None:
    try:
        store.remove(name)
    except AccessError as error:
        pytest.skip(f"a registry that deletes nothing: {error.message}")


def test_it_is_of_one_kind(subject: Subject) -> None:
    store = subject.store
    assert isinstance(store, ArtifactStore) is (subject.kind is ARTIFACT)
    assert isinstance(store, SnapshotStore) is (subject.kind is not ARTIFACT)
    assert isinstance(store, Remote) + isinstance(store, Layout) == isinstance(store, ArtifactStore)
    assert not isinstance(store, Node)


def test_every_client_says_where_it_is(subject: Subject) -> None:
    where = subject.store.where
    assert where and subject.open().where == where
    assert full_name(subject.store, "v1") == f"{where}:v1"
    assert full_name(subject.store, str(NOBODYS)) == f"{where}@{NOBODYS}"


def test_what_a_tag_points_to(artifacts: Subject) -> None:
    assert artifacts.store.digest_of("v1") is None
    document = publish(artifacts, "v1", BLOB)
    for store in (artifacts.store, artifacts.open()):
        assert store.digest_of("v1") == store.digest_of(str(document.digest)) == document.digest
        assert store.digest_of("v2") is store.digest_of(str(NOBODYS)) is None


def test_what_is_kept_has_no_tag(artifacts: Subject) -> None:
    document = artifacts.kind.document([BLOB], "kept")
    with pytest.raises(NotFoundError):
        artifacts.store.keep(document)
    put(artifacts, BLOB)
    for _ in range(2):
        artifacts.store.keep(document)
    publish(artifacts, "v1", BLOB)
    store = artifacts.open()
    assert store.resolve(str(document.digest)).raw == document.raw
    assert list(store.tags()) == ["v1"]


def test_what_refers_to_a_manifest_is_found(artifacts: Subject) -> None:
    document = publish(artifacts, "v1", BLOB)
    said = about(artifacts, document, BLOB)
    assert artifacts.store.referrers(document.digest) == ()
    for _ in range(2):
        artifacts.store.keep(said)
    for store in (artifacts.store, artifacts.open()):
        assert [item.digest for item in store.referrers(document.digest)] == [said.digest]
        assert store.referrers(NOBODYS) == ()


def test_a_layout_tells_what_it_holds_apart(artifacts: Subject) -> None:
    having(artifacts, Layout)
    with pytest.raises(NotFoundError):
        artifacts.store.sole_entry()
    document = publish(artifacts, "v1", BLOB)
    said = about(artifacts, document, BLOB)
    artifacts.store.keep(said)
    assert artifacts.store.artifacts() == ["v1"] and artifacts.store.sole_entry() == "v1"
    assert artifacts.store.orphans() == []
    publish(artifacts, "v2", BLOB)
    with pytest.raises(NotFoundError):
        artifacts.store.sole_entry()
    publish(artifacts, "latest", BLOB)
    assert artifacts.store.sole_entry() == "latest"
    artifacts.store.remove("v1")
    assert artifacts.store.orphans() == [str(said.digest)]


def test_a_word_names_a_snapshot(snapshots: Subject) -> None:
    publish(snapshots, "v1", BLOB)
    for store in (snapshots.store, snapshots.open()):
        assert str(store.find(snapshots.kind.name("v1"))) == snapshots.kind.name("v1")
        assert str(store.find("another")) == "another:latest"  # here or not
        with pytest.raises(ContentError):
            store.find("../another:v1")


def test_what_is_expected_is_told_as_it_will_be_published(snapshots: Subject) -> None:
    key, document = snapshots.kind.name("v1"), snapshots.kind.document([BLOB], "one")
    another = snapshots.kind.document([BLOB], "two")
    assert snapshots.store.expect(key, document) is False
    put(snapshots, BLOB)
    snapshots.store.publish(key, document)
    before = snapshots.listing()
    assert snapshots.store.expect(key, document) is True
    with pytest.raises(ConflictError):
        snapshots.store.expect(key, another)
    assert snapshots.store.expect(key, another, replace=True) is False
    assert snapshots.listing() == before


def test_what_is_removed_is_gone_and_nothing_else(subject: Subject) -> None:
    having(subject, Remover)
    publish(subject, "v1", BLOB)
    kept = publish(subject, "v2", BLOB)
    remove(subject.store, subject.kind.name("v1"))
    for store in (subject.store, subject.open()):
        with pytest.raises(NotFoundError):
            store.resolve(subject.kind.name("v1"))
        assert store.resolve(subject.kind.name("v2")).raw == kept.raw
        assert store.has(descriptor(BLOB))
    with pytest.raises(NotFoundError):
        subject.store.remove(subject.kind.name("v1"))


def test_a_blob_is_put_together_out_of_order(subject: Subject) -> None:
    having(subject, Assembler)
    target, spans = descriptor(LARGE), [(start, start + BLOCK) for start in range(0, len(LARGE), BLOCK)]
    assembling = subject.store.assemble(target)
    if assembling is None:
        pytest.skip("an object comes whole or not at all")
    with assembling as assembly:
        for start, end in reversed(spans):
            assert not subject.store.has(target)
            assembly.write(start, LARGE[start:end], start)
            assembly.settle(start, min(end, len(LARGE)))
        assert assembly.missing() == [] and assembly.finish()
    with subject.open().content(target).open() as reader:
        assert b"".join(iter(lambda: reader.read(BLOCK), b"")) == LARGE


def test_what_was_put_together_wrong_is_never_there(subject: Subject) -> None:
    having(subject, Assembler)
    target = descriptor(LARGE)
    assembling = subject.store.assemble(target)
    if assembling is None:
        pytest.skip("an object comes whole or not at all")
    with assembling as assembly:
        assembly.write(0, LARGE[:-1] + bytes([LARGE[-1] ^ 1]), 0)
        assembly.settle(0, len(LARGE))
        with pytest.raises(ContentError):
            assembly.finish()
        assembly.discard()
    assert not subject.open().has(target)


def test_sound_books_have_no_findings(subject: Subject) -> None:
    having(subject, Auditor)
    publish(subject, "v1", BLOB)
    assert [finding for finding in subject.open().audit() if finding.severity == "error"] == []


def test_only_what_nothing_refers_to_is_collected(subject: Subject) -> None:
    having(subject, Collecting)
    publish(subject, "v1", BLOB)
    loose = noise(4_000, seed=13)
    subject.store.put(descriptor(loose), Raw(loose))
    found = subject.store.garbage(-5.0)  # as if all of it were older
    if found.kept_back is not None:
        assert subject.store.has(descriptor(loose))
        pytest.skip(f"not now: {found.kept_back}")
    digest = Digest.of(loose)
    assert [key for key in found.blobs if digest.hex in key] == list(found.blobs) and found.size >= len(loose)
    assert subject.store.garbage(3600.0).blobs == {}
    gone = subject.store.collect(found, -5.0)
    store = subject.open()
    assert gone.blobs == found.blobs and not store.has(descriptor(loose)) and store.has(descriptor(BLOB))
    assert store.resolve(subject.kind.name("v1")).digest == subject.store.resolve(subject.kind.name("v1")).digest
