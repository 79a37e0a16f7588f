"""What a registry can do beside moving one artifact: referrers, documents without a tag, removal, the catalog."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from registry_room import PASSWORD, USER, Credential, CredentialStore, blob, room
from support.content import INDEX, MANIFEST, descriptor, index, manifest
from support.faults import DropResponse
from support.registry_auth import BearerAuth

from epoch_oci.errors import AccessError, ContentError, NotFoundError
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.document import Document
from epoch_oci.oci.reference import Reference
from epoch_oci.registry.policy import RegistrySettings
from epoch_oci.registry.repository import RegistryHost, RegistryRepository
from epoch_oci.stores.base import BytesContent
from epoch_oci.stores.oci_layout import OciLayout

REPO = "acme/bot"


def referring(subject: bytes, note: str) -> bytes:
    return manifest(
        [note.encode()],
        subject=descriptor(subject, MANIFEST),
        artifactType="application/vnd.example.sbom",
        annotations={"note": note},
    )


def filled(store, layers: tuple[bytes, ...] = (b"layer",)) -> Document:
    """An image in a store, with its blobs, under the tag v1."""
    for raw in (b"{}", *layers):
        store.put(blob(raw), BytesContent(raw))
    image = Document(MANIFEST, manifest(layers))
    store.publish("v1", image)
    return image


def refer(store, subject: Document, note: str) -> Document:
    store.put(blob(note.encode()), BytesContent(note.encode()))
    document = Document(MANIFEST, referring(subject.raw, note))
    store.keep(document)
    return document


@pytest.fixture(params=["registry", "registry without referrers", "layout"])
def store(request, fake_registry, tmp_path):
    if request.param == "layout":
        return OciLayout(tmp_path / "layout")
    return room(fake_registry(referrers=request.param == "registry"))[0]


def test_what_refers_to_a_manifest_is_found(store):
    image = filled(store)
    kept = {refer(store, image, note).digest for note in ("one", "two", "three")}
    found = store.referrers(image.digest)
    assert {item.digest for item in found} == kept
    assert {item.artifact_type for item in found} == {"application/vnd.example.sbom"}
    assert all(store.resolve(str(digest)).digest == digest for digest in kept)
    assert store.referrers(Digest.of(b"nobody")) == ()


def test_a_referrer_kept_twice_is_listed_once(store):
    image = filled(store)
    refer(store, image, "one")
    refer(store, image, "one")
    assert len(store.referrers(image.digest)) == 1


def test_an_index_and_its_manifests_keep_their_bytes(store):
    image = filled(store)
    child = Document(MANIFEST, manifest([b"layer"], annotations={"n": "child"}))
    store.keep(child)
    both = Document(INDEX, index([descriptor(item.raw, MANIFEST) for item in (image, child)]))
    store.publish("all", both)
    assert store.resolve("all").raw == both.raw
    assert store.resolve(str(child.digest)).raw == child.raw
    assert "all" in list(store.tags()) and len(list(store.tags())) == 2


def test_an_index_whose_manifest_is_not_there_is_refused(store):
    filled(store)
    absent = Document(INDEX, index([descriptor(b"nothing", MANIFEST)]))
    with pytest.raises(NotFoundError):
        store.publish("all", absent)
    assert list(store.tags()) == ["v1"]


def test_a_tag_tells_its_digest(store):
    image = filled(store)
    assert store.digest_of("v1") == image.digest == store.digest_of(str(image.digest))
    assert store.digest_of("v2") is None


def test_a_tag_is_taken_away_and_no_other(store):
    image = filled(store)
    store.publish("v2", image)
    store.remove("v1")
    assert list(store.tags()) == ["v2"]
    assert store.resolve("v2").raw == image.raw
    with pytest.raises(NotFoundError):
        store.remove("v1")


def test_a_manifest_is_taken_away_with_its_tags(store):
    image = filled(store)
    store.publish("v2", image)
    store.remove(str(image.digest))
    assert [tag for tag in store.tags() if not tag.startswith("sha256-")] == []


def test_a_digest_costs_one_head(fake_registry):
    registry = fake_registry()
    registry.put_image(REPO, "v1")
    store, _ = room(registry)
    assert str(store.digest_of("v1")) == registry.tags(REPO)["v1"]
    assert [(item.method, item.path) for item in registry.recording] == [("HEAD", f"/v2/{REPO}/manifests/v1")]


def test_a_registry_that_deletes_no_tags_is_asked_for_the_manifest(fake_registry):
    registry = fake_registry(deletes_tags=False)
    registry.put_image(REPO, "v1")
    registry.put_image(REPO, "v2", [b"other"])
    room(registry)[0].remove("v1")
    assert list(registry.tags(REPO)) == ["v2"]


def test_other_tags_of_a_manifest_are_never_taken_away_unasked(fake_registry):
    registry = fake_registry(deletes_tags=False)
    digest = registry.put_image(REPO, "v1")
    registry.tag(REPO, "v2", digest)
    with pytest.raises(AccessError, match=f"v2 would go with v1.*rm .*@{digest}"):
        room(registry)[0].remove("v1")
    assert set(registry.tags(REPO)) == {"v1", "v2"}


def test_a_registry_without_deletion_is_said_so(fake_registry):
    registry = fake_registry(deletes=False)
    registry.put_image(REPO, "v1")
    for name in ("v1", registry.tags(REPO)["v1"]):
        with pytest.raises(AccessError, match="the registry does not delete"):
            room(registry)[0].remove(name)


def test_a_removal_whose_answer_is_lost_is_done(fake_registry):
    registry = fake_registry()
    registry.put_image(REPO, "v1")
    registry.put_image(REPO, "v2", [b"other"])
    registry.fault("DELETE", "/manifests/", DropResponse(), first=1)
    room(registry)[0].remove("v1")
    assert list(registry.tags(REPO)) == ["v2"]


def test_the_fallback_tag_that_is_no_index_is_refused(fake_registry):
    registry = fake_registry(referrers=False)
    digest = registry.put_image(REPO, "v1")
    registry.put_image(REPO, digest.replace(":", "-"), [b"x"])
    with pytest.raises(ContentError, match="no index of referrers"):
        room(registry)[0].referrers(Digest.parse(digest))


def test_threads_that_write_one_fallback_tag_lose_nothing(fake_registry):
    """A registry without a list of referrers has no conditional writes either."""
    registry = fake_registry(referrers=False)
    store, _ = room(registry)
    image = filled(store)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: refer(room(registry)[0], image, f"note {number}"), range(4)))
    assert len(store.referrers(image.digest)) == 4


def test_a_catalog_in_pages(fake_registry):
    registry = fake_registry(page_size=2)
    names = [f"acme/bot-{number}" for number in range(5)]
    for name in names:
        registry.put_image(name, "v1")
    host = RegistryHost(registry.address, RegistrySettings(plain_http=True))
    assert list(host.catalog()) == names
    assert registry.recording.count("GET", "_catalog") == 3


def test_a_catalog_is_asked_for_with_its_own_scope(fake_registry):
    registry = fake_registry(auth=BearerAuth())
    registry.put_image(REPO, "v1")

    settings = RegistrySettings(plain_http=True, credentials=CredentialStore(explicit=Credential(USER, PASSWORD)))
    assert list(RegistryHost(registry.address, settings).catalog()) == [REPO]
    assert any("registry%3Acatalog%3A%2A" in item.target for item in registry.recording if "token" in item.path)


def test_a_registry_without_a_catalog_is_not_found(fake_registry):
    registry = fake_registry(catalog=False)
    with pytest.raises(NotFoundError, match="no catalog"):
        list(RegistryHost(registry.address, RegistrySettings(plain_http=True)).catalog())


def test_repositories_of_one_host_share_tokens_and_connections(fake_registry):
    registry = fake_registry(auth=BearerAuth())

    settings = RegistrySettings(plain_http=True, credentials=CredentialStore(explicit=Credential(USER, PASSWORD)))
    host = RegistryHost(registry.address, settings)
    for name in ("a/one", "a/two"):
        registry.put_image(name, "v1")
        store = RegistryRepository(Reference.parse(f"{registry.address}/{name}"), settings, host)
        assert store.resolve("v1").digest
    assert len({item.connection for item in registry.recording}) <= 2
    unauthorised = [item for item in registry.recording if item.status == 401]
    assert len(unauthorised) == 1


def test_live_registries_delete_and_refer(live_registry, repo_name):
    settings = RegistrySettings(plain_http=True)
    store = RegistryRepository(Reference.parse(f"{live_registry.address}/{repo_name}"), settings)
    image = filled(store)
    note = refer(store, image, "one")
    assert [item.digest for item in store.referrers(image.digest)] == [note.digest]
    other = Document(MANIFEST, manifest([b"layer"], annotations={"n": "2"}))
    store.publish("v2", other)
    store.remove("v1")
    assert [tag for tag in store.tags() if not tag.startswith("sha256-")] == ["v2"]
    assert repo_name in list(RegistryHost(live_registry.address, settings).catalog())


def test_a_layout_lists_untagged_referrers_as_the_specification_has_it(tmp_path):
    layout = OciLayout(tmp_path / "layout")
    image = filled(layout)
    refer(layout, image, "one")
    entries = json.loads((tmp_path / "layout" / "index.json").read_bytes())["manifests"]
    assert [bool(item.get("annotations")) for item in entries] == [True, False]
