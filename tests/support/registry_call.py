"""A routed request, and what registries legally differ in: ``Call`` and ``Behaviour``."""

import re
from dataclasses import dataclass

from support.wire import Answer, Request

TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")


@dataclass(slots=True)
class Behaviour:
    """What registries legally differ in. May be changed while the registry runs."""

    check_references: bool = True
    """PUT of a manifest with an absent blob or child: 400 MANIFEST_BLOB_UNKNOWN."""
    strict_accept: bool = True
    """A manifest whose type the Accept header does not list: 404 MANIFEST_UNKNOWN, as distribution answers."""
    referrers: bool = True
    monolithic_post: bool = True
    """POST ?digest= takes the blob (201); otherwise it opens a session (202), as distribution does."""
    mount: bool = True
    location: str = "absolute"
    """Or "relative"."""
    chunk_min_length: int | None = None
    page_size: int | None = None
    """Most tags a page, whatever ``n`` says."""
    max_manifest: int = 4 * 1024 * 1024
    deletes: bool = True
    deletes_tags: bool = True
    """DELETE of a tag removes it; otherwise only manifests can be deleted, by digest (distribution 2)."""
    catalog: bool = True
    discard_broken_uploads: bool = False
    """A body that breaks off ends its session (zot); otherwise what arrived stays (distribution)."""


@dataclass(slots=True)
class Call:
    """A routed request."""

    request: Request
    name: str
    reference: str = ""


def created(call: Call, behaviour: Behaviour, kind: str, digest: str) -> Answer:
    """201 for a blob or manifest."""
    prefix = call.request.origin if behaviour.location == "absolute" else ""
    location = f"{prefix}/v2/{call.name}/{kind}/{digest}"
    return Answer(201, [("Location", location), ("Docker-Content-Digest", digest)])


def not_found() -> Answer:
    """What distribution's router says to a path it does not know."""
    return Answer.of(404, b"404 page not found\n", ("Content-Type", "text/plain; charset=utf-8"))
