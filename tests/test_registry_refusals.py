"""What a refusal means: exit codes by meaning, the registry's own words, host and object; never a byte of a payload."""

import json
import re
import traceback

import pytest
from cli_runner import Here, Ran
from registry_room import RAW, blob, room
from snapshots import make_snapshot, put_snapshot
from support import canary
from support.content import INDEX, MANIFEST, manifest
from support.faults import ForeignLocation, Raw, Redirect, Respond, SetHeader
from support.registry_auth import PASSWORD, USER, BasicAuth, BearerAuth
from support.wire import Answer

from epoch_oci.errors import (
    AccessError,
    ConflictError,
    ContentError,
    EpochOciError,
    NetworkError,
    NotFoundError,
    PolicyError,
)
from epoch_oci.oci.document import Document
from epoch_oci.registry.profiles import Profile
from epoch_oci.stores.base import BytesContent

BLOB, UPLOADS, MANIFESTS, TAGS = r"/blobs/sha256:", r"/blobs/uploads/", r"/manifests/", r"/tags/list"
REPO = "acme/bot"
SECRET = b"GUEST-MEMORY-" * 400
AGAIN = "run the same command again"


@pytest.fixture
def cli(capsys) -> Here:
    return Here(capsys)


@pytest.fixture
def store(tmp_path):
    put_snapshot(tmp_path / "store", make_snapshot())
    return tmp_path / "store"


def push(cli, registry, store, *more, env=None) -> Ran:
    words = ("push", "team/bot:v1", f"{registry.address}/{REPO}:v1", "--store", store, "--retry-for", "0")
    return cli(*words, "--allow-public", *more, env=env)


# No payload

ODD = [203, 206, 226, 300, 304, 400, 401, 402, 403, 404, 409, 418, 451, 500, 502, 503, 504, 507]


@pytest.mark.parametrize("status", ODD)
def test_a_blob_answered_oddly_is_shown_nowhere(fake_registry, status):
    registry = fake_registry()
    registry.fault("GET", BLOB, Respond(status, SECRET))
    repository, heard = room(registry, attempts=2)
    with pytest.raises(EpochOciError) as caught, repository.content(blob(RAW)).open() as reader:
        reader.read(1)
    with pytest.raises(EpochOciError) as asked:
        if repository.has(blob(RAW)):
            raise caught.value
        raise NotFoundError("absent")
    told = (*caught.value.args, caught.value.hint, *asked.value.args, heard.events, heard.debug)
    assert "GUEST-MEMORY" not in repr(told)


@pytest.mark.parametrize("status", [203, 206, 226, 300, 402, 403, 404, 507])
@pytest.mark.parametrize("flags", [("--debug",), ("--format", "json", "--progress", "json")], ids=["debug", "json"])
def test_nor_by_a_command(cli, fake_registry, store, tmp_path, status, flags):
    registry = fake_registry()
    assert push(cli, registry, store).code == 0
    registry.fault("GET", BLOB, Respond(status, SECRET))
    target = f"{registry.address}/{REPO}:v1"
    for words in (("pull", target, "-o", tmp_path / "out"), ("verify", target)):
        ran = cli(*words, *flags)
        assert ran.code not in (0, 1) and "GUEST-MEMORY" not in ran.out + ran.err


@pytest.mark.parametrize("status", [200, 400, 403, 500, 503])
def test_what_a_storage_says_of_a_blob_is_not_shown_either(fake_registry, make_recorder, status):
    registry = fake_registry()
    storage = make_recorder(Answer.of(status, SECRET))
    registry.fault("GET", BLOB, Respond(307, b"", ("Location", f"{storage.url}/object")))
    repository, heard = room(registry, attempts=2)
    with pytest.raises(EpochOciError) as caught, repository.content(blob(RAW)).open() as reader:
        while reader.read(1 << 20):
            pass
    assert "GUEST" not in f"{caught.value!r} {heard.events} {heard.debug}"


@pytest.mark.parametrize("shape", ["put", "stream", "ranged"])
@pytest.mark.parametrize("status", [400, 403, 404, 409, 413, 500])
def test_a_body_that_is_sent_back_is_not_shown(fake_registry, shape, status):
    """As a proxy that shows what it did not like."""
    registry = fake_registry()
    registry.fault("PUT|PATCH", UPLOADS, Respond(status, SECRET))
    repository, heard = room(registry, attempts=2, profile=Profile(name="one", hosts="x", shapes=(shape,)))
    with pytest.raises(EpochOciError) as caught:
        repository.put(blob(SECRET), BytesContent(SECRET))
    assert "GUEST" not in f"{caught.value!r} {caught.value.hint} {heard.events} {heard.debug}"


@pytest.mark.parametrize(
    "raw",
    [SECRET[:600] + b"\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + SECRET],
    ids=["line", "chunk"],
)
def test_what_came_out_of_step_is_in_no_traceback(fake_registry, raw):
    registry = fake_registry()
    registry.fault("GET", BLOB, Raw(raw))
    repository, _ = room(registry, attempts=2)
    with pytest.raises(NetworkError) as caught, repository.content(blob(RAW)).open() as reader:
        reader.read(1)
    told = "".join(traceback.format_exception(caught.value))
    assert "Traceback" in told and "caused by" in told and "GUEST" not in told


def test_an_error_document_is_shown_and_a_line_of_it(fake_registry):
    registry = fake_registry()
    long = "no\nroom " * 400
    registry.fault("GET", BLOB, Respond(403, code="DENIED", message=long))
    repository, _ = room(registry)
    with pytest.raises(AccessError) as caught, repository.content(blob(RAW)).open() as reader:
        reader.read(1)
    assert "DENIED no" in caught.value.message and "\n" not in caught.value.message
    assert len(caught.value.message) < 700


def test_text_of_a_list_is_shown_and_that_of_a_page_is_not(fake_registry):
    registry = fake_registry()
    registry.fault("GET", TAGS, Respond(403, b"no healthy upstream"), nth=1)
    registry.fault("GET", TAGS, Respond(403, b"<html><body>no healthy upstream"), nth=2)
    repository, _ = room(registry)
    for said in (True, False):
        with pytest.raises(AccessError) as caught:
            list(repository.tags())
        assert ("no healthy upstream" in caught.value.message) is said


# Exit codes by meaning

IMMUTABLE = "Failed to process request due to 'bot:v1' configured as immutable."
POLICY = "The image is not signed by cosign."
CANNOT = "The image tag 'v1' already exists and cannot be overwritten because the tag is immutable."
REFUSED = {
    "harbor immutable": ("PUT", MANIFESTS, 412, "PRECONDITION", IMMUTABLE, 9),
    "ecr immutable": ("PUT", MANIFESTS, 400, "TAG_INVALID", CANNOT, 9),
    "quay immutable": ("PUT", MANIFESTS, 409, "TAG_IMMUTABLE", "v1 is immutable", 9),
    "nexus no redeploy": ("PUT", MANIFESTS, 400, "UNKNOWN", "Repository does not allow updating assets: x", 9),
    "conflict": ("PUT", MANIFESTS, 409, "CONFLICT", "busy", 9),
    "signature policy": ("GET", MANIFESTS, 412, "PROJECTPOLICYVIOLATION", POLICY, 4),
    "policy of a push": ("PUT", MANIFESTS, 412, "PROJECTPOLICYVIOLATION", "severity too high", 4),
    "read only": ("POST", UPLOADS, 403, "DENIED", "The system is in read only mode. Any change is prohibited.", 4),
    "proxy cache": ("POST", UPLOADS, 405, "METHOD_NOT_ALLOWED", "can not push artifact to a proxy project: p", 4),
    "read only 405": ("POST", UPLOADS, 405, "UNSUPPORTED", "repository is read-only", 4),
    "quota": ("PUT", UPLOADS, 403, "DENIED", "adding 1.0 GiB of storage resource, which would exceed the quota", 4),
    "quota of a manifest": ("PUT", MANIFESTS, 403, "DENIED", "will exceed the configured upper limit", 4),
    "denied": ("POST", UPLOADS, 403, "DENIED", "requested access to the resource is denied", 4),
    "paid for": ("POST", UPLOADS, 402, "PAYMENT", "subscription ended", 4),
    "locked": ("PUT", MANIFESTS, 423, "DENIED", "locked", 4),
    "no project in the name": ("POST", UPLOADS, 400, "BAD_REQUEST", "invalid repository name: bot", 2),
    "no name": ("POST", UPLOADS, 400, "NAME_INVALID", "invalid repository name", 2),
    "no tag": ("PUT", MANIFESTS, 400, "TAG_INVALID", "manifest tag did not match URI", 2),
    "no such repository": ("POST", UPLOADS, 404, "NAME_UNKNOWN", "the repository does not exist in the registry", 5),
    "no such project": ("POST", UPLOADS, 404, "NOT_FOUND", "project acme not found", 5),
    "not this manifest": ("PUT", MANIFESTS, 400, "MANIFEST_INVALID", "unknown config media type", 3),
}


@pytest.mark.parametrize("kind", list(REFUSED))
def test_a_refusal_ends_with_its_code_its_words_and_no_advice_to_repeat(cli, fake_registry, store, kind):
    method, path, status, code, words, exit_code = REFUSED[kind]
    registry = fake_registry()
    registry.fault(method, path, Respond(status, code=code, message=words))
    ran = push(cli, registry, store, "--jobs", 1)
    assert ran.code == exit_code, ran.err
    assert words.split("'")[0] in ran.error and AGAIN not in ran.error
    assert registry.address in ran.error and REPO in ran.error
    assert not registry.tags(REPO)
    asked = [entry.target.partition("digest=")[2] for entry in registry.recording.find(method, path)]
    assert len(asked) == len(set(asked)) or method == "GET", "it is not asked for twice"


def test_a_tag_that_a_rule_keeps_is_not_told_to_be_pushed_elsewhere(cli, fake_registry, store):
    registry = fake_registry()
    assert push(cli, registry, store).code == 0
    kept = "the tag v1 configured as immutable, cannot be deleted"
    registry.fault("DELETE", MANIFESTS, Respond(412, code="PRECONDITION", message=kept))
    ran = cli("rm", f"{registry.address}/{REPO}:v1", "--yes")
    assert ran.code == 9 and kept in ran.error and "push to another tag" not in ran.error and registry.tags(REPO)


@pytest.mark.parametrize("said", ["quota", "read only mode", "proxy project"])
def test_what_is_no_question_of_permissions_is_not_called_one(cli, fake_registry, store, said):
    registry = fake_registry()
    registry.fault("POST", UPLOADS, Respond(403, code="DENIED", message=f"it is {said}"))
    ran = push(cli, registry, store)
    assert ran.code == 4 and "permission" not in ran.error and "log in" not in ran.error


def test_a_missing_project_is_5(cli, fake_registry, store):
    """Harbor: 401 with an empty challenge, with a password or without."""
    registry = fake_registry()
    body = json.dumps({"errors": [{"code": "UNAUTHORIZED", "message": "project acme not found"}]}).encode()
    registry.fault("*", "/v2/acme/", Respond(401, body, ("WWW-Authenticate", "")))
    ran = push(cli, registry, store)
    assert ran.code == 5 and "project acme not found" in ran.error and AGAIN not in ran.error
    ran = push(cli, registry, store, "--username", USER, env={"EPOCH_OCI_PASSWORD": PASSWORD})
    assert ran.code == 5


def test_a_missing_project_behind_tokens_is_5(fake_registry):
    registry = fake_registry(auth=BearerAuth({USER: PASSWORD}, anonymous=None))
    authorized = lambda request: request.headers.get("Authorization", "").startswith("Bearer")  # noqa: E731
    registry.fault("POST", UPLOADS, Respond(401, b"", ("WWW-Authenticate", "")), when=authorized)
    repository, _ = room(registry, login=True)
    with pytest.raises(NotFoundError):
        repository.put(blob(RAW), BytesContent(RAW))


def test_401_without_a_challenge_is_4(fake_registry):
    registry = fake_registry()
    registry.fault("GET", MANIFESTS, Respond(401, code="UNAUTHORIZED"))
    with pytest.raises(AccessError, match=re.escape(registry.address)):
        room(registry)[0].resolve("v1")


@pytest.mark.parametrize(
    "said",
    [b"<html>400 The plain HTTP request was sent to HTTPS port", b"Client sent an HTTP request to an HTTPS server."],
)
def test_http_to_an_https_port_is_said_so(cli, fake_registry, store, said):
    registry = fake_registry()
    registry.fault("*", "/v2/", Respond(400, said))
    ran = push(cli, registry, store)
    assert ran.code == 2 and "--plain-http" in ran.error


STEPS = [("HEAD|GET", BLOB), ("POST", UPLOADS), ("PUT", UPLOADS), ("PUT", MANIFESTS), ("GET", MANIFESTS)]


@pytest.mark.parametrize("step", STEPS, ids=" ".join)
@pytest.mark.parametrize("status", [400, 401, 403, 422, 451, 505])
def test_the_last_line_names_host_and_object(cli, fake_registry, store, step, status):
    registry = fake_registry()
    registry.fault(*step, Respond(status))
    ran = push(cli, registry, store)
    assert ran.code in (2, 4, 5) and AGAIN not in ran.error
    assert registry.address in ran.error and (REPO in ran.error or "sha256:" in ran.error)


@pytest.mark.parametrize("step", STEPS, ids=" ".join)
@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_what_may_pass_is_told_with_host_and_object_as_well(fake_registry, step, status):
    registry = fake_registry(check_references=False)
    registry.fault(*step, Respond(status))
    repository, _ = room(registry)
    with pytest.raises(NetworkError) as caught:
        repository.holds(blob(RAW))
        repository.put(blob(RAW), BytesContent(RAW))
        repository.publish("v1", Document(MANIFEST, manifest([b"layer"])))
    assert registry.address in caught.value.message and REPO in caught.value.message
    assert caught.value.status == status


# Words of the registry


def test_warnings_of_a_registry_are_shown_once_each(cli, fake_registry, store):
    registry = fake_registry()
    registry.fault("*", "/v2/", SetHeader("Warning", '299 - "this registry moves in May", 299 - "and a \\"second\\""'))
    ran = push(cli, registry, store)
    assert ran.code == 0
    assert ran.err.count("this registry moves in May") == 1 and ran.err.count("second") == 1


@pytest.mark.parametrize("value", ['199 - "stale"', "299 - unquoted", '299 - "', "x" * 10_000, ""])
def test_a_warning_that_is_none_is_passed_over(fake_registry, value):
    registry = fake_registry()
    registry.put_blob(REPO, RAW)
    registry.fault("HEAD", BLOB, SetHeader("Warning", value))
    repository, heard = room(registry)
    assert repository.has(blob(RAW)) and not heard.events


def test_warnings_have_an_end_and_hold_no_secret(fake_registry):
    registry = fake_registry(auth=BasicAuth())
    registry.put_blob(REPO, RAW)
    many = ", ".join(f'299 - "{number} {PASSWORD}\x1b[2J"' for number in range(50))
    registry.fault("HEAD", BLOB, SetHeader("Warning", many))
    repository, heard = room(registry, login=True)
    assert repository.has(blob(RAW))
    assert 0 < len(heard.events) < 20
    assert (
        not canary.shows(PASSWORD, f"{heard.events}") and "\x1b" not in f"{[event.message for event in heard.events]}"
    )


@pytest.mark.parametrize("name", ["X-Request-Id", "Traceparent"])
def test_the_request_is_named_for_who_runs_the_registry(cli, fake_registry, store, name):
    registry = fake_registry()
    registry.fault("PUT", MANIFESTS, Respond(403, b"", (name, "af37-09\x1b"), code="DENIED"))
    ran = push(cli, registry, store, "--format", "json", "--debug")
    assert ran.code == 4 and ran.json_error["requestId"].startswith("af37-09")
    assert "af37-09" in ran.err.split("Traceback")[0]


# A manifest that is not what was sent, or not whose


@pytest.mark.parametrize("indent", [1, 3, 7])
@pytest.mark.parametrize("stated", [True, False, "echoed"])
def test_a_manifest_stored_in_another_form_is_no_success(fake_registry, indent, stated):
    registry = fake_registry(check_references=False)
    document = Document(MANIFEST, manifest([b"layer"], annotations={"n": "1"}))
    other = json.dumps(json.loads(document.raw), indent=indent).encode()

    def rewrite(request) -> bool:
        registry.put_manifest(REPO, "v1", other)
        return True

    told = document if stated == "echoed" else Document(MANIFEST, other)
    answer = [("Docker-Content-Digest", str(told.digest))] if stated else []
    registry.fault("PUT", MANIFESTS, Respond(201, b"", *answer), when=rewrite)
    repository, _ = room(registry)
    with pytest.raises(ContentError) as caught:
        repository.publish("v1", document)
    assert caught.value.code == "DIGEST"


@pytest.mark.parametrize("kind", ["text/plain", "application/json", "application/vnd.oci.image.index.v1+json", ""])
def test_a_manifest_is_what_it_says_it_is(fake_registry, kind):
    registry = fake_registry()
    digest = registry.put_image(REPO, "v1", [b"layer"])
    registry.fault("GET", MANIFESTS, SetHeader("Content-Type", *([kind] if kind else [])))
    repository, _ = room(registry)
    for name in ("v1", digest):
        found = repository.resolve(name)
        assert (found.media_type, str(found.digest)) == (MANIFEST, digest)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ({"schemaVersion": 2, "config": {}, "layers": []}, MANIFEST),
        ({"schemaVersion": 2, "mediaType": None, "layers": []}, MANIFEST),
        ({"schemaVersion": 2, "mediaType": "", "manifests": []}, "application/vnd.oci.image.index.v1+json"),
        ({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.config.v1+json", "layers": []}, None),
        ({"schemaVersion": 2}, None),
        ({"errors": []}, None),
        ([], None),
    ],
)
def test_without_a_media_type_the_shape_decides(fake_registry, value, kind):
    registry = fake_registry()
    raw = json.dumps(value).encode()
    registry.put_manifest(REPO, "v1", raw)
    registry.fault("GET", MANIFESTS, SetHeader("Content-Type", "text/plain; charset=utf-8"))
    repository, _ = room(registry)
    if kind is not None:
        assert repository.resolve("v1").media_type == kind and repository.resolve("v1").raw == raw
        return
    with pytest.raises(ContentError) as caught:
        repository.resolve("v1")
    assert caught.value.code == "TYPE"


@pytest.mark.parametrize("encoding", ["aws-chunked", "gzip", "br", "x-unknown"])
def test_an_encoding_that_changes_nothing_is_none(fake_registry, encoding):
    registry = fake_registry()
    registry.put_image(REPO, "v1", [RAW])
    registry.fault("GET", "/v2/", SetHeader("Content-Encoding", encoding))
    repository, _ = room(registry)
    repository.resolve("v1")
    with repository.content(blob(RAW)).open() as reader:
        assert b"".join(iter(reader.read, b"")) == RAW


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("stated", [True, False])
def test_of_two_who_push_at_once_one_is_told(fake_registry, stated, replace):
    registry = fake_registry(check_references=False)
    mine, theirs = (Document(MANIFEST, manifest([b"layer"], annotations={"n": who})) for who in ("mine", "theirs"))
    if not stated:
        registry.fault("PUT", MANIFESTS, SetHeader("Docker-Content-Digest"))

    def overtaken(request) -> bool:
        if registry.tags(REPO):
            registry.put_manifest(REPO, "v1", theirs.raw)
        return False

    registry.fault("GET", MANIFESTS, Respond(500), when=overtaken, optional=True)
    with pytest.raises(ConflictError, match=str(theirs.digest)):
        room(registry)[0].publish("v1", mine, replace=replace)


def test_a_manifest_that_is_shown_late_is_waited_for(fake_registry):
    registry = fake_registry(check_references=False)
    registry.fault("GET", MANIFESTS, Respond(404, code="MANIFEST_UNKNOWN"), nth=(2, 3))
    repository, heard = room(registry)
    repository.publish("v1", Document(MANIFEST, manifest([b"layer"])))
    assert len(heard.waits) == 2


def test_who_may_write_and_not_read_is_content_with_a_stated_digest(fake_registry):
    registry = fake_registry(check_references=False)
    registry.fault("GET", MANIFESTS, Respond(412, code="PROJECTPOLICYVIOLATION", message="not signed"))
    document = Document(MANIFEST, manifest([b"layer"]))
    repository, heard = room(registry)
    repository.publish("v1", document, replace=True)
    assert not heard.events
    registry.fault("PUT", MANIFESTS, SetHeader("Docker-Content-Digest"))
    repository.publish("v2", document, replace=True)
    assert ["not signed" in event.message for event in heard.events if event.event == "warning"] == [True]


# Led elsewhere


@pytest.mark.parametrize(
    "step", [("POST", UPLOADS), ("PUT", UPLOADS), ("PATCH", UPLOADS), ("PUT", MANIFESTS)], ids=" ".join
)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("where", ["redirect", "location"])
def test_an_upload_that_is_led_from_https_to_http_is_8(fake_registry, recorder, tls_kit, step, status, where):
    """Neither by a redirect nor by the place that a session is said to be at, and whomever the user trusts."""
    registry = fake_registry(tls="good", check_references=False)
    if where == "redirect":
        registry.fault(*step, Redirect(recorder.url, status))
    elif step == ("POST", UPLOADS) or step[0] == "PATCH":
        registry.fault(*step, ForeignLocation(recorder.url))
    else:
        pytest.skip("it names no place to send to")
    shape = "ranged" if step[0] == "PATCH" else "put"
    profile = Profile(name="one", hosts="x", shapes=(shape,), chunk=1 << 20)
    trusted = frozenset({recorder.address})
    repository, _ = room(registry, ca_file=str(tls_kit.ca_file), profile=profile, trusted=trusted)
    with pytest.raises(PolicyError) as caught:
        repository.put(blob(RAW), BytesContent(RAW))
        repository.publish("v1", Document(MANIFEST, manifest([b"layer"])))
    assert "https" in (caught.value.hint or "")
    recorder.assert_untouched()


def test_http_that_leads_to_https_is_told_so(cli, fake_registry, store, waits):
    registry = fake_registry()
    registry.fault("*", "/v2/", Redirect(lambda request: f"https://{registry.address}{request.target}", 301))
    ran = push(cli, registry, store)
    assert ran.code in (6, 8)
    registry.clear_faults()
    registry.fault("POST", UPLOADS, Redirect(lambda request: f"https://{registry.address}{request.target}", 301))
    ran = push(cli, registry, store)
    assert ran.code == 8 and "--plain-http" in ran.error and AGAIN not in ran.error


@pytest.mark.parametrize("status", [307, 308])
@pytest.mark.parametrize("step", [("POST", UPLOADS), ("PUT", UPLOADS), ("PATCH", UPLOADS)], ids=" ".join)
def test_within_the_registry_it_goes_where_it_is_led(fake_registry, step, status):
    registry = fake_registry()
    shape = "stream" if step[0] == "PATCH" else "put"
    again = lambda request: request.target + ("&" if "?" in request.target else "?") + "again=1"  # noqa: E731
    registry.fault(*step, Redirect(again, status), when=lambda request: "again" not in request.target)
    repository, _ = room(registry, profile=Profile(name="one", hosts="x", shapes=(shape,)))
    repository.put(blob(RAW), BytesContent(RAW))
    assert str(blob(RAW).digest) in registry.blobs(REPO)


@pytest.mark.parametrize("step", [("POST", UPLOADS), ("PUT", UPLOADS)], ids=" ".join)
def test_a_circle_within_the_registry_ends(fake_registry, step):
    registry = fake_registry()
    registry.fault(*step, Redirect(lambda request: request.target, 307))
    with pytest.raises(ContentError):
        room(registry)[0].put(blob(RAW), BytesContent(RAW))
    assert registry.recording.count(*step) < 10


# What may not be read need not be


@pytest.mark.parametrize("status", [403, 412])
@pytest.mark.parametrize("verb", ["push", "copy"])
def test_force_needs_no_look_at_the_old_tag(cli, fake_registry, store, status, verb):
    registry = fake_registry()
    assert push(cli, registry, store).code == 0
    first = registry.tags(REPO)["v1"]
    refused = Respond(status, code="PROJECTPOLICYVIOLATION", message="not signed")
    registry.fault("GET|HEAD", r"/acme/bot/manifests/v1$", refused)
    target = f"{registry.address}/{REPO}:v1"
    if verb == "copy":
        at = f"{registry.address}/acme/other:v1"
        assert cli("push", "team/bot:v1", at, "--store", store, "--allow-public", "-a", "org.x=1").code == 0
        words = ("copy", at, target, "--allow-public")
    else:
        words = ("push", "team/bot:v1", target, "--store", store, "--allow-public", "-a", "org.x=1")
    kept = cli(*words)
    assert kept.code == 4 and "not signed" in kept.error
    assert cli(*words, "--force").code == 0
    assert registry.tags(REPO)["v1"] != first


# What vanishes in between


def vanishing(registry, times: int):
    """Garbage collection between the last blob and the manifest."""
    gone = []

    def collect(request) -> bool:
        if len(gone) < times:
            gone.append(max(registry.blobs(REPO), key=registry.blobs(REPO).__getitem__))
            registry.delete_blob(REPO, gone[-1])
        return False

    registry.fault("PUT", MANIFESTS, Respond(500), when=collect, optional=True)
    return gone


def test_a_blob_that_vanished_is_sent_again_by_the_run_itself(cli, fake_registry, store):
    registry = fake_registry()
    gone = vanishing(registry, 1)
    ran = push(cli, registry, store, "--format", "json")
    assert ran.code == 0 and len(gone) == 1, ran.err
    assert registry.tags(REPO) and gone[0] in registry.blobs(REPO)
    assert {row["action"] for row in ran.json["blobs"]} == {"sent"}
    assert ran.json["bytesTransferred"] == ran.json["size"] and ran.json["retries"] == 1
    assert "sent again" in ran.err


def test_it_is_sent_again_once(cli, fake_registry, store):
    registry = fake_registry()
    gone = vanishing(registry, 5)
    ran = push(cli, registry, store)
    assert ran.code == 6 and len(gone) == 2 and gone[1].partition(":")[2] in ran.error
    assert not registry.tags(REPO)


def test_a_copy_sends_it_again_too(cli, fake_registry, store):
    source, registry = fake_registry(), fake_registry()
    assert push(cli, source, store).code == 0
    gone = vanishing(registry, 1)
    at = (f"{source.address}/{REPO}:v1", f"{registry.address}/{REPO}:v1")
    assert cli("copy", *at, "--allow-public").code == 0 and gone[0] in registry.blobs(REPO)


# Right that one request lacks


def test_a_cancel_that_is_refused_moves_nobody_onto_the_password(fake_registry):
    """Harbor's answer to a robot without `delete`."""
    registry = fake_registry(auth=BearerAuth({USER: PASSWORD}, anonymous=None), check_references=False)
    registry.fault("DELETE", UPLOADS, Respond(401, b"", ("WWW-Authenticate", 'Basic realm="harbor"')))
    repository, _ = room(registry, login=True)
    repository.check_write()
    repository.put(blob(RAW), BytesContent(RAW))
    repository.publish("v1", Document(MANIFEST, manifest([])))
    sent = [entry.header("authorization") or "" for entry in registry.recording.find("*", "/v2/")]
    assert not any(header.startswith("Basic") for header in sent) and sent[-1].startswith("Bearer")


def test_nor_does_a_single_challenge_move_the_password_onto_tokens(fake_registry):
    registry = fake_registry(auth=BasicAuth())
    challenge = f'Bearer realm="{registry.url}/token",service="x"'
    registry.fault("DELETE", UPLOADS, Respond(401, b"", ("WWW-Authenticate", challenge)))
    repository, _ = room(registry, login=True)
    repository.check_write()
    repository.put(blob(RAW), BytesContent(RAW))
    assert registry.recording.count("*", "/token") == 0
    assert (registry.recording[-1].header("authorization") or "").startswith("Basic")


@pytest.mark.parametrize("uses", [1, 2, 3])
@pytest.mark.parametrize("shape", ["put", "stream", "ranged"])
def test_tokens_that_die_every_few_requests_last_for_a_push(cli, fake_registry, store, shape, uses):
    registry = fake_registry(auth=BearerAuth({USER: PASSWORD}, anonymous=None, uses=uses))
    profile = {"put": "harbor", "stream": "dockerhub", "ranged": "acr"}[shape]
    words = ("--username", USER, "--profile", profile)
    ran = push(cli, registry, store, *words, env={"EPOCH_OCI_PASSWORD": PASSWORD})
    assert ran.code == 0 and registry.tags(REPO), ran.err


@pytest.mark.parametrize("verb", ["inspect", "pull", "verify", "convert"])
def test_one_child_listed_many_times_is_not_read_as_often_and_told_of_in_a_line(cli, fake_registry, tmp_path, verb):
    registry = fake_registry()
    child = registry.put_image(REPO, "child", [b"no snapshot"])
    row = {"mediaType": MANIFEST, "digest": child, "size": len(registry.manifest(REPO, "child"))}
    value = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [row] * 900}
    registry.put_manifest(REPO, "v1", json.dumps(value).encode(), INDEX)
    more = ("-o", tmp_path / "out") if verb == "pull" else ("--fast",) if verb == "verify" else ()
    ran = cli(verb, f"{registry.address}/{REPO}:v1", *more)
    assert ran.code == 3 and len(ran.error) < 1000, ran.err
    assert registry.recording.count("GET", f"/manifests/{child}") <= 2


@pytest.mark.parametrize("shape", ["put", "stream", "ranged"])
@pytest.mark.parametrize(
    "answer", [Respond(413, code="DENIED", message="project quota exceeded"), Respond(507)], ids=["413", "507"]
)
def test_want_of_room_is_no_matter_of_shape(fake_registry, shape, answer):
    registry = fake_registry()
    registry.fault("PUT|PATCH", UPLOADS, answer)
    repository, heard = room(registry, profile=Profile(name="one", hosts="x", shapes=(shape,)))
    with pytest.raises(AccessError) as caught:
        repository.put(blob(RAW), BytesContent(RAW))
    assert "make room" in str(caught.value.hint) and not heard.waits


@pytest.mark.parametrize("said", [{"message": "GUEST-MEMORY"}, {"code": "GUEST-MEMORY x", "message": "GUEST-MEMORY"}])
def test_what_only_looks_like_an_error_document_is_not_shown_of_a_blob(fake_registry, said):
    registry = fake_registry()
    registry.fault("GET", BLOB, Respond(400, json.dumps({"errors": [said]}).encode()))
    repository, heard = room(registry)
    with pytest.raises(EpochOciError) as caught, repository.content(blob(RAW)).open() as reader:
        reader.read(1)
    assert "GUEST" not in f"{caught.value!r} {heard.events} {heard.debug}"


@pytest.mark.parametrize(
    ("method", "path", "answer"),
    [
        ("GET", BLOB, Respond(404, b"", ("X-Request-Id", "af37"))),
        ("PUT|PATCH", UPLOADS, Respond(413, b"", ("X-Request-Id", "af37"))),
        ("PUT", UPLOADS, Respond(404, b"", ("X-Request-Id", "af37"), code="NOT_FOUND", message="in GC")),
    ],
    ids=["absent", "unsendable", "held"],
)
def test_errors_that_have_words_of_ours_name_the_exchange_too(fake_registry, method, path, answer):
    registry = fake_registry()
    registry.fault(method, path, answer)
    repository, _ = room(registry)
    with pytest.raises(EpochOciError) as caught:
        if method == "GET":
            with repository.content(blob(RAW)).open() as reader:
                reader.read(1)
        else:
            repository.put(blob(RAW), BytesContent(RAW))
    assert caught.value.request_id == "af37"
