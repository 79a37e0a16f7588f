"""Where credentials are found, which come first, and how they are kept."""

import base64
import json
import stat
import time
from pathlib import Path

import pytest

from epoch_oci.errors import AccessError, ContentError, LocalIOError
from epoch_oci.registry import helpers
from epoch_oci.registry.credentials import Credential, CredentialStore


def auth(user: str, secret: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{secret}".encode()).decode()}


def write(path: Path, value: object, mode: int = 0o600) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    path.chmod(mode)
    return path


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


@pytest.fixture
def helper(tmp_path):
    """A credential helper that answers what the test wrote, and notes what it was asked."""
    folder = tmp_path / "bin"

    def make(suffix: str, answer: str, status: int = 0) -> dict[str, str]:
        program = folder / f"docker-credential-{suffix}"
        script = f'#!/bin/sh\necho "$*" >>{folder}/{suffix}.argv\ncat >>{folder}/{suffix}.stdin\n'
        write(program, f"{script}cat <<'X'\n{answer}\nX\nexit {status}\n", 0o755)
        return {"PATH": f"{folder}:/usr/bin:/bin"}

    make.folder = folder
    return make


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        (auth("u", "p:with:colons"), Credential("u", "p:with:colons")),
        ({"username": "u", "password": "p"}, Credential("u", "p")),
        ({"identitytoken": "t", **auth("u", "")}, Credential("u", "", "t")),
        ({"registrytoken": "r"}, Credential("", "", "", "r")),
        ({}, None),
        ({"auth": "not base64!"}, None),
        ({"auth": None, "username": 3}, None),
    ],
)
def test_every_form_of_an_entry(home, entry, found):
    write(home / ".docker/config.json", {"auths": {"r.example": entry}})
    assert CredentialStore({"HOME": str(home)}).find("r.example") == found


@pytest.mark.parametrize("key", ["r.example", "https://r.example", "https://r.example/", "https://r.example/v2/"])
def test_keys_with_scheme_and_path(home, key):
    write(home / ".docker/config.json", {"auths": {key: auth("u", "p")}})
    assert CredentialStore({"HOME": str(home)}).find("r.example") == Credential("u", "p")
    assert CredentialStore({"HOME": str(home)}).find("example") is None
    assert CredentialStore({"HOME": str(home)}).find("r.example:443") is None


@pytest.mark.parametrize("key", ["https://index.docker.io/v1/", "docker.io", "registry-1.docker.io"])
def test_docker_hub_has_many_names(home, key):
    write(home / ".docker/config.json", {"auths": {key: auth("u", "p")}})
    assert CredentialStore({"HOME": str(home)}).find("docker.io", "acme/bot") == Credential("u", "p")


def test_the_first_file_with_a_match_wins(home, tmp_path):
    places = [
        tmp_path / "named.json",
        tmp_path / "docker/config.json",
        tmp_path / "run/containers/auth.json",
        home / ".config/containers/auth.json",
    ]
    for number, path in enumerate(places):
        write(path, {"auths": {"r.example": auth(f"user{number}", "p")}})
    environ = {
        "HOME": str(home),
        "REGISTRY_AUTH_FILE": str(places[0]),
        "DOCKER_CONFIG": str(tmp_path / "docker"),
        "XDG_RUNTIME_DIR": str(tmp_path / "run"),
    }
    for number, path in enumerate(places):
        assert CredentialStore(environ).find("r.example").username == f"user{number}"
        write(path, {"auths": {"other.example": auth("other", "p")}})
    assert CredentialStore(environ).find("r.example") is None


def test_one_named_file_shuts_out_all_others_and_what_was_typed_comes_first(home, tmp_path):
    write(home / ".docker/config.json", {"auths": {"r.example": auth("home", "p")}})
    named = write(tmp_path / "own.json", {"auths": {}})
    environ = {"HOME": str(home)}
    assert CredentialStore(environ, str(named)).find("r.example") is None
    typed = Credential("typed", "x")
    assert CredentialStore(environ, str(named), typed).find("r.example") is typed


def test_the_longest_namespace_wins_in_containers_files_only(home, tmp_path):
    auths = {
        "r.example": auth("host", "p"),
        "r.example/acme": auth("acme", "p"),
        "r.example/acme/bot": auth("bot", "p"),
    }
    environ = {"HOME": str(home), "REGISTRY_AUTH_FILE": str(write(tmp_path / "auth.json", {"auths": auths}))}
    found = {name: CredentialStore(environ).find("r.example", name).username for name in ("acme/bot", "acme/x", "y")}
    assert found == {"acme/bot": "bot", "acme/x": "acme", "y": "host"}
    write(home / ".docker/config.json", {"auths": auths})
    assert CredentialStore({"HOME": str(home)}).find("r.example", "acme/bot").username == "host"


def test_helpers_come_before_entries(home, helper):
    environ = helper("vault", '{"ServerURL":"r.example","Username":"u","Secret":"s"}') | {"HOME": str(home)}
    config = {"auths": {"r.example": auth("file", "p")}, "credHelpers": {"r.example": "vault"}}
    write(home / ".docker/config.json", config)
    assert CredentialStore(environ).find("r.example") == Credential("u", "s")
    assert (helper.folder / "vault.stdin").read_text() == "r.example"
    assert (helper.folder / "vault.argv").read_text() == "get\n"
    write(home / ".docker/config.json", {"credsStore": "vault"})
    assert CredentialStore(environ).find("r.example") == Credential("u", "s")


def test_a_token_user_is_an_identity_token(home, helper):
    environ = helper("vault", '{"Username":"<token>","Secret":"refresh"}') | {"HOME": str(home)}
    write(home / ".docker/config.json", {"credsStore": "vault"})
    assert CredentialStore(environ).find("r.example") == Credential(identity_token="refresh")


def test_a_helper_that_knows_nothing_is_no_error_and_one_that_fails_is(home, helper):
    write(home / ".docker/config.json", {"credsStore": "vault"})
    environ = helper("vault", "credentials not found in native keychain", 1) | {"HOME": str(home)}
    assert CredentialStore(environ).find("r.example") is None
    helper("vault", "exploded, secret=hunter2", 1)
    with pytest.raises(AccessError) as caught:
        CredentialStore(environ).find("r.example")
    assert "hunter2" not in str(caught.value)
    helper("vault", "not json", 0)
    with pytest.raises(ContentError):
        CredentialStore(environ).find("r.example")


@pytest.mark.parametrize("suffix", ["../evil", "a b", "UP", "x;y", "/abs"])
def test_a_helper_cannot_be_named_out_of_its_place(home, suffix):
    write(home / ".docker/config.json", {"credHelpers": {"r.example": suffix}})
    with pytest.raises(ContentError):
        CredentialStore({"HOME": str(home), "PATH": "/bin"}).find("r.example")


def test_a_helper_of_the_working_directory_is_not_run(home, helper, monkeypatch):
    helper("vault", '{"Username":"u","Secret":"s"}')
    monkeypatch.chdir(helper.folder)
    write(home / ".docker/config.json", {"credsStore": "vault"})
    with pytest.raises(AccessError, match="search path"):
        CredentialStore({"HOME": str(home), "PATH": ".:"}).find("r.example")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "[" * 100_000])
def test_a_broken_file_is_named_and_never_shown(home, text):
    path = write(home / ".docker/config.json", text)
    with pytest.raises(ContentError) as caught:
        CredentialStore({"HOME": str(home)}).find("r.example")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("value", [{"auths": None}, {"auths": []}, {"credHelpers": None, "credsStore": None}, {}])
def test_sections_that_say_nothing_are_nothing(home, value):
    write(home / ".docker/config.json", value)
    assert CredentialStore({"HOME": str(home)}).find("r.example") is None


def test_a_file_that_others_can_read_is_warned_about(home):
    told: list[str] = []
    path = write(home / ".docker/config.json", {"auths": {"r.example": auth("u", "p")}}, 0o644)
    CredentialStore({"HOME": str(home)}, warn=told.append).find("r.example")
    assert len(told) == 1 and str(path) in told[0]
    path.chmod(0o600)
    CredentialStore({"HOME": str(home)}, warn=told.append).find("r.example")
    assert len(told) == 1


def test_keeping_and_forgetting_touch_nothing_else(home):
    path = write(
        home / ".docker/config.json", {"auths": {"a.example": auth("a", "p")}, "HttpHeaders": {"X": "y"}}, 0o644
    )
    store = CredentialStore({"HOME": str(home)})
    assert store.keep("r.example", "u", "p:ß") == str(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert store.find("r.example") == Credential("u", "p:ß")
    assert store.forget("r.example") and not store.forget("r.example")
    assert json.loads(path.read_text()) == {"auths": {"a.example": auth("a", "p")}, "HttpHeaders": {"X": "y"}}
    assert [item.name for item in path.parent.iterdir()] == ["config.json"]


def test_keeping_makes_a_private_file(home):
    CredentialStore({"HOME": str(home)}).keep("r.example", "u", "p")
    path = home / ".docker/config.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_configured_helper_keeps_and_erases_and_the_file_stays_clean(home, helper):
    environ = helper("vault", "") | {"HOME": str(home)}
    path = write(home / ".docker/config.json", {"credsStore": "vault"})
    store = CredentialStore(environ)
    assert "docker-credential-vault" in store.keep("docker.io", "u", "hunter2")
    assert "hunter2" not in path.read_text() and "hunter2" not in (helper.folder / "vault.argv").read_text()
    kept = json.loads((helper.folder / "vault.stdin").read_text())
    assert kept == {"ServerURL": "https://index.docker.io/v1/", "Username": "u", "Secret": "hunter2"}
    assert store.forget("docker.io")
    assert (helper.folder / "vault.argv").read_text() == "store\nerase\n"


def test_a_file_that_cannot_be_written_is_an_error_of_the_disk(home):
    write(home / ".docker", "a file in the way")
    with pytest.raises(LocalIOError):
        CredentialStore({"HOME": str(home)}).keep("r.example", "u", "p")


def test_no_secret_shows_in_repr():
    store = CredentialStore({"EPOCH_OCI_PASSWORD": "hunter2"}, None, Credential("u", "hunter2", "t0ken", "r0ken"))
    assert not any(secret in repr(store) for secret in ("hunter2", "t0ken", "r0ken"))


def asking(home, folder) -> CredentialStore:
    write(home / ".docker/config.json", {"credsStore": "vault"})
    return CredentialStore({"HOME": str(home), "PATH": f"{folder}:/usr/bin:/bin"})


def script(tmp_path: Path, text: str, mode: int = 0o755) -> Path:
    return write(tmp_path / "bin/docker-credential-vault", text, mode).parent


def test_a_helper_that_floods_is_cut_off(home, tmp_path):
    folder = script(tmp_path, "#!/bin/sh\nexec cat /dev/zero\n")
    with pytest.raises(ContentError, match="too much"):
        asking(home, folder).find("r.example")


def test_a_helper_that_hangs_is_given_up(home, tmp_path, monkeypatch):
    monkeypatch.setattr(helpers, "_SECONDS", 0.3)
    folder = script(tmp_path, "#!/bin/sh\necho '{'\nsleep 30\n")
    began = time.monotonic()
    with pytest.raises(AccessError, match="did not answer"):
        asking(home, folder).find("r.example")
    assert time.monotonic() - began < 5


def test_a_helper_that_does_not_listen_may_still_answer(home, tmp_path):
    folder = script(tmp_path, '#!/bin/sh\nexec <&-\necho \'{"Username":"u","Secret":"s"}\'\n')
    assert asking(home, folder).find("r.example") == Credential("u", "s")


@pytest.mark.parametrize("text", ["", "no program at all", "#!/nonexistent/interpreter\n"])
def test_a_helper_that_is_no_program(home, tmp_path, text):
    folder = script(tmp_path, text)
    with pytest.raises((AccessError, ContentError)):
        asking(home, folder).find("r.example")


def test_a_helper_that_may_not_be_run_is_passed_over(home, tmp_path):
    folder = script(tmp_path, "#!/bin/sh\n", 0o644)
    with pytest.raises(AccessError, match="search path"):
        asking(home, folder).find("r.example")


@pytest.mark.parametrize("answer", ['{"Username":null,"Secret":null}', '{"Username":"u"}', "[]", "[" * 60_000, "7"])
def test_what_a_helper_says_is_checked(home, helper, answer):
    environ = helper("vault", answer) | {"HOME": str(home)}
    write(home / ".docker/config.json", {"credsStore": "vault"})
    with pytest.raises(ContentError, match="no credentials"):
        CredentialStore(environ).find("r.example")
