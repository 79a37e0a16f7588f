"""A repository in its ordinary days: what is asked of the registry, and how often; what ORAS must keep offering."""

import inspect
from pathlib import Path

import oras.auth
import oras.provider
import pytest
from registry_room import RAW, blob, room
from support.content import manifest
from support.faults import Redirect, Respond, SetHeader, WrongDigest
from support.registry_auth import PASSWORD, USER, BasicAuth, BearerAuth
from support.wire import Request

from epoch_oci.errors import (
    AccessError,
    ConflictError,
    ContentError,
    LocalIOError,
    NetworkError,
    NotFoundError,
    UsageError,
)
from epoch_oci.oci.document import Document
from epoch_oci.oci.media_types import MANIFEST
from epoch_oci.registry.auth import BACKEND, Authenticator
from epoch_oci.registry.client import RegistryClient
from epoch_oci.registry.policy import RegistrySettings
from epoch_oci.registry.profiles import Profile
from epoch_oci.registry.repository import verify_login
from epoch_oci.stores.base import BytesContent

BLOB, UPLOADS, MANIFESTS = r"/blobs/sha256:", r"/blobs/uploads/", r"/manifests/"
REPO = "acme/bot"


def document(note: str = "one") -> Document:
    return Document(MANIFEST, manifest([b"layer"], annotations={"note": note}))


def filled(registry) -> None:
    for raw in (b"layer", b"{}"):
        registry.put_blob(REPO, raw)


def asked(registry) -> list[str]:
    kinds = ((UPLOADS, "upload"), (BLOB, "blob"), (MANIFESTS, "manifest"), ("/tags/", "tags"), ("/token", "token"))
    return [
        f"{request.method} {next((name for part, name in kinds if part.strip(chr(92)) in request.target), 'base')}"
        for request in registry.recording
    ]


def test_a_blob_costs_two_requests(fake_registry):
    registry = fake_registry()
    repository, _ = room(registry)
    repository.put(blob(RAW), BytesContent(RAW))
    assert asked(registry) == ["POST upload", "PUT upload"]


def test_a_blob_with_tokens_costs_one_challenge_for_all(fake_registry):
    registry = fake_registry(auth=BearerAuth({USER: PASSWORD}, anonymous=None))
    repository, _ = room(registry, login=True)
    for raw in (RAW, RAW[1:], RAW[2:]):
        repository.put(blob(raw), BytesContent(raw))
    assert (
        asked(registry)
        == ["POST upload", "GET token", "POST upload", "PUT upload"]
        + [
            "POST upload",
            "PUT upload",
        ]
        * 2
    )


def test_a_challenge_of_basic_is_met_once(fake_registry):
    registry = fake_registry(auth=BasicAuth())
    repository, _ = room(registry, login=True)
    for _ in range(3):
        assert not repository.holds(blob(RAW))
    assert [request.status for request in registry.recording] == [401, 404, 404, 404]


def test_publishing_looks_and_puts_and_looks_again(fake_registry):
    registry = fake_registry()
    filled(registry)
    repository, _ = room(registry)
    repository.publish("v1", document())
    assert asked(registry) == ["GET manifest", "PUT manifest", "GET manifest"]
    registry.recording.clear()
    repository.publish("v1", document("two"), replace=True)
    assert asked(registry) == ["PUT manifest", "GET manifest"]
    assert registry.recording[0].header("content-type") == MANIFEST


def test_a_conflict_sends_nothing(fake_registry):
    registry = fake_registry()
    filled(registry)
    repository, _ = room(registry)
    repository.publish("v1", document())
    registry.recording.clear()
    with pytest.raises(ConflictError, match="--force"):
        repository.publish("v1", document("two"))
    assert asked(registry) == ["GET manifest"]


@pytest.mark.parametrize("code", ["MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN"])
@pytest.mark.parametrize("status", [400, 404])
def test_what_a_manifest_lacks_is_named(fake_registry, code, status):
    registry = fake_registry()
    registry.put_blob(REPO, b"{}")
    registry.fault("PUT", MANIFESTS, Respond(status, code=code))
    repository, _ = room(registry)
    with pytest.raises(NotFoundError) as caught:
        repository.publish("v1", document())
    assert caught.value.object == str(blob(b"layer").digest)


def test_a_registry_at_odds_with_itself_is_asked_again(fake_registry):
    """A HEAD finds the blob that the manifest's check does not (seen of distribution 2, and of Harbor)."""
    registry = fake_registry()
    filled(registry)
    registry.fault("PUT", MANIFESTS, Respond(404, code="MANIFEST_BLOB_UNKNOWN"), first=2)
    repository, heard = room(registry)
    repository.publish("v1", document())
    assert repository.resolve("v1").raw == document().raw and len(heard.waits) == 2
    registry.fault("PUT", MANIFESTS, Respond(404, code="MANIFEST_BLOB_UNKNOWN"))
    with pytest.raises(NetworkError):
        repository.publish("v2", document())


@pytest.mark.parametrize(
    ("code", "kind"), [("MANIFEST_INVALID", ContentError), ("NAME_UNKNOWN", NotFoundError), ("SOMETHING", UsageError)]
)
def test_why_a_manifest_was_refused(fake_registry, code, kind):
    registry = fake_registry()
    registry.fault("PUT", MANIFESTS, Respond(400, code=code))
    repository, heard = room(registry)
    with pytest.raises(kind):
        repository.publish("v1", document())
    assert not heard.waits


def test_a_wrong_digest_in_a_header_is_warned_about_and_the_bytes_decide(fake_registry):
    registry = fake_registry()
    filled(registry)
    repository, heard = room(registry)
    repository.publish("v1", document())
    rule = registry.fault("GET", MANIFESTS, WrongDigest())
    assert repository.resolve("v1").raw == document().raw
    assert repository.resolve(str(document().digest)).raw == document().raw
    assert rule.fired == 2
    assert [event.event for event in heard.events] == ["warning"]


def test_a_registry_that_stored_another_manifest_is_caught(fake_registry):
    registry = fake_registry()
    filled(registry)
    registry.fault("PUT", MANIFESTS, WrongDigest())
    with pytest.raises(ContentError):
        room(registry)[0].publish("v1", document())


@pytest.mark.parametrize("status", [307, 308])
@pytest.mark.parametrize("shape", ["put", "stream", "ranged"])
def test_whatever_is_sent_is_led_on_within_the_registry(fake_registry, shape, status):
    """As by a proxy that wants its paths in another form."""

    def on(request: Request) -> str:
        return f"{request.target}{'&' if '?' in request.target else '?'}led=1"

    registry = fake_registry()
    filled(registry)
    registry.fault("POST|PUT|PATCH", "/v2/", Redirect(on, status), when=lambda request: "led=1" not in request.target)
    repository, _ = room(registry, profile=Profile(name="one", hosts="x", shapes=(shape,)))
    repository.put(blob(RAW), BytesContent(RAW))
    repository.publish("v1", document())
    assert repository.resolve("v1").raw == document().raw
    assert registry.blobs(REPO)[str(blob(RAW).digest)] == len(RAW)


def test_content_of_what_is_not_there_says_so_when_it_is_opened(fake_registry):
    repository, _ = room(fake_registry())
    content = repository.content(blob(RAW))
    with content.open() as reader, pytest.raises(NotFoundError):
        reader.read(1)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"tags":[1]}', b'{"tags":{}}', b'{"tags":"abc"}'])
def test_a_list_that_cannot_be_read_is_refused_or_empty(fake_registry, body):
    registry = fake_registry()
    registry.fault("GET", "/tags/list", Respond(200, body))
    with pytest.raises(ContentError):
        list(room(registry)[0].tags())


def test_a_list_of_nothing_is_empty_and_one_that_circles_ends(fake_registry):
    registry = fake_registry()
    registry.fault("GET", "/tags/list", Respond(200, b'{"tags":null}'), first=1)
    repository, _ = room(registry)
    assert list(repository.tags()) == []
    registry.put_image(REPO, "v1", [b"x"])
    registry.fault("GET", "/tags/list", SetHeader("Link", f"</v2/{REPO}/tags/list>; rel=next"))
    assert list(repository.tags()) == ["v1"]


def test_a_mount_from_itself_is_none(fake_registry):
    registry = fake_registry()
    assert not room(registry)[0].mount(blob(RAW), REPO)
    assert not asked(registry)


@pytest.mark.parametrize("status", [401, 403, 404, 405])
def test_a_mount_that_is_refused_is_declined(fake_registry, status):
    registry = fake_registry()
    registry.fault("POST", UPLOADS, Respond(status))
    assert not room(registry)[0].mount(blob(RAW), "acme/other")


def test_a_mount_that_was_claimed_and_is_none(fake_registry):
    registry = fake_registry()
    registry.fault("POST", UPLOADS, Respond(201))
    assert not room(registry)[0].mount(blob(RAW), "acme/other")


def test_a_session_opened_to_look_is_closed(fake_registry):
    registry = fake_registry()
    room(registry)[0].check_write()
    assert [request.method for request in registry.recording] == ["POST", "GET", "DELETE"]
    assert not registry.uploads(REPO)


def test_logging_in_is_asking(fake_registry):
    good, bad = fake_registry(auth=BasicAuth()), fake_registry(auth=BasicAuth(password="another"))
    for registry in (good, bad):
        _, _ = room(registry, login=True)
    settings = room(good, login=True)[0]._client.settings
    verify_login(good.address, settings)
    with pytest.raises(AccessError):
        verify_login(bad.address, settings)


def test_a_ca_file_that_holds_none_is_said_before_anything_is_sent(tmp_path: Path):
    empty = tmp_path / "ca.pem"
    for path in (tmp_path / "absent.pem", empty):
        with pytest.raises(LocalIOError):
            RegistryClient("r.example", RegistrySettings(ca_file=str(path)))
        empty.write_text("no certificate")


# What we stand on


def overridden() -> list[str]:
    base = oras.provider.Registry
    return [name for name in vars(RegistryClient) if not name.startswith("__") and hasattr(base, name)]


def test_every_name_we_take_over_is_one_of_oras():
    """A method that ORAS renames would come back to life under its new name, with ORAS's own transport."""
    ours = {name for name in vars(RegistryClient) if name in REFUSED | {"do_request", "get_container"}}
    assert ours == REFUSED | {"do_request", "get_container"}
    assert set(overridden()) >= ours


REFUSED = {"pull", "push", "login", "logout", "delete_tag", "delete_tags", "get_manifest", "upload_manifest"} | {
    "upload_blob",
    "download_blob",
    "put_upload",
    "chunked_upload",
    "get_blob",
    "blob_exists",
}


def test_every_public_method_of_oras_is_known_to_us():
    """A new one has to be looked at: it may move content past our checks."""
    public = {
        name
        for name, value in vars(oras.provider.Registry).items()
        if inspect.isfunction(value) and not name.startswith("_")
    }
    assert public - REFUSED == {"version", "set_header", "get_tags", "get_container", "do_request"}


def test_do_request_takes_what_oras_hands_to_it():
    theirs = list(inspect.signature(oras.provider.Registry.do_request).parameters)
    ours = inspect.signature(RegistryClient.do_request).parameters
    assert list(ours)[: len(theirs)] == theirs
    extra = [ours[name] for name in list(ours)[len(theirs) :]]
    assert all(parameter.kind is inspect.Parameter.KEYWORD_ONLY for parameter in extra)


def test_our_authenticator_is_a_backend_of_oras(fake_registry):
    assert oras.auth.auth_backends[BACKEND] is Authenticator
    client = room(fake_registry())[0]._client
    assert isinstance(client.auth, Authenticator)
    assert client.auth.session is client.session


def test_the_inherited_list_of_tags_goes_through_our_transport(fake_registry):
    registry = fake_registry(auth=BearerAuth({USER: PASSWORD}, anonymous=None), page_size=2)
    for number in range(5):
        registry.put_image(REPO, f"v{number}", [b"x"])
    repository, heard = room(registry, login=True)
    assert repository._client.get_tags(f"{registry.address}/{REPO}") == [f"v{number}" for number in range(5)]
    assert any("/tags/list" in line and "Authorization: Bearer" in line for line in heard.debug)


def test_methods_that_are_not_fit_for_snapshots_say_so(fake_registry):
    client = room(fake_registry())[0]._client
    for name in REFUSED:
        with pytest.raises(TypeError, match="not fit"):
            getattr(client, name)("x")


@pytest.mark.parametrize(
    "spelt", ["rel=next", 'Rel="NEXT"', 'rel="last next"', 'title="a, b"; rel="next"', 'rel="last", <X>; rel="next"']
)
def test_the_next_page_however_it_is_spelt(fake_registry, spelt):
    registry = fake_registry()
    for tag in "ab":
        registry.put_image(REPO, tag)
    repository, _ = room(registry)
    following = f"/v2/{REPO}/tags/list?n=1&last=a,b"
    link = (
        f"</v2/{REPO}/elsewhere>; {spelt.replace('<X>', f'<{following}>')}"
        if "<X>" in spelt
        else f"<{following}>; {spelt}"
    )
    registry.fault("GET", r"/tags/list\?n=1000$", SetHeader("Link", link))
    assert list(repository.tags()) == ["a", "b"]
    assert [request.target for request in registry.recording.find("GET", "/tags/list")][1:] == [following]


# Lists


def listed(registry, count: int, page_size: int | None = None):
    registry.behaviour.page_size = page_size
    for number in range(count):
        registry.put_image(REPO, f"v{number:03}", [b"x"])
    return [f"v{number:03}" for number in range(count)]


def test_a_thousand_are_asked_for_and_where_that_is_refused_no_number(fake_registry):
    registry = fake_registry()
    tags = listed(registry, 5)
    assert list(room(registry)[0].tags()) == tags
    assert [request.query for request in registry.recording.find("GET", "/tags/list")] == ["n=1000"]
    registry.fault("GET", r"\?n=", Respond(400, code="PAGINATION_NUMBER_INVALID"))
    assert list(room(registry)[0].tags()) == tags


@pytest.mark.parametrize("own", [r"/tags/list?n=1000", "/tags/list", "/tags/list?n=2&last=v001"])
def test_a_list_that_leads_in_a_circle_is_read_to_its_end_all_the_same(fake_registry, own):
    registry = fake_registry()
    tags = listed(registry, 7, page_size=2)
    registry.fault("GET", "/tags/list", SetHeader("Link", f'</v2/{REPO}{own}>; rel="next"'))
    repository, heard = room(registry)
    assert list(repository.tags()) == tags and not heard.events


def test_a_circle_with_no_way_out_is_told_of(fake_registry):
    """No way on by name either: what is there beyond the first page nobody can know."""
    registry = fake_registry()
    page = b'{"name": "acme/bot", "tags": ["a", "b"]}'
    registry.fault("GET", "/tags/list", Respond(200, page, ("Link", f'</v2/{REPO}/tags/list?n=1000>; rel="next"')))
    repository, heard = room(registry)
    assert list(repository.tags()) == ["a", "b"]
    assert [event.event for event in heard.events] == ["warning"] and "circle" in heard.events[0].message


@pytest.mark.parametrize(
    "link", ["{next}; rel=next", '{next};rel="next"', "{next} ; title=x; rel='next'", "{next}", "<{next}>"]
)
def test_a_link_without_brackets_is_followed(fake_registry, link):
    registry = fake_registry()
    tags = listed(registry, 3)
    following = f"/v2/{REPO}/tags/list?n=2&last=v000"
    registry.fault("GET", "n=1000", SetHeader("Link", link.format(next=following)), nth=1)
    assert list(room(registry)[0].tags()) == tags
    assert registry.recording.find("GET", "/tags/list")[1].target == following


@pytest.mark.parametrize("link", ['<>; "next"', "next", '; rel="next', 'rel="next"'])
def test_a_link_that_cannot_be_read_is_no_end(fake_registry, link):
    registry = fake_registry()
    listed(registry, 3)
    registry.fault("GET", "/tags/list", SetHeader("Link", link))
    repository, _ = room(registry)
    try:
        assert len(list(repository.tags())) == 3
    except ContentError as error:
        assert "cannot be read" in error.message or "circle" in error.message


def test_a_list_without_end_is_given_up(fake_registry):
    registry = fake_registry()
    numbers = iter(range(10**9))

    def page(request) -> bool:
        number = next(numbers)
        endless.body = b'{"tags": ["t%d"]}' % number
        endless.headers = [("Link", f'</v2/{REPO}/tags/list?n=1&last=t{number}>; rel="next"')]
        return True

    endless = Respond(200)
    registry.fault("GET", "/tags/list", endless, when=page)
    with pytest.raises(ContentError, match="does not end"):
        list(room(registry)[0].tags())


def test_referrers_that_lead_in_a_circle_end(fake_registry):
    registry = fake_registry()
    filled(registry)
    repository, _ = room(registry)
    repository.publish("v1", document())
    own = f"/v2/{REPO}/referrers/{document().digest}"
    registry.fault("GET", "/referrers/", SetHeader("Link", f'<{own}?page=2>; rel="next"'))
    assert repository.referrers(document().digest) == ()
    assert registry.recording.count("GET", "/referrers/") == 2
