"""What a registry is, what it can, and whether we are let in: each look is one check, with what to do about it.

Nothing is changed here; `probes` has what needs to write.
"""

import email.utils
import json
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import field, replace
from datetime import UTC, datetime
from typing import Any, Literal

import requests

from epoch_oci.dataclass import dataclass
from epoch_oci.errors import (
    AccessError,
    ContentError,
    EpochOciError,
    InterruptedTransferError,
    LocalIOError,
    NetworkError,
    NotFoundError,
    UsageError,
)
from epoch_oci.network import proxy_name
from epoch_oci.oci import media_types, strict_json
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.manifest import ImageIndex, ImageManifest
from epoch_oci.oci.reference import is_fallback_tag
from epoch_oci.registry.auth import Scope
from epoch_oci.registry.auth_token import parse_challenges
from epoch_oci.registry.client import read_bounded
from epoch_oci.registry.download import BlobContent
from epoch_oci.registry.http_errors import dismiss
from epoch_oci.registry.policy import RegistrySettings, Timeouts
from epoch_oci.registry.profiles import profile_told
from epoch_oci.registry.repository import RegistryHost, RegistryRepository

Status = Literal["ok", "warn", "fail", "skipped"]
Value = bool | int | float | str | None

_DAY = 24 * 3600
_EXPIRES_SOON = 14 * _DAY
_PATIENCE = Timeouts(connect=5.0, answer=6.0, commit=6.0, floor_window=6.0)
_SECONDS = 20.0
"""For all of it, uploads excepted: somebody sits and waits. Two silent questions leave room for others that are not."""
_SKEW = 30.0
"""Seconds. Signed URLs and tokens bear five minutes at most, some tokens hardly any."""
_LIST_LIMIT = 4 << 20
_TAGS_TRIED = 3
_SPEED_BYTES, _SPEED_SECONDS = 16 << 20, 3.0
_TELLING = 256 << 10
"""Bytes. What is smaller tells of round trips, not of a rate."""
_BLOCK = 256 << 10
_NO_SUCH_LIST = (400, 404, 405, 501)
CATALOG = Scope("catalog", "*", kind="registry")


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One look. `finding` is what was seen, `advice` what to do about it; `value` is the same for programs."""

    name: str
    status: Status
    finding: str
    advice: str | None = None
    value: Value = None
    error: EpochOciError | None = None

    def to_json(self) -> dict[str, Any]:
        """As the command-line contract spells it."""
        return {
            "name": self.name,
            "status": self.status,
            "finding": self.finding,
            "advice": self.advice,
            "value": self.value,
            "code": self.error.code if self.error else None,
        }


@dataclass(slots=True)
class Examination:
    """What was found of a registry, or of one repository of it."""

    registry: str
    repository: str | None
    checks: list[Check] = field(default_factory=list)

    @property
    def error(self) -> EpochOciError | None:
        """The first reason why it cannot be used."""
        return next((check.error for check in self.checks if check.status == "fail"), None)

    def to_json(self) -> dict[str, Any]:
        """As the command-line contract spells it."""
        return {
            "command": "doctor",
            "registry": self.registry,
            "repository": self.repository,
            "usable": self.error is None,
            "checks": [check.to_json() for check in self.checks],
        }


@dataclass(slots=True)
class Patient:
    """The registry under examination; of a repository also what was found in it.

    `let_in` says that the registry took our credentials, or asked for none; `exists` that the repository is there, and
    `cancels` that upload sessions can be given up.
    """

    host: RegistryHost
    repository: RegistryRepository | None
    name: str = ""
    wanted: str | None = None
    answer: requests.Response | None = None
    manifest: Digest | None = None
    blobs: tuple[Descriptor, ...] = ()
    let_in: bool = False
    exists: bool = False
    cancels: bool = False

    @property
    def largest(self) -> Descriptor | None:
        """The blob that tells most."""
        return max(self.blobs, key=lambda blob: blob.size, default=None)


Look = Callable[[Patient], Check]
MORE_THAN_A_HOST = "name a repository to look at: HOST/REPOSITORY"
_LOOK_AT_THE_NAME = "look at the name and the port, and at the proxy if there is one"
NOT_LET_IN = "only who is let in can tell"
NOTHING_THERE = "push something there first, or name a tag that can be read"


def examine(
    registry: str,
    repository: str | None,
    tag: str | None,
    settings: RegistrySettings,
    more: Sequence[tuple[str, Look]] = (),
    tell: Callable[[str], None] = lambda name: None,
) -> Examination:
    """Look at everything, as far as it can be reached; then what `more` has. `tell` hears what is looked at next.

    What a look finds is in the result, never raised. What is not answered in time is a finding too.
    """
    # It is looked at now: whoever waits for ten minutes learns that elsewhere.
    until = settings.clock() + _SECONDS
    settings = replace(settings, retry_for=0.0, attempts=2, timeouts=_PATIENCE, until=until)
    host = RegistryHost(registry, settings)
    store = host.repository(repository) if repository else None
    patient = Patient(host, store, store.path if store else "", tag)
    found = Examination(registry, repository)
    try:
        for name, look in (*_LOOKS, *more):
            tell(name)
            check = _guarded(name, look, patient) if settings.left > 0 else _late(name, found.checks)
            found.checks.append(check)
            if name == _LOOKS[0][0] and check.status == "fail":
                break
    finally:
        if patient.answer is not None:
            patient.answer.close()
    return found


def _late(name: str, before: Sequence[Check]) -> Check:
    """What there was no time for. `before` are the checks that took it."""
    silent = [check.name for check in before if isinstance(check.error, NetworkError) and check.error.status is None]
    whom = f"; not answered: {', '.join(silent)}" if silent else ""
    why = f"{_SECONDS:.0f} s were up{whom}"
    if name in _VITAL:
        return failed(name, NetworkError(f"not asked: {why}", object=name))
    return skipped(name, why)


def _guarded(name: str, look: Look, patient: Patient) -> Check:
    try:
        return look(patient)
    except InterruptedTransferError:  # says nothing of the registry
        raise
    except EpochOciError as error:
        return failed(name, error)


def failed(name: str, error: EpochOciError) -> Check:
    """What an error is as a check: what concerns use is a failure, a missing ability only worth knowing."""
    status: Status = "fail" if name in _VITAL else "warn"
    if error.hint is None:
        unseen = name == _LOOKS[0][0] and error.status is None
        error.hint = _LOOK_AT_THE_NAME if unseen else "look at the exchange itself with --debug"
    return Check(name=name, status=status, finding=error.message, advice=error.hint, error=error)


def skipped(name: str, why: str) -> Check:
    """What could not be looked at."""
    return Check(name=name, status="skipped", finding="not tried", advice=why)


def _reach(patient: Patient) -> Check:
    client = patient.host.client
    began = time.monotonic()
    response = patient.answer = client.knock()
    seconds = time.monotonic() - began
    proxy = patient.host.settings.proxies.choose(client.base)
    way = f" through the proxy {proxy_name(proxy)}" if proxy else ""
    where = f"{client.origin} answers{way} in {seconds * 1000:.0f} ms"
    if response.status_code == 404:
        raise NotFoundError(
            f"{client.origin} answers, and has no /v2/: it is no registry",
            object=str(client.origin),
            hint="look at host and port; some registries are below a host of their own",
        )
    if response.status_code not in (200, 401, 403):
        raise client.refusal(response, f"{client.origin}/v2/")
    version = response.headers.get("Docker-Distribution-Api-Version", "")
    if not version and response.status_code == 200 and "json" not in response.headers.get("Content-Type", "json"):
        return Check(
            name="reachable",
            status="warn",
            finding=f"{where}, and does not say that it is a registry",
            advice="see whether host and port are those of the registry, and not of its web page",
            value=round(seconds, 3),
        )
    return Check(name="reachable", status="ok", finding=where, value=round(seconds, 3))


def _certificate(patient: Patient) -> Check:
    client, settings = patient.host.client, patient.host.settings
    if client.origin.scheme == "http":
        status: Status = "ok" if client.auth.is_local else "warn"
        advice = None if status == "ok" else "credentials and guest memory go over the line in clear; use https"
        return Check(name="certificate", status=status, finding="http, so there is none", advice=advice)
    if settings.insecure:
        advice = "leave --insecure out, and name the authority with --ca-file"
        return Check(name="certificate", status="warn", finding="not verified (--insecure)", advice=advice)
    assert patient.answer is not None
    told = _peer_certificate(patient.answer)
    if not told:
        return skipped("certificate", "the connection was closed before it could be read")
    until = ssl.cert_time_to_seconds(str(told["notAfter"]))
    finding = f"issued by {_common_name(told.get('issuer'))}, {_valid(until)}; believed: {_believed(settings)}"
    return _expiring("certificate", finding, until, "the registry's operator has to renew it")


def _own_certificate(patient: Patient) -> Check:
    path = patient.host.settings.cert_file
    if path is None:
        return Check(name="own-certificate", status="ok", finding="none is shown")
    decode = getattr(getattr(ssl, "_ssl", None), "_test_decode_cert", None)
    if decode is None:  # not every Python has it, and no other part of it reads a certificate's dates
        return skipped("own-certificate", f"openssl x509 -enddate -noout -in {path}")
    try:
        until = ssl.cert_time_to_seconds(decode(path)["notAfter"])
    except (ssl.SSLError, OSError, ValueError, KeyError) as error:
        raise LocalIOError(f"{path} cannot be read as a certificate", object=path) from error
    return _expiring("own-certificate", f"{path}, {_valid(until)}", until, "have it renewed")


def _expiring(name: str, finding: str, until: float, advice: str) -> Check:
    left = until - time.time()
    when = datetime.fromtimestamp(until, UTC).isoformat(timespec="seconds")
    if left < 0:
        error = AccessError(finding, object=name, hint=advice)
        return Check(name=name, status="fail", finding=finding, advice=advice, value=when, error=error)
    status: Status = "warn" if left < _EXPIRES_SOON else "ok"
    return Check(name=name, status=status, finding=finding, advice=advice if status == "warn" else None, value=when)


def _valid(until: float) -> str:
    days = int((until - time.time()) // _DAY)
    date = datetime.fromtimestamp(until, UTC).date()
    return f"ran out on {date}" if days < 0 else f"valid until {date} ({days} days)"


def _peer_certificate(response: requests.Response) -> dict[str, Any]:
    """What TLS was told of the other side, while the connection of an answer is still open."""
    sock = getattr(getattr(response.raw, "connection", None), "sock", None)
    read = getattr(sock, "getpeercert", None)
    return (read() or {}) if read is not None else {}


def _common_name(names: Any) -> str:
    found = [value for part in names or () for key, value in part if key in ("commonName", "organizationName")]
    return str(found[-1]) if found else "somebody without a name"


def _believed(settings: RegistrySettings) -> str:
    places: dict[str, list[str]] = {}
    for variable, path in settings.authorities.named:
        places.setdefault(path, []).append(variable)
    found = ["the system's authorities"] if settings.authorities.system else []
    found += [f"{path} ({', '.join(variables)})" for path, variables in places.items()]
    return ", ".join([*found, *([settings.ca_file] if settings.ca_file else [])])


def _clock(patient: Patient) -> Check:
    assert patient.answer is not None
    said = patient.answer.headers.get("Date", "")
    try:
        skew = email.utils.parsedate_to_datetime(said).timestamp() - time.time()
    except ValueError:
        return skipped("clock", "the registry does not say what time it is")
    seconds = round(skew, 1)
    if abs(skew) <= _SKEW:
        return Check(name="clock", status="ok", finding="as the registry's", value=seconds)
    finding = f"the registry's is {abs(skew):.0f} s {'ahead' if skew > 0 else 'behind'}"
    advice = "tokens and signed addresses go by it: set the wrong one right (NTP)"
    return Check(name="clock", status="warn", finding=finding, advice=advice, value=seconds)


def _kind(patient: Patient) -> Check:
    assert patient.answer is not None
    headers = patient.answer.headers
    challenges = parse_challenges(headers.get("WWW-Authenticate", ""))
    dismiss(patient.answer)
    profile = patient.host.manner.profile
    if profile.name == "unknown" and (told := profile_told(challenges)) is not None:
        profile = told
    quoted = patient.host.client.quoted
    server = f", served by {quoted(headers['Server'])[1:-1]}" if headers.get("Server") else ""
    asks = ", ".join(dict.fromkeys(item.scheme for item in challenges)) or "no credentials"
    limits = f"; layers of at most {profile.largest / 2**30:.0f} GiB" if profile.largest else ""
    name = "of no kind that is known" if profile.name == "unknown" else profile.name
    advice = "if it is one of them, say so with --profile" if profile.name == "unknown" else None
    finding = f"{name}{server}; asks for {asks}{limits}"
    return Check(name="kind", status="ok", finding=finding, advice=advice, value=profile.name)


def _credentials(patient: Patient) -> Check:
    client = patient.host.client
    found = client.auth.credential(patient.name)
    client.auth.check_login(client.url(""))
    patient.let_in = True
    if found is None:
        finding = "none are kept, and none are asked for" if not client.auth.is_known() else "none are kept"
        advice = f"log in with `epoch-oci login {client.hostname}`" if client.auth.is_known() else None
        return Check(name="credentials", status="warn" if advice else "ok", finding=finding, advice=advice)
    source = found.source or ("as given" if patient.host.settings.credentials.explicit else "")
    return Check(name="credentials", status="ok", finding=f"{found.owner} are taken", value=source or None)


def _catalog(patient: Patient) -> Check:
    if not patient.let_in:
        return skipped("catalog", NOT_LET_IN)
    client = patient.host.client
    try:
        found = client.read(client.url("_catalog?n=1"), what="the catalog", limit=_LIST_LIMIT, scope=CATALOG)
    except (AccessError, UsageError, NetworkError) as error:
        if isinstance(error, NetworkError) and error.status not in _NO_SUCH_LIST:
            raise
        found = None
    if found is not None:
        return Check(name="catalog", status="ok", finding="its repositories can be listed", value=True)
    advice = "ls and sync of the whole registry need them named: --repository NAME"
    return Check(
        name="catalog", status="ok", finding="it shows no list of its repositories", advice=advice, value=False
    )


def _repository(patient: Patient) -> Check:
    if patient.repository is None:
        return skipped("repository", MORE_THAN_A_HOST)
    if not patient.let_in:
        return skipped("repository", NOT_LET_IN)
    client, where = patient.host.client, patient.repository.where
    found = client.read(client.url(f"{patient.name}/tags/list?n=50"), what=where, limit=_LIST_LIMIT)
    if found is None:
        finding = "there is none of that name, or it is hidden"
        advice = "a push makes it where the registry does so by itself (Harbor and ECR need a project or repository)"
        return Check(name="repository", status="warn", finding=finding, advice=advice, value=False)
    patient.exists = True
    tags = _tags(found[1], where)
    _choose(patient, [patient.wanted] if patient.wanted else tags)
    if patient.wanted and patient.manifest is None:
        raise NotFoundError(f"{where} has no {patient.wanted} that can be read", object=where)
    count = f"{len(tags)}{' or more' if len(tags) >= 50 else ''}"
    return Check(name="repository", status="ok", finding=f"can be read; tags: {count}", value=True)


def _tags(raw: bytes, where: str) -> list[str]:
    value = strict_json.loads(raw, where, limit=_LIST_LIMIT)
    tags = value.get("tags") if isinstance(value, dict) else None
    return [tag for tag in tags or () if isinstance(tag, str)]


def _choose(patient: Patient, names: Sequence[str]) -> None:
    """Take an artifact to look at the abilities with: the first that can be read."""
    assert patient.repository is not None
    # Signatures come first in a list by name, and are too small to learn much from.
    for name in sorted(names, key=is_fallback_tag)[:_TAGS_TRIED]:
        try:
            document = patient.repository.resolve(name)
            patient.manifest = document.digest
            if document.media_type in media_types.INDEXES:
                index = ImageIndex.parse(document, name)
                document = patient.repository.resolve(str(index.manifests[0].digest))
            image = ImageManifest.parse(document, name)
        except (ContentError, NotFoundError, IndexError):
            continue
        patient.blobs = tuple(blob for blob in (image.config, *image.layers) if blob.size)
        return


def _public(patient: Patient) -> Check:
    if patient.repository is None:
        return skipped("public", MORE_THAN_A_HOST)
    openness = patient.repository.openness() or (
        patient.repository.openness(patient.blobs[0]) if patient.blobs else None
    )
    if openness is None:
        finding = "nobody without credentials can read it"
        if patient.answer is not None and patient.answer.status_code == 200 and patient.host.client.auth.is_local:
            finding = "open to whoever reaches this machine's own registry"
        return Check(name="public", status="ok", finding=finding, value=False)
    whom = {"repository": "the repository", "registry": "the whole registry", "epoch": "an Epoch server"}[openness]
    advice = "guest memory is not pushed there unless --allow-public says that it may be"
    return Check(name="public", status="warn", finding=f"anybody can read {whom}", advice=advice, value=True)


def _ranges(patient: Patient) -> Check:
    blob = patient.largest
    if blob is None or patient.repository is None:
        return skipped("ranges", _why_nothing(patient))
    content = patient.repository.content(blob)
    assert isinstance(content, BlobContent)
    if content.ranged():
        return Check(name="ranges", status="ok", finding="blobs can be read from any byte on", value=True)
    advice = "a pull that breaks off starts its file again; cat and mount read whole files"
    return Check(name="ranges", status="warn", finding="blobs are served whole only", advice=advice, value=False)


def _download(patient: Patient) -> Check:
    blob = patient.largest
    if blob is None or patient.repository is None:
        return skipped("download", _why_nothing(patient))
    if blob.size < _TELLING:
        return skipped("download", "what is there is too small to tell a rate by")
    began, got = time.monotonic(), 0
    with patient.repository.content(blob).open(0, min(blob.size, _SPEED_BYTES)) as reader:
        while (block := reader.read(_BLOCK)) and time.monotonic() - began < _SPEED_SECONDS:
            got += len(block)
    return rate_check("download", got, time.monotonic() - began)


def _why_nothing(patient: Patient) -> str:
    if patient.repository is None:
        return MORE_THAN_A_HOST
    return NOTHING_THERE if patient.let_in else NOT_LET_IN


def rate_check(name: str, count: int, seconds: float) -> Check:
    """How fast so many bytes were."""
    rate = count / max(seconds, 1e-6)
    return Check(name=name, status="ok", finding=f"{rate / 2**20:.1f} MiB/s over one connection", value=round(rate))


def _referrers(patient: Patient) -> Check:
    if patient.manifest is None:
        return skipped("referrers", _why_nothing(patient))
    client = patient.host.client
    url = client.url(f"{patient.name}/referrers/{patient.manifest}")
    response = client.call("GET", url, (200, *_NO_SUCH_LIST), what="asking for referrers")
    there = response.status_code == 200 and _is_index(read_bounded(response, _LIST_LIMIT, "referrers"))
    dismiss(response)
    if there:
        return Check(name="referrers", status="ok", finding="it lists what refers to a manifest", value=True)
    finding = "it has no such list; the fallback tag of the specification is used"
    return Check(name="referrers", status="ok", finding=finding, value=False)


def _is_index(raw: bytes) -> bool:
    try:
        return isinstance(json.loads(raw).get("manifests"), list)
    except (ValueError, AttributeError, RecursionError):
        return False


_LOOKS: tuple[tuple[str, Look], ...] = (
    ("reachable", _reach),
    ("certificate", _certificate),
    ("own-certificate", _own_certificate),
    ("clock", _clock),
    ("kind", _kind),
    ("credentials", _credentials),
    ("catalog", _catalog),
    ("repository", _repository),
    ("public", _public),
    ("ranges", _ranges),
    ("download", _download),
    ("referrers", _referrers),
)
_VITAL = frozenset({"reachable", "certificate", "own-certificate", "credentials", "repository", "write"})
"""Without these it cannot be used; all others only cost something."""
