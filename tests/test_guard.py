"""The guard: no manifest that names a guest's memory or state gets where anybody can read it, whatever moved for it."""

import ast
import base64
import json
from pathlib import Path

import pytest
from cli_runner import Here, run_cli
from cocoon_world import Item, archive
from registry_room import room
from snapshots import make_snapshot, open_store, put_snapshot
from support.content import digest_of
from support.faults import Exchange, Fault, Respond
from support.registry_auth import PASSWORD, USER, BasicAuth, BearerAuth, NoAuth
from support.wire import Answer, Request

import epoch_oci
from epoch_oci.artifacts.publish import Publication, secret_names
from epoch_oci.errors import NetworkError, PolicyError
from epoch_oci.flows.copy import add_tags, copy
from epoch_oci.flows.push import push
from epoch_oci.oci.media_types import INDEX, MANIFEST

REPOSITORY = "team/bot"
LOGIN = {"EPOCH_OCI_USERNAME": USER, "EPOCH_OCI_PASSWORD": PASSWORD}


class EpochAuth(BearerAuth):
    """As Epoch 0.1.6 and later: everybody reads, writers and whoever knocks at `/v2/` are asked who they are."""

    def __init__(self) -> None:
        super().__init__(anonymous=None, service="epoch", path="/v2/token")

    def refuse(self, request: Request, needs: object) -> Answer | None:
        reads = request.method in ("GET", "HEAD") and request.path != "/v2/"
        return None if reads else super().refuse(request, needs)


class HidingAuth(BasicAuth):
    """A registry that has nothing to show to strangers, and asks for credentials at its front door alone."""

    def challenge(self, request: Request, needs: object, error: str = "") -> Answer:
        return super().challenge(request, needs) if request.path == "/v2/" else Answer.error(404, "NAME_UNKNOWN", "")


@pytest.fixture
def cli(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    put_snapshot(tmp_path / "store", make_snapshot("W3b"))
    return Here(capsys)


def push_words(registry, *more: str) -> tuple[str, ...]:
    return ("push", "team/bot:v1", f"{registry.address}/{REPOSITORY}", "--store", "store", *more)


def refused(registry, ran) -> str:
    """The hint of a refusal after which nothing was published."""
    assert ran.code == 8, ran.err
    assert "memory-ranges, state.json" in ran.error and not registry.recording.count("PUT", "/manifests/")
    return ran.error.partition("; ")[2]


def readable(**options) -> BearerAuth:
    return BearerAuth({USER: PASSWORD}, anonymous=("pull",), **options)


@pytest.mark.parametrize("dialect", ["cocoon", "cocoonstack"])
@pytest.mark.parametrize("way", ["sent", "mounted", "skipped"])
def test_however_the_blobs_came(cli, fake_registry, way, dialect):
    registry = fake_registry(auth=readable())
    made = make_snapshot("W3b")
    for raw in made.blobs.values() if way != "sent" else ():
        registry.put_blob(REPOSITORY if way == "skipped" else "private/bot", raw)
    more = ("--mount-from", "private/bot") if way == "mounted" else ()
    words = push_words(registry, "--dialect", dialect, "--allow-loss", *more)
    assert "make the repository private" in refused(registry, cli(*words, env=LOGIN))
    assert not registry.recording.count("POST", "mount=")
    assert cli(*words, "--allow-public", env=LOGIN).code == 0


def test_also_where_the_tag_holds_it_already(cli, fake_registry):
    registry = fake_registry(auth=readable())
    assert cli(*push_words(registry, "--allow-public"), env=LOGIN).code == 0
    assert cli(*push_words(registry), env=LOGIN).code == 8


def test_what_names_no_memory_may_be_public(cli, fake_registry, tmp_path):
    registry = fake_registry(auth=readable())
    put_snapshot(tmp_path / "store", make_snapshot("cloud-image", "win11", "v1"))
    ran = cli("push", "win11:v1", f"{registry.address}/images/win11", "--store", "store", env=LOGIN)
    assert ran.code == 0, ran.err
    assert not registry.recording.count("GET", "/tags/list")


def test_a_dry_run_says_that_it_would_be_refused(cli, fake_registry):
    registry = fake_registry(auth=readable())
    ran = cli(*push_words(registry, "--dry-run"), env=LOGIN)
    assert ran.code == 0 and "this would be refused: anybody can read" in ran.err
    assert not registry.recording.count("POST|PUT|PATCH|DELETE", "/v2/")


def test_a_repository_that_turns_out_to_be_public_gets_no_tag(cli, fake_registry):
    """As Docker Hub's: closed to strangers as long as it is not there, and public from the first push on."""
    registry = fake_registry(auth=readable(allow=lambda user, name, action: user is not None or registry.blobs(name)))
    refused(registry, cli(*push_words(registry), env=LOGIN))
    assert registry.blobs(REPOSITORY)


def test_an_archive_on_a_pipe_is_guarded_before_its_memory_is_sent(fake_registry, tmp_path):
    registry = fake_registry(auth=readable())
    raw = archive(Item("config.json", b"{}"), Item("vmstate", b"registers"), Item("memory-ranges", b"m" * 4096))
    words = ("push", "-", f"{registry.address}/{REPOSITORY}:v1")
    ran = run_cli(*words, input=raw, cwd=tmp_path, env=LOGIN)
    assert ran.code == 8 and "vmstate" in ran.error
    assert set(registry.blobs(REPOSITORY)) <= {digest_of(b"{}")}
    assert run_cli(*words, "--allow-public", input=raw, cwd=tmp_path, env=LOGIN).code == 0


def test_an_open_registry_on_this_machine_is_let_pass_where_no_credentials_are_in_play(cli, fake_registry):
    assert cli(*push_words(fake_registry())).code == 0


def keep_credentials(registry) -> dict[str, str]:
    folder = Path.home() / ".docker"
    folder.mkdir(exist_ok=True)
    auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {registry.address: {"auth": auth}}}))
    (folder / "config.json").chmod(0o600)
    return {}


@pytest.mark.parametrize("given", [lambda registry: LOGIN, keep_credentials], ids=["given", "kept"])
@pytest.mark.parametrize("auth", [NoAuth, EpochAuth], ids=["open", "open to read"])
def test_credentials_mean_that_it_is_no_playground(cli, fake_registry, auth, given):
    registry = fake_registry(auth=auth())
    hint = refused(registry, cli(*push_words(registry), env=given(registry)))
    assert "private" not in hint and "--allow-public" in hint


def test_nor_is_a_registry_that_asks_strangers_for_credentials(fake_registry):
    """Blobs that are there are read unasked, and a first push would be the first to be asked."""
    assert room(fake_registry(auth=EpochAuth()))[0].openness() == "epoch"
    assert room(fake_registry())[0].openness() is None


def test_on_an_epoch_server_the_hint_is_true(cli, fake_registry):
    registry = fake_registry(auth=EpochAuth())
    words = push_words(registry, "--dialect", "cocoonstack", "--allow-loss")
    hint = refused(registry, cli(*words, env=LOGIN))
    assert hint.startswith("an Epoch server lets everybody read") and "private" not in hint
    assert cli(*words, "--allow-public", env=LOGIN).code == 0


def test_the_example_for_epoch_works_as_typed(cli, fake_registry, tmp_path):
    made = make_snapshot("W2a", "bot", "v3")
    put_snapshot(tmp_path / "store", made)
    registry = fake_registry(auth=EpochAuth())
    page = (Path(__file__).parents[1] / "docs/stores.md").read_text()
    (line,) = [line for line in page.splitlines() if line.startswith("epoch-oci push bot:v3 epoch.example.com")]
    words = line.replace("epoch.example.com", registry.address).replace("/data/epoch", "store").split()[1:]
    assert cli(*words, env=LOGIN).code == 0


def test_a_registry_that_hides_what_is_not_shown_is_not_taken_for_an_open_one(fake_registry):
    registry = fake_registry(auth=HidingAuth())
    repository, _ = room(registry, login=True)
    assert repository.openness() is None
    repository._client.auth._scheme = "basic"
    assert repository.openness() is None


def test_a_guard_that_cannot_see_lets_nothing_pass(fake_registry, tmp_path):
    made = make_snapshot("W3b")
    put_snapshot(tmp_path / "store", made)
    registry = fake_registry(auth=readable())
    registry.fault("GET", "/tags/list", Respond(503))
    repository, _ = room(registry, login=True, attempts=2)
    with pytest.raises(NetworkError):
        push(open_store(tmp_path / "store"), made.key, repository, "v1")
    assert not registry.blobs("acme/bot")


@pytest.mark.parametrize(
    ("form", "other"),
    [
        ([], "/tags/list"),
        (["--part-size", "256KiB"], "/tags/list"),
        (["--chunked"], "/blobs/"),  # the index
    ],
)
def test_questions_do_not_wait_for_each_other_when_nothing_has_changed(cli, fake_registry, form, other):
    """What is there, and what strangers see: of two that wait for each other's answer none would ever be asked."""
    registry = fake_registry(auth=BearerAuth({USER: PASSWORD}))
    assert cli(*push_words(registry, *form), env=LOGIN).code == 0
    registry.recording.clear()
    registry.fault("HEAD", "/blobs/", first := AfterA("GET", other), first=1)
    registry.fault("GET", other, second := AfterA("HEAD", "/blobs/"), first=1)
    assert cli(*push_words(registry, *form), env=LOGIN).code == 0
    assert first.came and second.came, registry.recording.summary()
    assert [asked.status for asked in registry.recording.find("GET|HEAD", "/manifests/")] == [401, 200]


class AfterA(Fault):
    """Whoever asks this waits until something else is asked."""

    def __init__(self, method: str, pattern: str) -> None:
        self.method, self.pattern, self.came = method, pattern, False

    def before(self, exchange: Exchange) -> None:
        exchange.fire()
        for _ in range(6000):  # a minute, at which the client gives up
            self.came = exchange.registry.recording.count(self.method, self.pattern) > 0
            if self.came:
                return
            exchange.sleep(0.01)


def test_a_verb_that_does_not_say_what_a_manifest_names_is_guarded_too(fake_registry, tmp_path):
    """Whoever copies or re-tags has two documents at most: they are read where they lie."""
    made = make_snapshot("W3b")
    put_snapshot(tmp_path / "store", made)
    repository, _ = room(fake_registry(auth=readable()), login=True)
    options = epoch_oci.PushOptions(allow_public=True)
    push(open_store(tmp_path / "store"), made.key, repository, "v1", options=options)
    publication = Publication(repository, allow_public=False, replace=False)
    with pytest.raises(PolicyError, match=r"state\.json"):
        publication.commit("v2", repository.resolve("v1"))


def test_an_index_of_what_is_there_already_is_guarded_by_its_blobs(fake_registry, tmp_path):
    """A registry that lists nothing to strangers, and shows its blobs to everybody: its children move no more."""
    made = make_snapshot("W3b")
    put_snapshot(tmp_path / "store", made)
    registry = fake_registry(auth=readable())
    registry.fault("GET", "/tags/list", Respond(403))
    repository, _ = room(registry, login=True)
    options = epoch_oci.PushOptions(allow_public=True)
    push(open_store(tmp_path / "store"), made.key, repository, "v1", options=options)
    child = repository.resolve("v1").descriptor.to_json()
    raw = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [child]}).encode()
    registry.put_manifest("acme/bot", "many", raw)
    with pytest.raises(PolicyError, match="memory-ranges"):
        add_tags(repository, "many", ["new"], force=False, allow_public=False, dry_run=False)
    with pytest.raises(PolicyError, match="memory-ranges"):
        copy(repository, "many", repository, ["new"])
    assert repository.digest_of("new") is None


def test_what_holds_memory():
    secret = [
        ("memory-ranges", ""),
        ("memory-ranges.part.0003", "application/octet-stream"),
        ("mem", "application/octet-stream"),
        ("vmstate", ""),
        ("state.json", ""),
        ("x", "application/vnd.cocoon.memory"),
        ("x", "application/vnd.cocoon.memory.part"),
        ("x", "application/vnd.cocoonstack.vm.memory+zstd"),
        ("x", "application/vnd.cocoonstack.vm.state+json"),
        ("x", "application/vnd.cocoonstack.vm.state+json+zstd"),
    ]
    harmless = [("overlay.qcow2", "application/vnd.cocoon.disk.qcow2"), ("memo", ""), ("my-state.json", "")]
    assert all(secret_names([file]) == [file[0]] for file in secret)
    assert secret_names([*secret, *secret]) == list(dict.fromkeys(name for name, _ in secret))
    assert secret_names([*harmless, ("config.json", "application/vnd.cocoon.config+json"), ("x", MANIFEST)]) == []


def test_no_other_way_leads_to_a_published_manifest():
    """A future verb cannot go round the guard: `Sink.publish` is called in one place."""
    root = Path(epoch_oci.__file__).parent
    found = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        if path.relative_to(root).parts[0] not in ("stores", "registry", "cocoon")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr == "publish"
    }
    assert found == {"artifacts/publish.py", "cli/demo.py"}
