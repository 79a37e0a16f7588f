"""Fixtures over ``tests/support``; see the module docstrings there for what the objects can do.

``fake_registry(**options)``, ``make_recorder(...)``, ``proxy(upstream, *toxics)`` and ``live_factory(...)`` are
factories: what they make is started, and stopped at the end of the test. Rules and toxics that never fired fail the
test. ``live_registry``, ``live_htpasswd``, ``live_tls`` and ``live_token`` are shared by the whole session and run
once for each kind of registry found: use ``repo_name`` so that tests do not meet.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import hypothesis
import pytest
from support import isolation, live, peers
from support.live import Binary, LiveRegistry
from support.proxy import FaultProxy
from support.recorder import Recorder
from support.registry import FakeRegistry
from support.tls import TlsKit
from support.token_server import TokenServer


def pytest_configure() -> None:
    """A shell starts what runs in its background with SIGINT ignored, and programs under test would inherit that.

    Nor has an example of a property a time limit: what is slow on a busy machine is not wrong.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    hypothesis.settings.register_profile("patient", deadline=None)
    hypothesis.settings.load_profile("patient")


@pytest.fixture(autouse=True)
def isolated_home(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh HOME; nothing of the user's environment reaches the test."""
    home = tmp_path_factory.mktemp("home")
    isolation.isolate(monkeypatch, home)
    return home


@pytest.fixture(scope="session")
def tls_kit(tmp_path_factory: pytest.TempPathFactory) -> TlsKit:
    return TlsKit(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def repo_name() -> str:
    """A repository that no other test uses."""
    return f"t/{uuid4().hex[:12]}"


@pytest.fixture
def fake_registry(tls_kit: TlsKit) -> Iterator[Callable[..., FakeRegistry]]:
    """``fake_registry(auth=..., tls="good", spool=..., **Behaviour fields)``."""
    with ExitStack() as stack:
        made: list[FakeRegistry] = []

        def make(*, tls: str | None = None, **options: object) -> FakeRegistry:
            context = tls_kit.context(tls) if tls else None
            made.append(stack.enter_context(FakeRegistry(tls=context, **options)))
            return made[-1]

        yield make
        for registry in made:
            registry.assert_fired()


@pytest.fixture
def make_recorder(tls_kit: TlsKit) -> Iterator[Callable[..., Recorder]]:
    """``make_recorder(answer=None, tls="good")``."""
    with ExitStack() as stack:

        def make(answer: object = None, *, tls: str | None = None) -> Recorder:
            context = tls_kit.context(tls) if tls else None
            return stack.enter_context(Recorder(answer, tls=context))

        yield make


@pytest.fixture
def recorder(make_recorder: Callable[..., Recorder]) -> Recorder:
    """One attacker over plain HTTP."""
    return make_recorder()


@pytest.fixture
def proxy() -> Iterator[Callable[..., FaultProxy]]:
    """``proxy(upstream, *toxics)``; upstream is ``"HOST:PORT"`` or anything with an ``address``."""
    with ExitStack() as stack:
        made: list[FaultProxy] = []

        def make(upstream: object, *toxics: object) -> FaultProxy:
            made.append(stack.enter_context(FaultProxy(getattr(upstream, "address", upstream), *toxics)))
            return made[-1]

        yield make
        for each in made:
            each.assert_fired()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long commands of this process would have waited before they tried a registry again: they wait for nothing."""
    from epoch_oci.registry.policy import RegistrySettings

    told: list[float] = []
    monkeypatch.setitem(RegistrySettings.__init__.__kwdefaults__, "sleep", told.append)
    return told


@pytest.fixture(scope="session")
def live_binary(request: pytest.FixtureRequest) -> Binary:
    """Parametrised over the kinds of registry found; ``live.check_registry`` skips or fails when there is none."""
    return live.registries()[request.param]


def _session_registry(
    binary: Binary, factory: pytest.TempPathFactory, name: str, **options: object
) -> Iterator[LiveRegistry]:
    with LiveRegistry(binary, factory.mktemp(f"{name}-{binary.kind}"), **options) as registry:
        yield registry


@pytest.fixture(scope="session")
def live_registry(live_binary: Binary, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveRegistry]:
    """Anonymous, plain HTTP."""
    yield from _session_registry(live_binary, tmp_path_factory, "live")


@pytest.fixture(scope="session")
def live_htpasswd(live_binary: Binary, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveRegistry]:
    """Basic authentication (``.user``, ``.password``), plain HTTP."""
    yield from _session_registry(live_binary, tmp_path_factory, "htpasswd", htpasswd=True)


@pytest.fixture(scope="session")
def live_tls(live_binary: Binary, tmp_path_factory: pytest.TempPathFactory, tls_kit: TlsKit) -> Iterator[LiveRegistry]:
    """Basic authentication over TLS; the CA is ``.ca_file``."""
    yield from _session_registry(live_binary, tmp_path_factory, "tls", htpasswd=True, tls=tls_kit)


@pytest.fixture(scope="session")
def live_token(live_binary: Binary, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveRegistry]:
    """Bearer tokens of ``.token``, a service on another port that lets anonymous callers pull."""
    with TokenServer(tmp_path_factory.mktemp("token"), anonymous=("pull",)) as token:
        yield from _session_registry(live_binary, tmp_path_factory, "token", token=token)


@pytest.fixture
def live_factory(
    live_binary: Binary, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., LiveRegistry]]:
    """``live_factory(htpasswd=..., tls=..., token=...)``: a registry of the test's own, to restart or to copy to."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(
            LiveRegistry(live_binary, tmp_path_factory.mktemp("own"), **options)
        )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "live_binary" in metafunc.fixturenames:
        metafunc.parametrize(
            "live_binary", list(live.registries()) or [live.NO_REGISTRY], indirect=True, scope="session"
        )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "live_binary" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.live)
    # A group goes to one worker, and as the last it would leave the others without work.
    items.sort(key=lambda item: item.get_closest_marker("xdist_group") is None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    live.check_registry(item)
    peers.check_peers(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Show the log of a live registry with the failure of a test that used it."""
    report = yield
    if report.failed:
        for value in getattr(item, "funcargs", {}).values():
            if isinstance(value, LiveRegistry):
                report.sections.append((f"log of {value.binary.path}", value.log_tail()))
    return report
