"""References to a registry, and the grammar of repositories and tags (distribution-spec, "Pulling manifests")."""

import re
from typing import Self

from epoch_oci.dataclass import dataclass
from epoch_oci.errors import ContentError, UsageError
from epoch_oci.oci.digest import Digest, shown
from epoch_oci.redaction import user_info

# distribution-spec 1.1, "Pulling manifests": separators never begin, end or follow each other.
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*\Z")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = re.compile(rf"(?:(?:{_LABEL})(?:\.{_LABEL})*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{{1,5}})?\Z")
_SCHEMES = ("docker://", "oci://")
_FALLBACK = re.compile(r"sha(?:256-[0-9a-f]{64}|512-[0-9a-f]{128})(?:\.[A-Za-z0-9._-]+)?\Z")
_ELSEWHERE = "OCI has no such name; what Epoch calls so is read out of its bucket: NAME:TAG --store s3://BUCKET"
# With the host, in many clients; some registries take less.
REPOSITORY_LIMIT = 255
TAG_LIMIT = 128


@dataclass(frozen=True, slots=True)
class Reference:
    """`registry/repository[:tag][@digest]`, every part checked."""

    registry: str
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str, *, wanted: bool = False) -> Self:
        """Read a reference, with or without `docker://` or `oci://`. Raises UsageError naming the broken rule.

        With `wanted` it is yet to be made, and the hint has a spelling that works; what is there has its own name.
        """
        refuse_user_info(text)
        rest = next((text[len(scheme) :] for scheme in _SCHEMES if text.startswith(scheme)), text)
        if "://" in rest:
            raise UsageError(
                f"{shown(text)} is not a registry reference",
                hint="write HOST[:PORT]/REPOSITORY[:TAG] without a scheme",
            )
        registry, slash, rest = rest.partition("/")
        if not rest and is_registry(registry):
            raise UsageError(
                f"{shown(text)} names a registry and no repository", hint=f"write {registry}/REPOSITORY[:TAG]"
            )
        if not slash or not is_registry(registry):
            raise UsageError(
                f"{shown(text)} does not start with a registry host",
                hint="write HOST[:PORT]/REPOSITORY[:TAG], for example ghcr.io/acme/bot:v1",
            )
        rest, at, digest_text = rest.partition("@")
        digest = _digest(text, digest_text) if at else None
        repository, colon, tag = rest.partition(":")
        if (why := repository_problem(repository)) is not None:
            raise UsageError(
                f"{shown(text)}: repository {shown(repository)} {why}",
                hint=_advice(repository, legal_repository(repository)) if wanted else _ELSEWHERE,
            )
        if colon and (why := tag_problem(tag)) is not None:
            raise UsageError(
                f"{shown(text)}: tag {shown(tag)} {why}", hint=_advice(tag, legal_tag(tag)) if wanted else _ELSEWHERE
            )
        return cls(registry, repository, tag if colon else None, digest)

    @property
    def name(self) -> str:
        """Registry and repository."""
        return f"{self.registry}/{self.repository}"

    @property
    def selector(self) -> str | None:
        """What a manifest is asked for by: the digest, else the tag, else None."""
        return str(self.digest) if self.digest else self.tag

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.name}{tag}{digest}"


def refuse_user_info(text: str) -> None:
    """Raise UsageError, without a word of it, for a location that has a user or password before its host."""
    if user_info(text):
        raise UsageError(
            f"a location holds no user and no password; it begins with {shown(text.rpartition('@')[2], 60)}",
            hint="log in with `epoch-oci login`, or give --username U and --password-stdin",
        )


def is_registry(text: str) -> bool:
    """Whether a word's first component names a registry: it has `.` or `:` or is `localhost`, and is a legal host."""
    if not ("." in text or ":" in text or text == "localhost") or _HOST.match(text) is None:
        return False
    port = text.rpartition(":")[2] if ":" in text.rpartition("]")[2] else ""
    return not port or 0 < int(port) < 65536


def repository_problem(text: str) -> str | None:
    """The rule that `text` breaks as an OCI repository name, None when it is legal."""
    if not text:
        return "is empty"
    if len(text) > REPOSITORY_LIMIT:
        return f"is longer than {REPOSITORY_LIMIT} characters"
    # The commonest mistake, so it is called by its name.
    if text != text.lower() and _REPOSITORY.match(text.lower()):
        return "has upper-case letters"
    if _REPOSITORY.match(text) is None:
        return "is not lower-case words of letters and digits joined by . _ __ - and divided by /"
    return None


def tag_problem(text: str) -> str | None:
    """The rule that `text` breaks as an OCI tag, None when it is legal."""
    if not text:
        return "is empty"
    if len(text) > TAG_LIMIT:
        return f"is longer than {TAG_LIMIT} characters"
    if _TAG.match(text) is None:
        return "may hold only letters, digits, . _ - and must start with a letter, a digit or _"
    return None


def fallback_tag(subject: Digest) -> str:
    """The tag under which the referrers of a manifest are listed where a registry has no list of its own."""
    return f"{subject.algorithm}-{subject.hex}"


def fallback_subject(tag: str) -> Digest | None:
    """The manifest whose referrers are listed under `tag`, None for any other tag."""
    if _FALLBACK.match(tag) is None or "." in tag:
        return None
    return Digest.parse(tag.replace("-", ":", 1))


def attached_tags(subject: Digest) -> tuple[str, ...]:
    """The tags under which cosign keeps what it says of a manifest: signatures, attestations, bills of material."""
    return tuple(f"{fallback_tag(subject)}.{kind}" for kind in ("sig", "att", "sbom"))


def is_attached_tag(tag: str) -> bool:
    """Whether a tag is one of cosign's (`sha256-HEX.sig`)."""
    return "." in tag and is_fallback_tag(tag)


def is_fallback_tag(tag: str) -> bool:
    """Whether a tag belongs to what refers to a manifest, by OCI's scheme or by cosign's (`sha256-HEX.sig`)."""
    return _FALLBACK.match(tag) is not None


def legal_repository(text: str) -> str:
    """A spelling close to `text` that is a legal repository name; "" when nothing is left of it."""
    parts = []
    for part in text.lower().split("/"):
        cleaned = re.sub(r"[^a-z0-9._-]+", "-", part)
        parts.append(re.sub(r"[._-]+", _separator, cleaned).strip("._-"))
    return "/".join(part for part in parts if part)[:REPOSITORY_LIMIT].rstrip("/._-")


def _separator(found: re.Match[str]) -> str:
    run = found[0]
    return run if run in (".", "_", "__") or not run.strip("-") else run[0]


def legal_tag(text: str) -> str:
    """A spelling close to `text` that is a legal tag; "" when nothing is left of it."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).lstrip(".-")[:TAG_LIMIT]


def _advice(text: str, legal: str) -> str:
    return f'"{legal}" would work' if legal and legal != text else "see the distribution specification for legal names"


def _digest(reference: str, text: str) -> Digest:
    try:
        return Digest.parse(text)
    except ContentError as error:
        raise UsageError(
            f"{shown(reference)}: {error.message}", hint="write HOST/REPOSITORY@sha256:HEX as the registry shows it"
        ) from None


def registry_named(text: str) -> str:
    """The registry that a user names, HOST[:PORT], also as https://HOST/. Raises UsageError for what is none."""
    refuse_user_info(text)
    registry = text.removeprefix("https://").removesuffix("/")
    if not is_registry(registry):
        host = registry.removeprefix("http://").partition("/")[0]
        written = host if is_registry(host) else "HOST[:PORT], for example ghcr.io"
        raise UsageError(f"{text} is no registry", object=text, hint=f"write {written}")
    return registry
