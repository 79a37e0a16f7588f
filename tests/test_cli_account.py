"""`login`, `logout`, and who speaks to a registry."""

import base64
import json
import os
import pty
import signal
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cli_runner import Here, command, environment, run_cli
from snapshots import make_snapshot, put_snapshot
from support.canary import shows
from support.faults import Stall, Throttle
from support.registry_auth import PASSWORD, USER, BasicAuth, BearerAuth
from support.waiting import PATIENCE, at_once, until


@pytest.fixture
def cli(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Here(capsys)


@pytest.fixture
def registry(fake_registry):
    return fake_registry(auth=BasicAuth())


def config() -> Path:
    return Path(os.environ["DOCKER_CONFIG"]) / "config.json"


def login(registry, password: str = PASSWORD, *words: str):
    return run_cli("login", registry.address, "--username", USER, "--password-stdin", *words, input=password.encode())


def test_login_keeps_credentials_that_docker_reads(registry):
    ran = login(registry, PASSWORD + "\n")
    assert ran.code == 0 and ran.out.startswith(f"Logged in to {registry.address} as {USER}; ")
    assert f"{config()} holds them in clear text" in ran.err and PASSWORD not in ran.err
    kept = json.loads(config().read_bytes())["auths"][registry.address]["auth"]
    assert base64.b64decode(kept).decode() == f"{USER}:{PASSWORD}"
    assert stat.S_IMODE(config().stat().st_mode) == 0o600


def test_login_as_json(registry):
    ran = login(registry, PASSWORD, "--format", "json")
    assert ran.json == {
        "command": "login",
        "registry": registry.address,
        "username": USER,
        "credentials": str(config()),
    }


def test_a_wrong_password_is_exit_4_and_not_kept(registry):
    ran = login(registry, "wrong-wrong-wrong")
    assert ran.code == 4 and ran.error.startswith("epoch-oci: AUTH: ") and not config().exists()
    assert "wrong-wrong" not in ran.err


def test_logout_forgets(registry):
    login(registry)
    ran = run_cli("logout", registry.address)
    assert (ran.code, ran.out) == (0, f"Logged out of {registry.address}\n")
    assert json.loads(config().read_bytes())["auths"] == {}
    again = run_cli("logout", registry.address)
    assert again.code == 0 and again.out == f"No credentials of {registry.address} were kept; nothing to forget\n"
    assert run_cli("logout", registry.address, "--format", "json").json["forgotten"] is False


def test_a_variable_that_overrules_every_file_is_named(registry):
    auth = base64.b64encode(f"{USER}:another-password".encode()).decode()
    env = {"DOCKER_AUTH_CONFIG": json.dumps({"auths": {registry.address: {"auth": auth}}})}
    words = ("login", registry.address, "-u", USER, "--password-stdin")
    ran = run_cli(*words, input=PASSWORD.encode(), env=env)
    assert ran.code == 0 and "DOCKER_AUTH_CONFIG" in ran.err and auth not in ran.err
    ran = run_cli("logout", registry.address, env=env)
    assert ran.code == 0 and "DOCKER_AUTH_CONFIG" in ran.err
    ran = run_cli("logout", registry.address, env=env)
    assert ran.code == 0 and ran.out.startswith("No credentials") and "DOCKER_AUTH_CONFIG" in ran.err


def test_logins_of_many_processes_lose_nothing(fake_registry):
    registries = [fake_registry(auth=BasicAuth()) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        assert [ran.code for ran in pool.map(login, registries)] == [0] * 6
    assert set(json.loads(config().read_bytes())["auths"]) == {each.address for each in registries}
    assert [path.name for path in config().parent.iterdir()] == ["config.json"]


def test_a_credentials_file_may_be_a_pipe(registry):
    registry.put_image("acme/bot", "v1")
    auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    reading, writing = os.pipe()
    os.write(writing, json.dumps({"auths": {registry.address: {"auth": auth}}}).encode())
    os.close(writing)
    words = command("ls", f"{registry.address}/acme/bot", "--registry-config", f"/dev/fd/{reading}")
    done = subprocess.run(words, env=environment(), pass_fds=[reading], capture_output=True, timeout=60)
    os.close(reading)
    assert done.stdout == b"v1\n", done.stderr


def test_another_credentials_file(registry, tmp_path):
    path = tmp_path / "auth.json"
    assert login(registry, PASSWORD, "--registry-config", str(path)).code == 0
    assert registry.address in json.loads(path.read_bytes())["auths"] and not config().exists()
    assert run_cli("logout", registry.address, env={"EPOCH_OCI_REGISTRY_CONFIG": str(path)}).code == 0


@pytest.mark.parametrize("host", ["nonsense", "ghcr.io/acme", "http://ghcr.io", "", "a b.c"])
def test_what_is_no_registry(cli, host):
    assert cli("login", host, "-u", "x", env={"EPOCH_OCI_PASSWORD": "x"}).code == 2
    assert cli("logout", host).code == 2


def test_a_user_with_a_colon_is_none(cli):
    ran = cli("login", "ghcr.io", "-u", "me:hunter2", env={"EPOCH_OCI_PASSWORD": "x"})
    assert ran.code == 2 and "colon" in ran.error and "hunter2" not in ran.err


def test_nobody_is_asked_without_a_terminal(registry):
    ran = run_cli("login", registry.address)
    assert ran.code == 2 and "--username" in ran.error
    ran = run_cli("login", registry.address, "--username", USER)
    assert ran.code == 2 and "--password-stdin" in ran.error


def test_a_person_is_asked_and_the_password_is_not_shown(registry):
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command("login", registry.address),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment(),
        start_new_session=True,
        preexec_fn=lambda: os.close(os.open(os.ttyname(theirs), os.O_RDWR)),
    )
    os.close(theirs)
    shown, answers = b"", [(b"User of", USER), (b"Password of", PASSWORD)]
    try:
        while block := os.read(ours, 4096):
            shown += block
            if answers and answers[0][0] in shown:
                os.write(ours, answers.pop(0)[1].encode() + b"\n")
    except OSError:
        pass
    os.close(ours)
    assert process.wait(60) == 0, shown
    assert b"Logged in to" in shown and PASSWORD.encode() not in shown


def test_push_and_pull_with_kept_typed_and_inherited_credentials(registry, tmp_path):
    put_snapshot(tmp_path / "store", make_snapshot())
    target = f"{registry.address}/acme/bot"
    push = ("push", "team/bot:v1", target, "--store", "store")
    ran = run_cli(*push, cwd=tmp_path)
    assert ran.code == 4 and "epoch-oci login" in ran.error
    typed = run_cli(*push, "-u", USER, "--password-stdin", input=PASSWORD.encode(), cwd=tmp_path)
    assert typed.code == 0, typed.err
    assert run_cli("ls", target, "-u", USER, env={"EPOCH_OCI_PASSWORD": PASSWORD}).out == "v1\n"
    login(registry)
    pulled = run_cli("pull", f"{target}:v1", "--store", "second", cwd=tmp_path)
    assert pulled.code == 0, pulled.err
    assert pulled.out.splitlines()[-1] == typed.out.splitlines()[-1]
    assert run_cli("inspect", f"{target}:v1", "--format", "json").json["dialect"] == "cocoon"
    assert run_cli("verify", f"{target}:v1").code == 0


@pytest.mark.parametrize("auth", [BasicAuth, BearerAuth])
def test_debug_shows_the_exchange_and_no_secret(fake_registry, tmp_path, auth):
    registry = fake_registry(auth=auth())
    put_snapshot(tmp_path / "store", make_snapshot())
    words = ("push", "team/bot:v1", f"{registry.address}/acme/bot", "--store", "store", "--debug")
    for password in (PASSWORD, "not-the-password"):
        ran = run_cli(*words, "-u", USER, "--password-stdin", input=password.encode(), cwd=tmp_path)
        assert "/v2/acme/bot/" in ran.err and ran.code == (0 if password == PASSWORD else 4)
        assert not shows(password, ran.out + ran.err)


def test_a_secret_reaches_no_command_line(registry, tmp_path):
    """Neither our own nor that of a helper program."""
    log = tmp_path / "log"
    helper = tmp_path / "bin/docker-credential-canary"
    helper.parent.mkdir()
    helper.write_text(f'#!/bin/sh\necho "$@" >> {log}\ncat >> {log}.in\necho >> {log}.in\n')
    helper.chmod(0o755)
    config().parent.mkdir(parents=True, exist_ok=True)
    config().write_text(json.dumps({"credsStore": "canary"}))
    ran = run_cli(
        "login",
        registry.address,
        "-u",
        USER,
        "--password-stdin",
        input=PASSWORD.encode(),
        env={"PATH": f"{helper.parent}:{os.environ['PATH']}"},
    )
    assert ran.code == 0 and "docker-credential-canary" in ran.out and ran.err == ""  # nothing is kept in clear
    assert log.read_text() == "store\n" and PASSWORD in (tmp_path / "log.in").read_text()
    assert not shows(PASSWORD, config().read_bytes() + (ran.out + ran.err).encode())


def test_a_certificate_nobody_vouches_for_is_exit_6(fake_registry, tls_kit):
    registry = fake_registry(tls="good")
    ran = run_cli("ls", f"{registry.address}/acme/bot")
    assert ran.code == 6 and ran.error.startswith("epoch-oci: NETWORK: ")
    assert run_cli("ls", f"{registry.address}/acme/bot", "--ca-file", tls_kit.ca_file).code == 5
    assert run_cli("ls", f"{registry.address}/acme/bot", "--insecure").code == 5


def test_waits_are_shown_with_their_reason(fake_registry):
    registry = fake_registry()
    registry.put_image("acme/bot", "v1")
    registry.fault("GET", "/v2/acme/bot/tags/list*", Throttle(1), first=1)
    ran = run_cli("ls", f"{registry.address}/acme/bot")
    assert (ran.code, ran.out) == (0, "v1\n") and "epoch-oci: " in ran.err and "waiting 1.0 s: " in ran.err
    registry.fault("GET", "/v2/acme/bot/tags/list*", Throttle(1), first=1)
    ran = run_cli("ls", f"{registry.address}/acme/bot", "--progress", "json")
    event = json.loads(ran.err.splitlines()[0])
    assert event["event"] == "wait" and event["seconds"] == 1 and event["message"]


def test_a_foreign_token_service_is_exit_8_until_it_is_trusted(fake_registry):
    registry = fake_registry(auth=BearerAuth(realm="http://tokens.invalid/token"))
    words = ("ls", f"{registry.address}/acme/bot", "-u", USER)
    env = {"EPOCH_OCI_PASSWORD": PASSWORD}
    ran = run_cli(*words, env=env)
    assert ran.code == 8 and ran.error.startswith("epoch-oci: POLICY: ") and "--trust-host tokens.invalid" in ran.error
    for ran in (
        run_cli(*words, "--trust-host", "tokens.invalid", env=env),
        run_cli(*words, env=env | {"EPOCH_OCI_TRUST_HOST": "Tokens.Invalid"}),
    ):
        assert ran.code == 6 and "tokens.invalid" in ran.error


def test_an_interruption_does_not_wait_for_a_registry_that_stalls(fake_registry, tmp_path):
    registry = fake_registry()
    put_snapshot(tmp_path / "store", make_snapshot())
    rule = registry.fault("HEAD", "/blobs/", Stall(PATIENCE))
    words = command("push", "team/bot:v1", f"{registry.address}/acme/bot", "--store", "store", "--format", "json")
    process = subprocess.Popen(words, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until(lambda: rule.matched)
    process.send_signal(signal.SIGINT)
    with at_once():
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    line, value = err.splitlines()
    assert out == b"" and line.startswith(b"epoch-oci: INTERRUPTED: ")
    assert json.loads(value)["error"]["code"] == "INTERRUPTED"


def test_a_repository_and_a_tag_that_are_not_there(fake_registry):
    registry = fake_registry()
    assert run_cli("ls", f"{registry.address}/nobody/home").code == 5
    ran = run_cli("pull", f"{registry.address}/nobody/home", "--store", "x")
    assert ran.code == 5 and ":latest" in ran.error
    for command_ in ("inspect", "verify"):
        assert run_cli(command_, f"{registry.address}/nobody/home").code in (3, 5)


def test_mount_from_takes_repositories_with_or_without_the_host(fake_registry, tmp_path):
    registry = fake_registry()
    put_snapshot(tmp_path / "store", make_snapshot())
    store = ("--store", tmp_path / "store")
    assert run_cli("push", "team/bot:v1", f"{registry.address}/acme/one", *store).code == 0
    for name, source in (("two", "acme/one"), ("three", f"{registry.address}/acme/one")):
        ran = run_cli(
            "push", "team/bot:v1", f"{registry.address}/acme/{name}", *store, "--mount-from", source, "--format", "json"
        )
        assert ran.json["bytesTransferred"] == 0 and {blob["action"] for blob in ran.json["blobs"]} == {"mounted"}
    ran = run_cli("push", "team/bot:v1", f"{registry.address}/acme/x", *store, "--mount-from", "UPPER")
    assert ran.code == 2 and "--mount-from UPPER" in ran.error
