"""Conformance checks: ping, routing, blobs and uploads."""

import json

from support.client import Client, Response, with_digest
from support.conformance_check import ABSENT, DATA, DIGEST, DISTRIBUTION_2, DISTRIBUTION_3, check, refused
from support.content import OCTETS, digest_of


def _patch(client: Client, location: str, data: bytes, **headers: str) -> Response:
    return client.request("PATCH", location, data, Content_Type=OCTETS, **headers)


# Ping and routing


@check()
def ping_answers_200_with_json(client: Client, repo: str) -> None:
    reply = client.request("GET", "/v2/")
    assert reply.status == 200
    assert reply.header("Content-Type").startswith("application/json")
    assert json.loads(reply.body) == {}


@check()
def ping_without_slash_redirects(client: Client, repo: str) -> None:
    reply = client.request("GET", "/v2")
    assert (reply.status, reply.location) == (301, "/v2/")


@check()
def unknown_path_is_404(client: Client, repo: str) -> None:
    assert client.request("GET", "/other").status == 404


@check()
def upper_case_repository_is_404(client: Client, repo: str) -> None:
    assert client.request("GET", f"/v2/{repo}UP/manifests/v1").status == 404


@check()
def wrong_method_is_405(client: Client, repo: str) -> None:
    assert client.request("PUT", f"/v2/{repo}/tags/list").status == 405
    assert client.request("POST", f"/v2/{repo}/blobs/{DIGEST}").status == 405


# Reading blobs


@check()
def absent_blob_is_blob_unknown(client: Client, repo: str) -> None:
    assert client.request("HEAD", f"/v2/{repo}/blobs/{ABSENT}").status == 404
    refused(client.request("GET", f"/v2/{repo}/blobs/{ABSENT}"), "BLOB_UNKNOWN", 404)


@check()
def malformed_digest_is_digest_invalid(client: Client, repo: str) -> None:
    refused(client.request("GET", f"/v2/{repo}/blobs/sha256:zz"), "DIGEST_INVALID", 400)


@check()
def head_blob_tells_size_and_digest(client: Client, repo: str) -> None:
    client.push_blob(repo, DATA)
    reply = client.request("HEAD", f"/v2/{repo}/blobs/{DIGEST}")
    assert (reply.status, reply.body) == (200, b"")
    assert reply.header("Content-Length") == str(len(DATA))
    assert reply.header("Docker-Content-Digest") == DIGEST


@check()
def get_blob_gives_the_bytes(client: Client, repo: str) -> None:
    client.push_blob(repo, DATA)
    reply = client.request("GET", f"/v2/{repo}/blobs/{DIGEST}")
    assert (reply.status, reply.body) == (200, DATA)
    assert reply.header("Accept-Ranges") == "bytes"
    assert reply.header("Content-Type") == OCTETS


def _range(client: Client, repo: str, value: str, **headers: str) -> Response:
    return client.request("GET", f"/v2/{repo}/blobs/{DIGEST}", Range=value, **headers)


@check()
def range_gives_206_and_the_part(client: Client, repo: str) -> None:
    client.push_blob(repo, DATA)
    wanted = {"bytes=2-4": (2, 4), "bytes=6-": (6, 10), "bytes=-3": (8, 10), "bytes=0-100": (0, 10)}
    for value, (first, last) in wanted.items():
        reply = _range(client, repo, value)
        assert (reply.status, reply.body) == (206, DATA[first : last + 1]), value
        assert reply.header("Content-Range") == f"bytes {first}-{last}/{len(DATA)}"
        assert reply.header("Content-Length") == str(last + 1 - first)


@check()
def head_with_range_has_no_body(client: Client, repo: str) -> None:
    client.push_blob(repo, DATA)
    reply = client.request("HEAD", f"/v2/{repo}/blobs/{DIGEST}", Range="bytes=2-4")
    assert (reply.status, reply.header("Content-Length"), reply.body) == (206, "3", b"")


# distribution 2.8 promises the blob's length in a 416 that has no body.
@check(DISTRIBUTION_2)
def range_beyond_the_end_is_416(client: Client, repo: str) -> None:
    client.push_blob(repo, DATA)
    reply = _range(client, repo, "bytes=11-")
    assert reply.status == 416
    assert reply.header("Content-Range") == "bytes */11"


@check(DISTRIBUTION_2)
def nonsense_range_is_416(client: Client, repo: str) -> None:
    client.push_blob(repo, DATA)
    assert _range(client, repo, "bytes=5-2").status == 416
    assert _range(client, repo, "junk").status == 416


@check()
def if_range_with_another_etag_gives_the_whole(client: Client, repo: str) -> None:
    client.push_blob(repo, DATA)
    assert _range(client, repo, "bytes=2-4", If_Range='"other"').status == 200
    assert _range(client, repo, "bytes=2-4", If_Range=f'"{DIGEST}"').status == 206


# Uploads


@check()
def opened_upload_is_empty(client: Client, repo: str) -> None:
    reply = client.request("POST", f"/v2/{repo}/blobs/uploads/")
    assert (reply.status, reply.header("Range")) == (202, "0-0")
    status = client.request("GET", reply.location)
    assert (status.status, status.header("Range")) == (204, "0-0")


@check()
def single_put_stores_the_blob(client: Client, repo: str) -> None:
    reply = client.request("PUT", with_digest(client.open_upload(repo), DIGEST), DATA, Content_Type=OCTETS)
    assert reply.status == 201
    assert reply.location.endswith(f"/v2/{repo}/blobs/{DIGEST}")
    assert reply.header("Docker-Content-Digest") == DIGEST
    assert client.request("GET", f"/v2/{repo}/blobs/{DIGEST}").body == DATA


@check()
def empty_blob_may_be_stored(client: Client, repo: str) -> None:
    digest = client.push_blob(repo, b"")
    assert client.request("GET", f"/v2/{repo}/blobs/{digest}").body == b""


@check()
def chunks_without_range_append(client: Client, repo: str) -> None:
    first = _patch(client, client.open_upload(repo), DATA[:5])
    assert (first.status, first.header("Range")) == (202, "0-4")
    second = _patch(client, first.location, DATA[5:])
    assert (second.status, second.header("Range")) == (202, f"0-{len(DATA) - 1}")
    assert client.request("PUT", with_digest(second.location, DIGEST)).status == 201


@check()
def chunks_in_order_append(client: Client, repo: str) -> None:
    first = _patch(client, client.open_upload(repo), DATA[:5], Content_Range="0-4")
    second = _patch(client, first.location, DATA[5:], Content_Range="5-10")
    assert (first.status, second.status) == (202, 202)
    assert client.request("PUT", with_digest(second.location, DIGEST)).status == 201


@check()
def chunked_encoding_is_accepted(client: Client, repo: str) -> None:
    reply = client.request("PATCH", client.open_upload(repo), iter([DATA[:4], DATA[4:]]), Content_Type=OCTETS)
    assert (reply.status, reply.header("Range")) == (202, f"0-{len(DATA) - 1}")
    assert client.request("PUT", with_digest(reply.location, DIGEST)).status == 201


@check()
def last_chunk_may_ride_in_the_put(client: Client, repo: str) -> None:
    reply = _patch(client, client.open_upload(repo), DATA[:5])
    assert client.request("PUT", with_digest(reply.location, DIGEST), DATA[5:], Content_Type=OCTETS).status == 201


# distribution 2.8 does not look at Content-Range.
@check(DISTRIBUTION_2)
def chunk_out_of_order_is_416(client: Client, repo: str) -> None:
    first = _patch(client, client.open_upload(repo), DATA[:5], Content_Range="0-4")
    refused(_patch(client, first.location, DATA[7:], Content_Range="7-10"), "RANGE_INVALID", 416)
    status = client.request("GET", first.location)
    assert (status.status, status.header("Range")) == (204, "0-4")
    assert _patch(client, status.location, DATA[5:], Content_Range="5-10").status == 202


@check(DISTRIBUTION_2)
def chunk_shorter_than_its_range_is_size_invalid(client: Client, repo: str) -> None:
    refused(_patch(client, client.open_upload(repo), DATA, Content_Range="0-4"), "SIZE_INVALID", 400)


# distribution 2.8 says 404 BLOB_UPLOAD_INVALID.
@check(DISTRIBUTION_2)
def stale_location_is_416_for_a_chunk_but_tells_the_status(client: Client, repo: str) -> None:
    stale = client.open_upload(repo)
    assert _patch(client, stale, DATA[:5]).status == 202
    refused(_patch(client, stale, DATA[5:]), "RANGE_INVALID", 416)
    status = client.request("GET", stale)
    assert (status.status, status.header("Range")) == (204, "0-4")


@check()
def location_without_its_state_is_refused(client: Client, repo: str) -> None:
    bare = client.open_upload(repo).partition("?")[0]
    refused(_patch(client, bare, DATA), "BLOB_UPLOAD_INVALID", 404)


@check()
def wrong_digest_is_refused_and_the_session_stays(client: Client, repo: str) -> None:
    reply = _patch(client, client.open_upload(repo), DATA)
    refused(client.request("PUT", with_digest(reply.location, ABSENT)), "DIGEST_INVALID", 400)
    assert client.request("HEAD", f"/v2/{repo}/blobs/{ABSENT}").status == 404
    assert client.request("PUT", with_digest(reply.location, DIGEST)).status == 201


@check()
def closing_needs_a_digest(client: Client, repo: str) -> None:
    location = client.open_upload(repo)
    refused(client.request("PUT", location), "DIGEST_INVALID", 400)
    refused(client.request("PUT", with_digest(location, "sha256:zz")), "DIGEST_INVALID", 400)


@check()
def closed_session_is_gone(client: Client, repo: str) -> None:
    location = client.open_upload(repo)
    assert client.request("PUT", with_digest(location, DIGEST), DATA, Content_Type=OCTETS).status == 201
    refused(client.request("GET", location), "BLOB_UPLOAD_UNKNOWN", 404)


@check()
def cancelled_session_is_gone(client: Client, repo: str) -> None:
    location = client.open_upload(repo)
    assert client.request("DELETE", location).status == 204
    refused(client.request("GET", location), "BLOB_UPLOAD_UNKNOWN", 404)


# distribution opens a session (202) instead, which the specification allows.
@check(DISTRIBUTION_2, DISTRIBUTION_3)
def monolithic_post_stores_the_blob(client: Client, repo: str) -> None:
    reply = client.request("POST", f"/v2/{repo}/blobs/uploads/?digest={DIGEST}", DATA, Content_Type=OCTETS)
    assert reply.status == 201
    assert client.request("GET", f"/v2/{repo}/blobs/{DIGEST}").body == DATA


@check()
def mount_links_a_blob_of_another_repository(client: Client, repo: str) -> None:
    client.push_blob(f"{repo}/a", DATA)
    reply = client.request("POST", f"/v2/{repo}/b/blobs/uploads/?mount={DIGEST}&from={repo}/a")
    assert (reply.status, reply.header("Docker-Content-Digest")) == (201, DIGEST)
    assert client.request("GET", f"/v2/{repo}/b/blobs/{DIGEST}").body == DATA


@check()
def mount_of_an_absent_blob_opens_a_session(client: Client, repo: str) -> None:
    reply = client.request("POST", f"/v2/{repo}/b/blobs/uploads/?mount={ABSENT}&from={repo}/a")
    assert (reply.status, reply.header("Range")) == (202, "0-0")
    assert client.request("PUT", with_digest(reply.location, DIGEST), DATA, Content_Type=OCTETS).status == 201


# distribution stores under sha256 whatever was asked for.
@check(DISTRIBUTION_2, DISTRIBUTION_3)
def sha512_is_kept(client: Client, repo: str) -> None:
    digest = digest_of(DATA, "sha512")
    reply = client.request("PUT", with_digest(client.open_upload(repo), digest), DATA, Content_Type=OCTETS)
    assert (reply.status, reply.header("Docker-Content-Digest")) == (201, digest)


@check()
def deleted_blob_is_gone(client: Client, repo: str) -> None:
    client.push_blob(repo, DATA)
    assert client.request("DELETE", f"/v2/{repo}/blobs/{DIGEST}").status == 202
    assert client.request("HEAD", f"/v2/{repo}/blobs/{DIGEST}").status == 404
    refused(client.request("DELETE", f"/v2/{repo}/blobs/{DIGEST}"), "BLOB_UNKNOWN", 404)
