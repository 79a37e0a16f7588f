"""Where credentials are found, which come first, and how they are kept."""

import base64
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.waiting import at_once

from epoch_oci.errors import AccessError, ContentError, LocalIOError, UsageError
from epoch_oci.registry import credentials
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


@pytest.mark.parametrize(
    ("registry", "keys"),
    [
        (
            "r.example",
            ["r.example", "R.Example", "r.example/v1/", "https://r.example/v2/", "https://r.example/some/api"],
        ),
        ("docker.io", ["https://index.docker.io/v1/", "docker.io", "registry-1.docker.io", "https://docker.io/x"]),
    ],
)
def test_the_exact_key_wins_whatever_the_order(home, registry, keys):
    """Then the one that is nearest to it; those of other hosts never."""
    others = ["x" + registry, registry + ".x", "http://r.example.org/v2"]
    users = {key: f"user{number}" for number, key in enumerate(keys + others)}
    for left in range(len(keys)):
        for order in (keys[left:], keys[left:][::-1]):
            auths = {key: auth(users[key], "p") for key in [*others, *order]}
            write(home / ".docker/config.json", {"auths": auths})
            assert CredentialStore({"HOME": str(home)}).find(registry).username == f"user{left}"


def test_a_login_beside_an_older_key_is_the_one_that_counts(home):
    for registry in ("r.example", "docker.io"):
        aliases = {f"https://{registry}": auth("old", "p"), f"https://{registry}/v2/": auth("older", "p")}
        write(home / ".docker/config.json", {"auths": aliases})
        store = CredentialStore({"HOME": str(home)})
        store.keep(registry, "new", "p")
        assert store.find(registry).username == "new"
        assert store.forget(registry) and store.find(registry) is None


@pytest.mark.parametrize("spell", [str.lower, str.upper, str.title])
def test_members_are_known_whatever_the_case_of_their_letters(home, helper, spell):
    environ = helper("vault", '{"Username":"u","Secret":"s"}') | {"HOME": str(home)}
    path = home / ".docker/config.json"
    store = CredentialStore(environ)
    for entry, found in [
        (auth("u", "p"), Credential("u", "p")),
        ({"username": "u", "password": "p"}, Credential("u", "p")),
        ({"identitytoken": "t"}, Credential(identity_token="t")),
        ({"registrytoken": "t"}, Credential(registry_token="t")),
    ]:
        spelled = {spell(name): value for name, value in entry.items()}
        write(path, {spell("auths"): {"r.example": spelled}, "other": 1})
        assert store.find("r.example", anew=True) == found
        store.keep("s.example", "v", "q")
        assert list(json.loads(path.read_text())) == [spell("auths"), "other"]
    for value in ({spell("credsStore"): "vault"}, {spell("credHelpers"): {"r.example": "vault"}}):
        write(path, value)
        assert store.find("r.example", anew=True) == Credential("u", "s")


@pytest.mark.parametrize(
    "form",
    [
        lambda text: text,
        lambda text: "\n".join(text[at : at + 16] for at in range(0, len(text), 16)) + "\n",
        lambda text: f" {text}\r\n",
        lambda text: text.rstrip("="),
        lambda text: text.replace("+", "-").replace("/", "_"),
    ],
)
@pytest.mark.parametrize("secret", ["p", "pa", "pas", ">>>???~~~" * 9, "\udcff\udcfe", "ß" * 40])
def test_base64_as_it_is_found(home, form, secret):
    text = form(base64.b64encode(f"user:{secret}".encode("utf-8", "surrogateescape")).decode())
    write(home / ".docker/config.json", {"auths": {"r.example": {"auth": text}}})
    assert CredentialStore({"HOME": str(home)}).find("r.example") == Credential("user", secret)


@pytest.mark.parametrize("secret", [b"caf\xe9-secret", b"\xff\xfe", "naïve".encode()])
def test_passwords_that_are_not_utf_8_are_kept_as_they_are(home, helper, secret):
    store = CredentialStore({"HOME": str(home)})
    text = secret.decode("utf-8", "surrogateescape")
    store.keep("r.example", "u", text)
    entry = json.loads((home / ".docker/config.json").read_bytes())["auths"]["r.example"]
    assert base64.b64decode(entry["auth"]) == b"u:" + secret
    assert base64.b64decode(store.find("r.example").basic.removeprefix("Basic ")) == b"u:" + secret
    write(home / ".docker/config.json", {"credsStore": "vault"})
    store = CredentialStore(helper("vault", "") | {"HOME": str(home)})
    if text.isprintable():
        store.keep("r.example", "u", text)
    else:
        with pytest.raises(UsageError, match="UTF-8"):
            store.keep("r.example", "u", text)


def test_what_is_not_utf_8_or_half_a_character_elsewhere_in_the_file_stays(home):
    path = write(home / ".docker/config.json", "")
    store = CredentialStore({"HOME": str(home)})
    for kept in (b'"HttpHeaders": {"X": "\xe9"}', b'"HttpHeaders": {"X": "\\ud800"}'):
        path.write_bytes(b'{%s, "auths": {}}' % kept)
        store.keep("r.example", "u", "p")
        assert kept.partition(b": {")[2][:-1] in path.read_bytes()


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
    text = environ | {"DOCKER_AUTH_CONFIG": json.dumps({"auths": {"r.example": auth("text", "p")}})}
    assert CredentialStore(text).find("r.example").username == "text"
    for number, path in enumerate(places):
        found = CredentialStore(environ).find("r.example")
        assert (found.username, found.source) == (f"user{number}", str(path))
        write(path, {"auths": {"other.example": auth("other", "p")}})
    assert CredentialStore(environ).find("r.example") is None


def test_what_fails_is_passed_over_where_another_place_has_the_answer(home, tmp_path, helper):
    told: list[str] = []
    environ = {"HOME": str(home), "PATH": "/nonexistent", "DOCKER_AUTH_CONFIG": "{"}
    broken = write(tmp_path / "auth.json", "{")
    config = {"auths": {"r.example": auth("u", "p")}, "credsStore": "gone", "credHelpers": {"r.example": "../x"}}
    write(home / ".docker/config.json", config)
    store = CredentialStore(environ | {"REGISTRY_AUTH_FILE": str(broken)}, warn=told.append)
    assert store.find("r.example") == Credential("u", "p")
    assert len(told) == 4 and "DOCKER_AUTH_CONFIG" in told[0] and str(broken) in told[1]
    with pytest.raises(ContentError, match="DOCKER_AUTH_CONFIG"):
        store.find("other.example")


def test_a_login_writes_the_file_that_is_read_first(home, tmp_path):
    path = write(tmp_path / "run/auth.json", {"auths": {"r.example": auth("old", "p")}})
    docker = write(home / ".docker/config.json", {"auths": {"r.example": auth("docker", "p")}})
    store = CredentialStore({"HOME": str(home), "REGISTRY_AUTH_FILE": str(path)})
    assert store.keep("r.example", "new", "p") == (str(path), True)
    assert store.find("r.example") == Credential("new", "p")
    assert json.loads(docker.read_text())["auths"]["r.example"] == auth("docker", "p")


def test_a_logout_forgets_wherever_credentials_are_read_from(home, tmp_path):
    below = "containers/auth.json"
    places = [home / ".docker/config.json", tmp_path / "run" / below, home / ".config" / below]
    for path in places:
        auths = {"r.example": auth("u", "p"), "https://r.example/v1/": auth("u", "p"), "o.example": auth("o", "p")}
        write(path, {"auths": auths | ({"r.example/acme": auth("u", "p")} if "auth" in path.name else {})})
    store = CredentialStore({"HOME": str(home), "XDG_RUNTIME_DIR": str(tmp_path / "run")})
    assert store.forget("r.example") and store.find("r.example", "acme/bot") is None
    assert [json.loads(path.read_text()) for path in places] == [{"auths": {"o.example": auth("o", "p")}}] * 3
    assert not store.forget("r.example")


def test_without_a_home_there_is_no_file_to_log_in_to():
    with pytest.raises(UsageError, match="HOME"):
        CredentialStore({}).keep("r.example", "u", "p")


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
    del auths["r.example"]
    write(home / ".docker/config.json", {"auths": auths})
    assert CredentialStore({"HOME": str(home)}).find("r.example", "acme/bot").username == "bot"
    assert CredentialStore({"HOME": str(home)}).find("r.example", "other") is None


@pytest.mark.parametrize("suffix", ["desktop.exe", "ecr-login", "Vault_2", "a.b.c"])
def test_helpers_of_every_name(home, helper, suffix):
    environ = helper(suffix, '{"Username":"u","Secret":"s"}') | {"HOME": str(home)}
    write(home / ".docker/config.json", {"credsStore": suffix})
    found = CredentialStore(environ).find("r.example")
    assert found == Credential("u", "s") and found.source == f"docker-credential-{suffix}"


def test_a_helper_sees_the_environment_it_is_given_and_no_more(home, tmp_path, monkeypatch):
    monkeypatch.setenv("EPOCH_OCI_PASSWORD", "hunter2hunter2")
    folder = script(tmp_path, f'#!/bin/sh\nenv >{tmp_path}/env\necho \'{{"Username":"u","Secret":"s"}}\'\n')
    assert asking(home, folder).find("r.example") == Credential("u", "s")
    seen = (tmp_path / "env").read_text()
    assert f"HOME={home}" in seen and "hunter2" not in seen


def test_helpers_come_before_entries(home, helper):
    environ = helper("vault", '{"ServerURL":"r.example","Username":"u","Secret":"s"}') | {"HOME": str(home)}
    config = {"auths": {"r.example": auth("file", "p")}, "credHelpers": {"r.example": "vault"}}
    write(home / ".docker/config.json", config)
    assert CredentialStore(environ).find("r.example") == Credential("u", "s")
    assert (helper.folder / "vault.stdin").read_text() == "r.example"
    assert (helper.folder / "vault.argv").read_text() == "get\n"
    write(home / ".docker/config.json", {"credsStore": "vault"})
    assert CredentialStore(environ).find("r.example") == Credential("u", "s")


@pytest.mark.parametrize(
    "answer",
    ['{"username":"u","SECRET":"s","serverurl":"r"}', '\ufeff{"Username":"u","Secret":"s"}'],
    ids=["case", "mark"],
)
def test_helpers_answer_in_any_letter_case_and_behind_a_byte_order_mark(home, helper, answer):
    environ = helper("vault", answer) | {"HOME": str(home)}
    write(home / ".docker/config.json", {"credsStore": "vault"})
    assert CredentialStore(environ).find("r.example") == Credential("u", "s")


def test_a_helper_of_no_name_says_that_the_file_itself_is_meant(home, helper):
    environ = helper("vault", '{"Username":"other","Secret":"s"}') | {"HOME": str(home)}
    path = home / ".docker/config.json"
    write(path, {"credHelpers": {"r.example": ""}, "credsStore": "vault", "auths": {"r.example": auth("u", "p")}})
    store = CredentialStore(environ)
    assert store.find("r.example") == Credential("u", "p")
    assert store.keep("r.example", "u", "new") == (str(path), True)
    assert store.find("r.example") == Credential("u", "new")
    assert store.find("s.example").username == "other"


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


@pytest.mark.parametrize("suffix", ["../evil", "a b", "..", "x;y", "/abs", "a/b"])
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


@pytest.mark.parametrize("text", ["{", "[]", "7", '"x"', "[" * 100_000])
def test_a_broken_file_is_named_and_never_shown(home, text):
    path = write(home / ".docker/config.json", text)
    with pytest.raises(ContentError) as caught:
        CredentialStore({"HOME": str(home)}).find("r.example")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("raw", [b"", b" \n", b"null", b"\xef\xbb\xbf{}", "{}".encode("utf-16")])
def test_an_empty_file_is_no_error_and_can_be_logged_in_to(home, raw):
    path = write(home / ".docker/config.json", "")
    path.write_bytes(raw)
    store = CredentialStore({"HOME": str(home)})
    assert store.find("r.example") is None
    store.keep("r.example", "u", "p")
    assert store.find("r.example") == Credential("u", "p")


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
    assert store.keep("r.example", "u", "p:ß") == (str(path), True)
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
    assert store.keep("docker.io", "u", "hunter2") == ("the helper docker-credential-vault", False)
    assert "hunter2" not in path.read_text() and "hunter2" not in (helper.folder / "vault.argv").read_text()
    kept = json.loads((helper.folder / "vault.stdin").read_text())
    assert kept == {"ServerURL": "https://index.docker.io/v1/", "Username": "u", "Secret": "hunter2"}
    assert store.forget("docker.io")
    assert (helper.folder / "vault.argv").read_text() == "store\nget\nerase\n"


def test_logins_at_the_same_time_lose_nothing(home):
    hosts = [f"r{number}.example" for number in range(24)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda host: CredentialStore({"HOME": str(home)}).keep(host, "u", "p"), hosts))
    assert sorted(json.loads((home / ".docker/config.json").read_text())["auths"]) == sorted(hosts)


def test_a_login_that_was_killed_leaves_nothing_for_long(home):
    """The next one finds its way, and takes away the file in which the password lies."""
    killed = """
import os, signal, sys
from epoch_oci.disk import draft
from epoch_oci.registry.credentials import CredentialStore
draft.reveal = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
CredentialStore({"HOME": sys.argv[1]}).keep("r.example", "u", "hunter2")
"""
    assert subprocess.run([sys.executable, "-c", killed, str(home)]).returncode == -signal.SIGKILL
    folder = home / ".docker"
    (left,) = folder.iterdir()
    write(folder / ".config.json.4711.tmp", "what version 0.1 has left")
    assert left.name != "config.json" and stat.S_IMODE(left.stat().st_mode) == 0o600
    CredentialStore({"HOME": str(home)}).keep("s.example", "u", "p")
    assert [path.name for path in folder.iterdir()] == ["config.json"]


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of somebody else")


@pytest.fixture
def elsewhere():
    """A directory that every user can look into."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@needs_root
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644])
def test_the_file_of_somebody_else_stays_theirs(elsewhere, mode):
    path = write(elsewhere / "config.json", {"auths": {}}, mode)
    os.chown(path, 1000, 1001)
    store = CredentialStore(config=str(path))
    store.keep("r.example", "u", "p")
    assert store.forget("r.example")
    found = path.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (1000, 1001, mode)


@needs_root
def test_root_makes_a_file_in_somebody_s_home_that_is_theirs(elsewhere):
    os.chown(elsewhere, 1000, 1001)
    CredentialStore({"HOME": str(elsewhere)}).keep("r.example", "u", "p")
    for path in (elsewhere / ".docker", elsewhere / ".docker/config.json"):
        assert (path.stat().st_uid, path.stat().st_gid) == (1000, 1001)


@needs_root
def test_a_file_in_a_directory_of_somebody_else_is_changed_in_place(elsewhere):
    path = write(elsewhere / "config.json", {"auths": {"s.example": auth("s", "x" * 500)}})
    os.chown(path, 1000, 1000)
    inode = path.stat().st_ino
    os.seteuid(1000)
    try:
        store = CredentialStore(config=str(path))
        store.keep("r.example", "u", "p")
        assert store.forget("s.example")
    finally:
        os.seteuid(0)
    assert path.stat().st_ino == inode
    assert json.loads(path.read_text()) == {"auths": {"r.example": auth("u", "p")}}


def test_a_group_that_may_read_goes_on_reading(home):
    path = write(home / ".docker/config.json", {"auths": {}}, 0o640)
    CredentialStore({"HOME": str(home)}).keep("r.example", "u", "p")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_link_is_followed_and_stays(home, tmp_path):
    path = write(tmp_path / "dotfiles/docker.json", {"auths": {}})
    (home / ".docker").mkdir(parents=True)
    (home / ".docker/config.json").symlink_to(path)
    CredentialStore({"HOME": str(home)}).keep("r.example", "u", "p")
    assert (home / ".docker/config.json").is_symlink() and "r.example" in json.loads(path.read_text())["auths"]


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
    monkeypatch.setattr(credentials, "_HELPER_SECONDS", 0.3)
    folder = script(tmp_path, "#!/bin/sh\necho '{'\nexec sleep 100\n")
    with at_once(), pytest.raises(AccessError, match="did not answer"):
        asking(home, folder).find("r.example")


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
    with pytest.raises(ContentError, match="no credentials") as caught:
        CredentialStore(environ).find("r.example")
    assert "docker-credential-vault list" in caught.value.hint
