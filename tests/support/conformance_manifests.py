"""Conformance checks: manifests, tags and referrers."""

import json
from collections.abc import Sequence

from support.client import ACCEPT, Client, Response
from support.conformance_check import ABSENT, DATA, DISTRIBUTION_2, DISTRIBUTION_3, check, refused
from support.content import CONFIG, DOCKER_MANIFEST, INDEX, MANIFEST, descriptor, digest_of, index, manifest


def _push_manifest(client: Client, repo: str, tag: str = "v1", **members: object) -> bytes:
    client.push_blob(repo, DATA)
    body = manifest([DATA], config=DATA, **members)
    assert client.push_manifest(repo, tag, body).status == 201
    return body


# Manifests


@check()
def manifest_comes_back_by_tag_and_digest(client: Client, repo: str) -> None:
    body = _push_manifest(client, repo, annotations={"b": "ü", "a": "1"})
    for reference in ("v1", digest_of(body)):
        reply = client.manifest(repo, reference)
        assert (reply.status, reply.body) == (200, body)
        assert reply.header("Content-Type") == MANIFEST
        assert reply.header("Docker-Content-Digest") == digest_of(body)
        head = client.manifest(repo, reference, "HEAD")
        assert (head.status, head.header("Content-Length"), head.body) == (200, str(len(body)), b"")


@check()
def manifest_put_names_its_digest(client: Client, repo: str) -> None:
    client.push_blob(repo, DATA)
    body = manifest([DATA], config=DATA)
    reply = client.push_manifest(repo, "v1", body)
    assert (reply.status, reply.header("Docker-Content-Digest")) == (201, digest_of(body))
    assert reply.location.endswith(f"/v2/{repo}/manifests/{digest_of(body)}")


@check()
def manifest_put_by_digest_makes_no_tag(client: Client, repo: str) -> None:
    _push_manifest(client, repo, "v1")
    other = manifest([], config=DATA)
    assert client.push_manifest(repo, digest_of(other), other).status == 201
    tags = json.loads(client.request("GET", f"/v2/{repo}/tags/list").body)["tags"]
    assert tags == ["v1"]


@check()
def manifest_put_under_another_digest_is_refused(client: Client, repo: str) -> None:
    client.push_blob(repo, DATA)
    refused(client.push_manifest(repo, ABSENT, manifest([DATA], config=DATA)), "DIGEST_INVALID", 400)


@check()
def manifest_with_an_absent_layer_is_refused(client: Client, repo: str) -> None:
    client.push_blob(repo, DATA)
    refused(client.push_manifest(repo, "v1", manifest([b"absent"], config=DATA)), "MANIFEST_BLOB_UNKNOWN", 400, 404)


@check()
def manifest_with_an_absent_config_is_refused(client: Client, repo: str) -> None:
    client.push_blob(repo, DATA)
    refused(client.push_manifest(repo, "v1", manifest([DATA], config=b"0")), "MANIFEST_BLOB_UNKNOWN", 400, 404)


@check()
def manifest_that_is_not_json_is_refused(client: Client, repo: str) -> None:
    refused(client.push_manifest(repo, "v1", b"junk"), "MANIFEST_INVALID", 400)


@check()
def manifest_of_two_types_is_refused(client: Client, repo: str) -> None:
    client.push_blob(repo, DATA)
    body = manifest([DATA], config=DATA, mediaType=DOCKER_MANIFEST)
    refused(client.push_manifest(repo, "v1", body), "MANIFEST_INVALID", 400)
    refused(client.push_manifest(repo, "v1", body, "application/json"), "MANIFEST_INVALID", 400)


@check()
def manifest_over_4_mib_is_refused(client: Client, repo: str) -> None:
    client.push_blob(repo, DATA)
    body = manifest([DATA], config=DATA, annotations={"a": "x" * (4 << 20)})
    refused(client.push_manifest(repo, "v1", body), "MANIFEST_INVALID", 400, 413)


@check()
def illegal_tag_is_404(client: Client, repo: str) -> None:
    assert client.push_manifest(repo, ".bad", b"{}").status == 404


@check()
def absent_manifest_is_manifest_unknown(client: Client, repo: str) -> None:
    for reference in ("none", ABSENT):
        refused(client.manifest(repo, reference), "MANIFEST_UNKNOWN", 404)
        assert client.manifest(repo, reference, "HEAD").status == 404


@check()
def manifest_needs_an_accept_header_that_lists_it(client: Client, repo: str) -> None:
    body = _push_manifest(client, repo)
    for headers in ({}, {"Accept": "*/*"}, {"Accept": INDEX}):
        assert client.request("GET", f"/v2/{repo}/manifests/v1", **headers).status == 404
    wordy = f"application/json, {MANIFEST};q=0.5"
    assert client.request("GET", f"/v2/{repo}/manifests/v1", Accept=wordy).body == body


@check()
def matching_etag_is_304(client: Client, repo: str) -> None:
    etag = f'"{digest_of(_push_manifest(client, repo))}"'
    reply = client.request("GET", f"/v2/{repo}/manifests/v1", **ACCEPT, If_None_Match=etag)
    assert (reply.status, reply.body) == (304, b"")


@check()
def tag_moves_and_the_old_manifest_stays(client: Client, repo: str) -> None:
    old, new = _push_manifest(client, repo), _push_manifest(client, repo, annotations={"n": "2"})
    assert client.manifest(repo, "v1").body == new
    assert client.manifest(repo, digest_of(old)).body == old


@check()
def index_over_known_manifests_is_stored(client: Client, repo: str) -> None:
    child = _push_manifest(client, repo, "child")
    body = index([descriptor(child, MANIFEST)])
    assert client.push_manifest(repo, "all", body, INDEX).status == 201
    assert client.manifest(repo, "all").body == body
    orphan = index([descriptor(b"absent", MANIFEST)])
    refused(client.push_manifest(repo, "bad", orphan, INDEX), "MANIFEST_BLOB_UNKNOWN", 400, 404)


# distribution 2.8 deletes by digest only.
@check(DISTRIBUTION_2)
def deleting_a_tag_leaves_the_manifest(client: Client, repo: str) -> None:
    body = _push_manifest(client, repo)
    assert client.request("DELETE", f"/v2/{repo}/manifests/v1").status == 202
    assert client.manifest(repo, "v1").status == 404
    assert client.manifest(repo, digest_of(body)).status == 200


@check()
def deleting_a_manifest_takes_its_tags(client: Client, repo: str) -> None:
    body = _push_manifest(client, repo)
    assert client.request("DELETE", f"/v2/{repo}/manifests/{digest_of(body)}").status == 202
    assert client.manifest(repo, "v1").status == 404
    again = client.request("DELETE", f"/v2/{repo}/manifests/{digest_of(body)}")
    refused(again, "MANIFEST_UNKNOWN", 404)


# Tags and referrers


def _tags(reply: Response) -> Sequence[str]:
    tags: list[str] = json.loads(reply.body)["tags"]
    return tags


@check()
def tags_are_listed(client: Client, repo: str) -> None:
    for tag in ("b", "a", "c"):
        _push_manifest(client, repo, tag)
    reply = client.request("GET", f"/v2/{repo}/tags/list")
    assert json.loads(reply.body)["name"] == repo
    assert sorted(_tags(reply)) == ["a", "b", "c"]


# distribution 2.8 has no pages and no order.
@check(DISTRIBUTION_2)
def tags_are_paged_by_link(client: Client, repo: str) -> None:
    for tag in "edcba":
        _push_manifest(client, repo, tag)
    seen, target = [], f"/v2/{repo}/tags/list?n=2"
    while target:
        reply = client.request("GET", target)
        seen.append(_tags(reply))
        link = reply.headers.get("Link", "")
        assert not link or link.endswith('>; rel="next"')
        target = link[1 : link.index(">")] if link else ""
    assert seen == [["a", "b"], ["c", "d"], ["e"]]
    assert _tags(client.request("GET", f"/v2/{repo}/tags/list?n=0")) == []
    assert _tags(client.request("GET", f"/v2/{repo}/tags/list?last=c")) == ["d", "e"]
    assert client.request("GET", f"/v2/{repo}/tags/list?n=-1").status == 400


@check()
def tags_of_an_unknown_repository_are_404(client: Client, repo: str) -> None:
    refused(client.request("GET", f"/v2/{repo}/tags/list"), "NAME_UNKNOWN", 404)


# distribution has no referrers API.
@check(DISTRIBUTION_2, DISTRIBUTION_3)
def referrers_are_listed_and_filtered(client: Client, repo: str) -> None:
    subject = _push_manifest(client, repo)
    body = manifest([DATA], config=DATA, subject=descriptor(subject, MANIFEST), annotations={"k": "v"})
    assert client.push_manifest(repo, digest_of(body), body).header("OCI-Subject") == digest_of(subject)
    reply = client.request("GET", f"/v2/{repo}/referrers/{digest_of(subject)}")
    assert (reply.status, reply.header("Content-Type")) == (200, INDEX)
    entry = descriptor(body, MANIFEST, artifactType=CONFIG, annotations={"k": "v"})
    assert json.loads(reply.body)["manifests"] == [entry]
    none = client.request("GET", f"/v2/{repo}/referrers/{digest_of(subject)}?artifactType=other")
    assert none.header("OCI-Filters-Applied") == "artifactType"
    assert json.loads(none.body)["manifests"] == []
    assert json.loads(client.request("GET", f"/v2/{repo}/referrers/{ABSENT}").body)["manifests"] == []
