"""A whole push and a whole pull under every fault of the wire, at many places; waits take no time."""

import random
from collections.abc import Callable
from contextlib import suppress
from email.utils import formatdate
from itertools import pairwise

import pytest
from long_support import SEED, put_big
from long_wire import BLOB, MANIFESTS, SHAPES, TOKEN, UPLOADS, Wire
from snapshots import make_snapshot
from support.faults import (
    DropResponse,
    ExpireTokens,
    Fault,
    Flip,
    ForeignLocation,
    ForeignRealm,
    ForgetUploads,
    IgnoreRange,
    LyingRange,
    Raw,
    Redirect,
    ResetRequest,
    Respond,
    SetStatus,
    ShiftRange,
    Throttle,
    Truncate,
    Unauthorized,
)
from support.proxy import Cut, FaultProxy, Stall
from support.recording import Recorded
from support.registry_auth import PASSWORD, BasicAuth, BearerAuth

from epoch_oci.errors import ContentError, EpochOciError
from epoch_oci.registry.policy import Timeouts

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

LARGEST = 1_500_000
"""The largest blob: what a fault may at most cost a push that sends a blob in one request."""
RESUMED = 1 << 20
"""What a fault may cost a pull: bytes that were under way when the connection broke, and some headers."""


@pytest.fixture
def wire(tmp_path, fake_registry) -> Wire:
    return Wire(tmp_path, fake_registry(), make_snapshot())


@pytest.fixture
def wide(tmp_path, fake_registry) -> Wire:
    """With a blob that is large enough to be taken up again where it broke off."""
    return Wire(tmp_path, fake_registry(), put_big(tmp_path / "store", 6, 1))


def offsets(total: int, many: int, label: str) -> list[int]:
    """Places to cut at: the first bytes, the last ones, and others at random."""
    rng = random.Random(f"{SEED}/{label}")
    head, tail = rng.sample(range(400), many // 5), rng.sample(range(total - 400, total - 1), many // 5)
    return sorted({0, 1, *head, *tail, total - 1, *(rng.randrange(total) for _ in range(many - many // 5 * 2))})


# Cut, at every kind of place


@pytest.mark.parametrize("how", ["rst", "fin"])
@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize("shape", list(SHAPES))
def test_a_push_cut_at_any_byte(wire, shape, direction, how):
    with FaultProxy(wire.registry.address) as clear:
        wire.push(clear.address, shape=shape)
    usual = clear.bytes_up if direction == "up" else clear.bytes_down
    for offset in offsets(usual, 60, f"push/{shape}/{direction}/{how}"):
        cut = Cut(direction, offset, how=how, times=1, total=True)
        with FaultProxy(wire.registry.address, cut) as proxy:
            name = wire.fresh()
            wire.push(proxy.address, name, shape=shape)
            proxy.assert_fired()
            wire.untagged_or_whole(name)
            wire.push(proxy.address, name, shape=shape)
        wire.arrived(name)
        cost = SHAPES[shape].chunk if shape == "ranged" else LARGEST
        assert proxy.bytes_up - clear.bytes_up <= cost + (64 << 10), offset


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Type: applic"])
def test_a_head_cut_off_is_no_answer_to_a_pull(wide, head):
    name = wide.push()
    wide.registry.fault("GET", MANIFESTS, Raw(head), nth=1)
    wide.pull(name)


def test_a_head_cut_off_is_no_answer_to_a_push(wire):
    wire.registry.fault("POST", UPLOADS, Raw(b"HTTP/1.1 202 Accepted\r\nLocat"), nth=1)
    wire.arrived(wire.push())


@pytest.mark.parametrize("how", ["rst", "fin"])
@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_pull_cut_at_any_byte(wide, direction, how):
    name = wide.push()
    with FaultProxy(wide.registry.address) as clear:
        wide.pull(name, clear.address)
    usual = clear.bytes_up if direction == "up" else clear.bytes_down
    for offset in offsets(usual, 120, f"pull/{direction}/{how}"):
        cut = Cut(direction, offset, how=how, times=1, total=True)
        with FaultProxy(wide.registry.address, cut) as proxy:
            wide.pull(name, proxy.address)
            proxy.assert_fired()
        assert proxy.bytes_down - clear.bytes_down <= RESUMED, offset


@pytest.mark.parametrize("after", [400_000, 1_000_000])
def test_a_pull_whose_connections_all_break_soon(wide, after):
    name = wide.push()
    with FaultProxy(wide.registry.address, Cut("down", after)) as proxy:
        wide.pull(name, proxy.address)
        proxy.assert_fired()


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_line_that_falls_silent_anywhere(wide, direction):
    limits = Timeouts(connect=5, answer=0.4, commit=0.4)
    name = wide.push()
    for act in ("push", "pull"):
        run: Callable = wide.push if act == "push" else lambda address, **more: wide.pull(name, address, **more)
        with FaultProxy(wide.registry.address) as clear:
            run(clear.address)
        usual = clear.bytes_up if direction == "up" else clear.bytes_down
        for offset in offsets(usual, 10, f"stall/{act}/{direction}"):
            with FaultProxy(wide.registry.address, Stall(direction, offset, times=1, total=True)) as proxy:
                run(proxy.address, timeouts=limits)
                proxy.assert_fired()


# Each step, each fault

LOST: dict[str, Callable[[], Fault]] = {
    "lost-rst": DropResponse,
    "lost-fin": lambda: DropResponse(rst=False),
    "lost-502": lambda: SetStatus(502),
    "lost-504": lambda: SetStatus(504),
}
REFUSED: dict[str, Callable[[], Fault]] = {
    "reset": ResetRequest,
    "closed": lambda: ResetRequest(rst=False),
    "500": lambda: Respond(500),
    "502": lambda: Respond(502, b"<html>bad gateway</html>"),
    "503": lambda: Throttle(None, 503),
    "504": lambda: Respond(504),
    "429": lambda: Throttle(0),
    "429-date": lambda: Throttle(formatdate(0, usegmt=True)),
    "429-junk": lambda: Throttle("soon"),
    "429-negative": lambda: Throttle("-1"),
}
STEPS = {
    "look": ("HEAD", BLOB),
    "open": ("POST", UPLOADS),
    "body": ("PUT|PATCH", UPLOADS),
    "close": ("PUT", UPLOADS),
    "manifest": ("PUT", MANIFESTS),
    "resolve": ("GET|HEAD", MANIFESTS),
}


@pytest.mark.parametrize("kind", [*LOST, *REFUSED])
@pytest.mark.parametrize("step", list(STEPS))
@pytest.mark.parametrize("shape", list(SHAPES))
def test_a_push_whose_step_fails(wire, shape, step, kind):
    method, path = STEPS[step]
    usual = wire.sent(wire.push(shape=shape))
    for nth in ((1,), (2,), (1, 2), (1, 3)):
        rule = wire.registry.fault(method, path, {**LOST, **REFUSED}[kind](), nth=nth, optional=nth == (2,))
        name = wire.push(shape=shape)
        wire.arrived(name)
        assert rule.fired or nth == (2,), (rule, nth)
        again = wire.sent(name) - usual
        assert again <= (SHAPES[shape].chunk if shape == "ranged" and step == "body" else LARGEST) * len(nth), nth
        if step in ("manifest", "resolve", "look", "open") or (kind in LOST and shape == "put"):
            assert not again, nth
        wire.registry.clear_faults()


@pytest.mark.parametrize("kind", [*LOST, *REFUSED])
@pytest.mark.parametrize("path", [BLOB, MANIFESTS])
def test_a_pull_whose_step_fails(wide, path, kind):
    name = wide.push()
    for nth in ((1,), (2,), (1, 2), (1, 3, 4)):
        rule = wide.registry.fault("GET", path, {**LOST, **REFUSED}[kind](), nth=nth, optional=nth == (2,))
        wide.pull(name)
        assert rule.fired or nth == (2,), (rule, nth)
        wide.registry.clear_faults()


@pytest.mark.parametrize("shape", list(SHAPES))
def test_sessions_lost_at_every_request(wire, shape):
    requests = wire.registry.recording.count("PUT|PATCH", UPLOADS)
    wire.push(shape=shape)
    requests = wire.registry.recording.count("PUT|PATCH", UPLOADS) - requests
    for nth in range(1, requests + 1):
        rule = wire.registry.fault("PUT|PATCH", UPLOADS, ForgetUploads(), nth=nth)
        wire.arrived(wire.push(shape=shape))
        wire.registry.assert_fired(rule)
        wire.registry.clear_faults()


@pytest.mark.parametrize("shape", list(SHAPES))
def test_a_body_broken_off_at_the_registry(wire, shape):
    for after in (2, 4096, 65_536, 200_000, 262_143):
        for rst in (True, False):
            rule = wire.registry.fault("PUT|PATCH", UPLOADS, ResetRequest(after, rst=rst), nth=(1, 2))
            wire.arrived(wire.push(shape=shape))
            wire.registry.assert_fired(rule)
            wire.registry.clear_faults()


def test_a_session_that_got_a_single_byte(wire):
    """Its status is "0-0", which is also what is said of an empty one."""
    wire.registry.fault("PATCH", UPLOADS, ResetRequest(1), nth=1)
    wire.arrived(wire.push(shape="ranged"))


@pytest.mark.parametrize("uses", [3, 4, 7])
@pytest.mark.parametrize("shape", list(SHAPES))
def test_tokens_of_a_few_requests(tmp_path, fake_registry, shape, uses):
    registry = fake_registry(auth=BearerAuth(uses=uses))
    wire = Wire(tmp_path, registry, make_snapshot(), login=True)
    name = wire.push(shape=shape)
    wire.arrived(name)
    wire.pull(name)
    refused = [entry for entry in registry.recording.find("*", "/v2/") if entry.status == 401]
    asked = registry.recording.count("*", TOKEN)
    assert refused and asked <= len(refused) + 2  # no more than one token for each that ran out
    assert wire.sent(name) <= sum(map(len, wire.made.blobs.values())) + len(wire.made.raw) + len(refused) * LARGEST


@pytest.mark.parametrize("fault", [ExpireTokens, Unauthorized])
@pytest.mark.parametrize("shape", list(SHAPES))
def test_a_token_that_dies_at_each_request(tmp_path, fake_registry, shape, fault):
    registry = fake_registry(auth=BearerAuth())
    wire = Wire(tmp_path, registry, make_snapshot(), login=True)
    before = len(registry.recording)
    name = wire.push(shape=shape)
    for nth in first_tries(registry.recording.find("*", "/v2/t/")[before:]):
        rule = registry.fault("*", "/v2/t/", fault(), nth=nth)
        wire.arrived(wire.push(shape=shape))
        registry.assert_fired(rule)
        registry.clear_faults()
    before = len(registry.recording.find("*", "/v2/t/"))
    wire.pull(name)
    for nth in first_tries(registry.recording.find("*", "/v2/t/")[before:]):
        rule = registry.fault("*", "/v2/t/", fault(), nth=nth)
        wire.pull(name)
        registry.assert_fired(rule)
        registry.clear_faults()


def first_tries(requests: list[Recorded]) -> list[int]:
    """The numbers of the requests that do not answer a 401: one that dies twice in a row is denied, and rightly."""
    return [number for number, (one, _) in enumerate(pairwise(requests), 2) if one.status != 401]


# Lies


@pytest.mark.parametrize("lie", [IgnoreRange, ShiftRange, lambda: ShiftRange(-1), LyingRange, lambda: LyingRange(-7)])
def test_ranges_that_lie_are_outlived_or_found_out(wide, lie):
    name = wide.push()
    for after in (1, 1000, 300_000, 1_048_576, 6_291_455):
        for rst in (True, False):
            broken = wide.registry.fault("GET", BLOB, Truncate(after, rst=rst), nth=(1, 2, 3))
            lying = wide.registry.fault("GET", BLOB, lie())
            with suppress(ContentError):
                wide.pull(name)
            wide.registry.assert_fired(broken)
            assert lying.fired or not asked_for_ranges(wide, name)
            wide.registry.clear_faults()
            wide.pull(name)


def asked_for_ranges(wire: Wire, name: str) -> bool:
    return any(entry.header("Range") for entry in wire.registry.recording.find("GET", f"/v2/{name}/blobs/"))


def test_a_byte_changed_anywhere_is_found(wide):
    name = wide.push()
    rng = random.Random(f"{SEED}/flip")
    for offset in (0, 1, *(rng.randrange(6 << 20) for _ in range(20)), (6 << 20) - 1):
        large = wide.registry.fault("GET", BLOB, Flip(offset, 1 << rng.randrange(8)), optional=True)
        with pytest.raises(ContentError):
            wide.pull(name)
        assert large.fired
        wide.registry.clear_faults()


ELSEWHERE = [301, 302, 303, 307, 308]
LED = {
    "manifest": ("GET", MANIFESTS),
    "blob": ("GET", BLOB),
    "look": ("HEAD", BLOB),
    "open": ("POST", UPLOADS),
    "body": ("PUT|PATCH", UPLOADS),
    "tag": ("PUT", MANIFESTS),
    "token": ("GET|POST", TOKEN),
}


@pytest.mark.parametrize("auth", [BearerAuth, BasicAuth])
@pytest.mark.parametrize("step", list(LED))
def test_wherever_it_is_led_no_secret_goes_along(tmp_path, fake_registry, make_recorder, step, auth):
    if step == "token" and auth is BasicAuth:
        pytest.skip("there are no tokens then")
    registry = fake_registry(auth=auth())
    wire = Wire(tmp_path, registry, make_snapshot(), login=True)
    there = wire.push()
    method, path = LED[step]
    for status in ELSEWHERE:
        other = make_recorder()
        port = other.address.rpartition(":")[2]
        for origin in (other.url, f"http://localhost:{port}", f"http://robot:{PASSWORD}@127.0.0.1:{port}"):
            for shape in SHAPES if step == "body" else ("put",):
                rule = registry.fault(method, path, Redirect(origin, status))
                name = wire.fresh()
                with suppress(EpochOciError):
                    wire.push(name=name, shape=shape)
                if step in ("manifest", "blob", "token"):
                    with suppress(EpochOciError):
                        wire.pull(there)
                registry.assert_fired(rule)
                registry.clear_faults()
                wire.untagged_or_whole(name)
        other.assert_no_body()
        tokens = {entry.header("Authorization") or "" for entry in registry.recording.find("*", "/v2/")}
        for secret in (PASSWORD, *(header.partition(" ")[2] for header in tokens if len(header) > 12)):
            assert not other.shows(secret)


@pytest.mark.parametrize("method", ["POST", "PATCH"])
@pytest.mark.parametrize("shape", list(SHAPES))
def test_no_byte_goes_to_a_session_elsewhere(tmp_path, fake_registry, recorder, shape, method):
    if shape == "put" and method == "PATCH":
        pytest.skip("that shape sends no PATCH")
    registry = fake_registry(auth=BearerAuth())
    wire = Wire(tmp_path, registry, make_snapshot(), login=True)
    port = recorder.address.rpartition(":")[2]
    for origin in (recorder.url, f"http://localhost:{port}", f"https://127.0.0.1:{port}"):
        for nth in (1, 2, 3):
            rule = registry.fault(method, UPLOADS, ForeignLocation(origin), nth=nth)
            name = wire.fresh()
            with pytest.raises(EpochOciError):
                wire.push(name=name, shape=shape)
            registry.assert_fired(rule)
            assert not registry.tags(name)
            registry.clear_faults()
    recorder.assert_untouched()


def test_no_secret_goes_to_a_foreign_token_service(tmp_path, fake_registry, recorder):
    registry = fake_registry(auth=BearerAuth())
    wire = Wire(tmp_path, registry, make_snapshot(), login=True)
    port = recorder.address.rpartition(":")[2]
    for realm in ("http://tokens.invalid/token", f"http://a@127.0.0.1:{port}/t", "file:///etc/passwd"):
        rule = registry.fault("*", "/v2/", ForeignRealm(realm))
        with pytest.raises(EpochOciError):
            wire.push()
        registry.assert_fired(rule)
        registry.clear_faults()
    assert not recorder.shows(PASSWORD)
