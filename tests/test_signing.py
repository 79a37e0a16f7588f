"""Who may say what an artifact is worth: `--verify-with`, and signatures of cosign and Notation after a journey."""

import json
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cli_runner import Here, command, environment, run_bytes, run_cli
from snapshots import make_snapshot, put_snapshot
from support.peers import find_peer, requires_peer, run_peer
from support.registry_auth import PASSWORD, USER, BasicAuth
from support.waiting import at_once, until

from epoch_oci import UsageError
from epoch_oci.cli.verifier import words_of

REFERENCE = "ghcr.io/acme/bot@sha256:" + "0" * 64


@pytest.fixture
def cli(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Here(capsys)


@pytest.fixture
def store(tmp_path) -> Path:
    put_snapshot(tmp_path / "store", make_snapshot("w3b"))
    put_snapshot(tmp_path / "store", make_snapshot("w1", tag="v9"))
    return tmp_path / "store"


@pytest.fixture
def verifier(tmp_path):
    """Makes a verifier of a few lines of Python, which has the reference in `reference`; the command that runs it."""

    def make(lines: str) -> str:
        script = tmp_path / "verifier.py"
        script.write_text(f"import os, sys\nreference = sys.argv[-1]\n{lines}\n")
        return shlex.join([sys.executable, str(script)])

    return make


@pytest.fixture
def pushed(cli, fake_registry, store):
    registry = fake_registry()
    at = f"{registry.address}/acme/bot"
    assert cli("push", "team/bot:v1", at, "--store", "store").code == 0
    return registry, at


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cosign verify", ["cosign", "verify", REFERENCE]),
        ("check {} --key 'a b'", ["check", REFERENCE, "--key", "a b"]),
        ("check --ref={} {}", ["check", f"--ref={REFERENCE}", REFERENCE]),
        ("check '$(id)' ; id", ["check", "$(id)", ";", "id", REFERENCE]),
    ],
)
def test_a_command_is_words_and_never_a_script(text, words):
    assert words_of(text, REFERENCE) == words


@pytest.mark.parametrize("text", ["", "  ", "'", 'cosign "'])
def test_what_is_no_command(text):
    with pytest.raises(UsageError):
        words_of(text, REFERENCE)


PLACES = [("--store", "copy"), ("-o", "files"), ("-o", "-")]


@pytest.mark.parametrize("place", PLACES, ids=["store", "files", "archive"])
def test_what_is_refused_is_not_fetched(cli, pushed, verifier, tmp_path, place):
    registry, at = pushed
    digest, before = registry.tags("acme/bot")["v1"], len(list(registry.recording))
    ran = run_cli("pull", f"{at}:v1", *place, "--verify-with", verifier("print(reference); sys.exit(1)"), cwd=tmp_path)
    assert ran.code == 8 and ran.error.startswith("epoch-oci: POLICY: ") and ran.out == ""
    assert f"verifier.py: {at}@{digest}" in ran.err or f": {at}@{digest}\n" in ran.err
    asked = [request.path for request in list(registry.recording)[before:]]
    assert asked and not any("/blobs/" in path for path in asked)
    assert not any((tmp_path / "copy").rglob("*.json")) and not (tmp_path / "files").exists()


@pytest.mark.parametrize("place", PLACES, ids=["store", "files", "archive"])
def test_what_was_verified_is_what_is_pulled(cli, pushed, verifier, tmp_path, place):
    """However the tag moves meanwhile; what is stored is called by the tag that was asked for all the same."""
    registry, at = pushed
    digest = registry.tags("acme/bot")["v1"]
    assert cli("push", "team/bot:v9", f"{at}:v9", "--store", "store").code == 0
    other = registry.tags("acme/bot")["v9"]
    retag = ["-m", "epoch_oci", "tag", f"{at}:v9", "v1", "--force"]
    move = f"import subprocess; subprocess.check_call([sys.executable, *{retag}])"
    words = ("pull", f"{at}:v1", *place, "--verify-with", verifier(move), "--digest-file", "d")
    done = run_bytes(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert registry.tags("acme/bot")["v1"] == other and (tmp_path / "d").read_text() == digest
    if "--store" in place:
        assert cli("ls", "copy", "--format", "json").json["snapshots"][0]["tag"] == "v1"


def test_a_verifier_has_none_of_our_secrets_and_says_none_of_its_own(pushed, verifier, tmp_path):
    _, at = pushed
    ours = {"EPOCH_OCI_PASSWORD": "ours-1234", "EPOCH_S3_SECRET_KEY": "ours-5678", "EPOCH_REGISTRY_TOKEN": "ours-9012"}
    show = "print(sorted(os.environ.items())); print(sys.stdin.read(), file=sys.stderr)"
    words = ("pull", f"{at}:v1", "-o", "files", "--verify-with", verifier(show))
    ran = run_cli(*words, cwd=tmp_path, env={**ours, "COSIGN_PASSWORD": "its-own-secret", "KEY": "v"}, input=b"typed")
    assert ran.code == 0 and "'COSIGN_PASSWORD'" in ran.err and "('KEY', 'v')" in ran.err
    assert not any(text in ran.err for text in (*ours, *ours.values(), "its-own-secret", "typed"))


def test_a_verifier_that_is_not_there_lets_nothing_pass(cli, pushed):
    _, at = pushed
    ran = cli("pull", f"{at}:v1", "-o", "files", "--verify-with", "no-such-verifier")
    assert ran.code == 2 and "no-such-verifier" in ran.error and not Path("files").exists()


def test_whom_a_verifier_leaves_behind_is_not_waited_for_and_ends(cli, pushed, verifier, tmp_path):
    _, at = pushed
    left = "import subprocess; print(subprocess.Popen(['sleep', '600']).pid, flush=True)"
    with at_once():
        ran = run_cli("pull", f"{at}:v1", "-o", "files", "--verify-with", verifier(left), cwd=tmp_path)
    assert ran.code == 0
    until(lambda: has_ended(int(re.search(r": (\d+)$", ran.err, re.MULTILINE)[1])))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_a_verifier_and_whom_it_started(pushed, verifier, tmp_path, number):
    _, at = pushed
    lines = "import subprocess; child = subprocess.Popen(['sleep', '600']); print(child.pid, flush=True); child.wait()"
    words = ("pull", f"{at}:v1", "-o", "files", "--verify-with", verifier(lines))
    child = subprocess.Popen(
        command(*words), cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    assert child.stderr is not None
    said = next(found for line in child.stderr if (found := re.search(rb": (\d+)$", line.rstrip())))
    child.send_signal(number)
    child.communicate(timeout=60)
    until(lambda: has_ended(int(said[1])))
    assert child.returncode == 128 + number and not (tmp_path / "files").exists()


def has_ended(pid: int) -> bool:
    """Whether a process is gone, or is what is left of one until its parent looks."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_what_is_refused_is_refused_whoever_has_it(cli, pushed, verifier, fake_registry, tmp_path, monkeypatch):
    """A mirror does not get the verifier asked a second time."""
    _, at = pushed
    mirror = fake_registry()
    assert cli("copy", f"{at}:v1", f"{mirror.address}/acme/bot").code == 0
    config = tmp_path / "config.toml"
    config.write_text(f'[hosts."{at.partition("/")[0]}"]\nmirrors = ["{mirror.address}"]\n')
    config.chmod(0o600)
    monkeypatch.setenv("EPOCH_OCI_CONFIG", str(config))
    once = "f = open('asked', 'a'); f.write('x'); f.close(); sys.exit(len(open('asked').read()) == 1)"
    ran = cli("pull", f"{at}:v1", "-o", "files", "--verify-with", verifier(once))
    assert ran.code == 8 and "does not serve" not in ran.err and not Path("files").exists()
    assert Path("asked").read_text() == "x"


def test_quiet_says_the_digest_alone_and_a_refusal_all_the_same(cli, pushed, verifier):
    registry, at = pushed
    ran = cli("pull", f"{at}:v1", "-o", "files", "-q", env={"EPOCH_OCI_VERIFY_WITH": verifier("print('yes')")})
    assert (ran.out, ran.err) == (registry.tags("acme/bot")["v1"] + "\n", "")
    ran = cli("pull", f"{at}:v1", "-o", "more", "-q", "--verify-with", verifier("print('no'); sys.exit(2)"))
    assert ran.code == 8 and ran.err.count("\n") == 1


def test_what_is_copied_is_what_was_verified(cli, pushed, verifier, fake_registry):
    _, at = pushed
    target = f"{fake_registry().address}/acme/bot"
    assert cli("copy", f"{at}:v1", target, "--verify-with", verifier("sys.exit(1)")).code == 8
    assert cli("ls", target).code == 5
    assert cli("copy", f"{at}:v1", target, "--verify-with", verifier("")).code == 0
    assert cli("ls", "-l", target, "--format", "json").json["artifacts"][0]["tag"] == "v1"


def test_a_verifier_may_need_the_registry_s_credentials_and_finds_them_where_they_are(fake_registry, store, tmp_path):
    """In the file that every client reads: this program hands nothing over."""
    registry = fake_registry(auth=BasicAuth())
    at = f"{registry.address}/acme/bot"
    login = ("login", registry.address, "-u", USER, "--password-stdin")
    assert run_cli(*login, input=PASSWORD.encode()).code == 0
    assert run_cli("push", "team/bot:v1", f"{at}:v1", "--store", store).code == 0
    inspect = f"{sys.executable} -m epoch_oci inspect"
    ran = run_cli("pull", f"{at}:v1", "-o", "files", "--verify-with", inspect, cwd=tmp_path)
    assert ran.code == 0 and "python" in ran.err and "team/bot:v1" in ran.err


class Signed:
    """An artifact in a live registry, signed by the programs themselves, and what says whether that holds elsewhere."""

    def __init__(self, home: Path, at: str) -> None:
        self.home, self.at = home, at
        self.digest = run_cli("push", "team/bot:v1", at, "--store", home / "store", "-q").out.strip()

    def cosign(self, *words: str) -> None:
        options = ["--key", "cosign.key", "--tlog-upload=false", "--allow-http-registry", "--yes"]
        if not (self.home / "cosign.key").exists():
            self._cosign("generate-key-pair")
        self._cosign("sign", *options, *words, f"{self.at}@{self.digest}")

    def cosign_holds(self, at: str, *words: str) -> bool:
        options = ["--key", "cosign.pub", "--insecure-ignore-tlog=true", "--allow-http-registry"]
        return self._cosign("verify", *options, *words, f"{at}@{self.digest}", check=False)

    def notation(self) -> None:
        self._notation("cert", "generate-test", "--default", "test.example")
        policy = {
            "version": "1.0",
            "trustPolicies": [
                {
                    "name": "all",
                    "registryScopes": ["*"],
                    "signatureVerification": {"level": "strict"},
                    "trustStores": ["ca:test.example"],
                    "trustedIdentities": ["*"],
                }
            ],
        }
        (self.home / "policy.json").write_text(json.dumps(policy))
        self._notation("policy", "import", "policy.json")
        self._notation("sign", "--insecure-registry", f"{self.at}@{self.digest}")

    def notation_holds(self, at: str) -> bool:
        return self._notation("verify", "--insecure-registry", f"{at}@{self.digest}", check=False)

    def _cosign(self, *words: str, check: bool = True) -> bool:
        env = {"COSIGN_PASSWORD": "", "COSIGN_EXPERIMENTAL": "1"}
        return run_peer("cosign", *words, home=self.home, env=env, check=check).returncode == 0

    def _notation(self, *words: str, check: bool = True) -> bool:
        return run_peer("notation", *words, home=self.home, check=check).returncode == 0


@pytest.fixture
def signed(store, live_registry, repo_name, tmp_path) -> Signed:
    return Signed(tmp_path, f"{live_registry.address}/{repo_name}/from/here")


def journeys(signed: Signed, live_registry, repo_name: str) -> list[str]:
    """The places where it is after a copy, a copy by way of a layout, and a sync."""
    beyond = [f"{live_registry.address}/{repo_name}/{way}" for way in ("copied", "laid", "synced")]
    here, layout = f"{signed.at}@{signed.digest}", f"oci:{signed.home}/layout:v1"
    for words in (
        ("copy", here, f"{beyond[0]}:v1"),
        ("copy", here, layout),
        ("copy", layout, f"{beyond[1]}:v1"),
        ("sync", signed.at.removesuffix("/here"), beyond[2], "--include", "here:v1"),
    ):
        ran = run_cli(*words)
        assert ran.code == 0, ran.err
    return [*beyond[:2], f"{beyond[2]}/here"]


@pytest.mark.live
@requires_peer("cosign")
@pytest.mark.parametrize("way", [(), ("--registry-referrers-mode", "oci-1-1")], ids=["tags", "referrers"])
def test_what_cosign_signed_verifies_wherever_it_went(signed, live_registry, repo_name, way):
    signed.cosign(*way)
    how = ["--experimental-oci11"] if way else []
    bare = f"{live_registry.address}/{repo_name}/bare"
    assert run_cli("copy", f"{signed.at}:v1", f"{bare}:v1", "--no-referrers").code == 0
    assert not signed.cosign_holds(bare, *how)
    for at in journeys(signed, live_registry, repo_name):
        assert signed.cosign_holds(at, *how), at


@pytest.mark.live
@requires_peer("notation")
def test_what_notation_signed_verifies_wherever_it_went(signed, live_registry, repo_name):
    signed.notation()
    bare = f"{live_registry.address}/{repo_name}/bare"
    assert run_cli("copy", f"{signed.at}:v1", f"{bare}:v1", "--no-referrers").code == 0
    assert not signed.notation_holds(bare)
    for at in journeys(signed, live_registry, repo_name):
        assert signed.notation_holds(at), at


@pytest.mark.live
@requires_peer("cosign")
def test_cosign_decides_what_is_pulled(signed):
    command = f"{find_peer('cosign')} verify --key cosign.pub --insecure-ignore-tlog=true --allow-http-registry"
    words = ("pull", f"{signed.at}:v1", "-o", "files", "--verify-with", command)
    signed._cosign("generate-key-pair")
    assert run_cli(*words, cwd=signed.home).code == 8 and not (signed.home / "files").exists()
    signed.cosign()
    ran = run_cli(*words, cwd=signed.home)
    assert ran.code == 0 and "cosign: " in ran.err and (signed.home / "files/config.json").exists()
