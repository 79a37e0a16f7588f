"""`doctor`: what a registry is and can, whether we are let in, and that nothing is left behind."""

import email.utils
import os
import signal
import time
from pathlib import Path

import pytest
from cli_runner import Here, run_cli, start_cli
from snapshots import make_snapshot, noise, put_snapshot
from support.faults import IgnoreRange, ResetRequest, Respond, SetHeader, Stall
from support.registry_auth import PASSWORD, USER, BasicAuth, BearerAuth
from support.waiting import PATIENCE, at_once, until

from epoch_oci.registry.doctor import examine
from epoch_oci.registry.policy import RegistrySettings

LOGGED_IN = {"EPOCH_OCI_USERNAME": USER, "EPOCH_OCI_PASSWORD": PASSWORD}


@pytest.fixture
def cli(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Here(capsys)


@pytest.fixture
def full(fake_registry):
    """A registry with something in it that is large enough to tell a rate by."""

    def make(**options):
        registry = fake_registry(**options)
        registry.fault("GET", "/v2/$", SetHeader("Date", email.utils.formatdate(usegmt=True)), optional=True)
        registry.put_image("acme/bot", "v1", layers=(noise("layer", 1 << 20),))
        return registry

    return make


def checks(ran) -> dict[str, dict]:
    return {check["name"]: check for check in ran.json["checks"]}


def statuses(ran) -> dict[str, str]:
    return {name: check["status"] for name, check in checks(ran).items()}


def state(registry) -> tuple:
    names = ("acme/bot",)
    return tuple(
        (registry.blobs(name), registry.manifests(name), registry.tags(name), registry.uploads(name)) for name in names
    )


def test_a_registry_that_can_everything(cli, full):
    registry = full()
    before = state(registry)
    ran = cli("doctor", f"{registry.address}/acme/bot", "--format", "json")
    assert ran.code == 0 and ran.json["usable"] and ran.json["repository"] == "acme/bot"
    found = checks(ran)
    assert {name: found[name]["value"] for name in ("catalog", "repository", "ranges", "referrers", "public")} == {
        "catalog": True,
        "repository": True,
        "ranges": True,
        "referrers": True,
        "public": False,  # this machine's own
    }
    assert found["download"]["value"] > 0 and abs(found["clock"]["value"]) < 30
    assert "write" not in found and state(registry) == before
    assert {entry.method for entry in registry.recording} <= {"GET", "HEAD"}


def test_it_looks_at_an_artifact_rather_than_at_its_signatures(cli, full):
    registry = full()
    for number in range(6):
        registry.put_image("acme/bot", f"sha256-{number:064x}.sig", layers=(b"{}",))
    found = checks(cli("doctor", f"{registry.address}/acme/bot", "--format", "json"))
    assert found["download"]["status"] == "ok" and found["repository"]["finding"].endswith("tags: 7")


def test_what_is_written_is_taken_back(cli, full):
    registry = full()
    before = state(registry)
    ran = cli("doctor", f"{registry.address}/acme/bot", "--write", "--format", "json")
    assert ran.code == 0, ran.err
    assert set(statuses(ran).values()) == {"ok"}
    found = checks(ran)
    assert found["deletion"]["value"] is True and found["mount"]["value"] is True and found["upload"]["value"] > 0
    assert registry.recording.body_bytes("PATCH") == 4 << 20
    assert state(registry) == before


@pytest.mark.parametrize("kind", ["no deletion", "no cancelling"])
def test_what_cannot_be_taken_back_is_not_sent(cli, full, kind):
    registry = full(deletes=kind != "no deletion")
    if kind == "no cancelling":
        registry.fault("DELETE", "/blobs/uploads/", Respond(405))
    before = state(registry)
    ran = cli("doctor", f"{registry.address}/acme/bot", "--write", "--format", "json")
    assert ran.code == 0
    if kind == "no deletion":
        assert checks(ran)["deletion"]["value"] is False and checks(ran)["deletion"]["status"] == "warn"
        assert registry.recording.count("PUT") == 0 and state(registry) == before
    else:
        assert statuses(ran)["write"] == "warn" and statuses(ran)["upload"] == "skipped"
        assert registry.recording.count("PATCH") == 0 and state(registry)[0][:3] == before[0][:3]


def test_where_manifests_go_and_blobs_stay_tags_can_be_removed(cli, full):
    registry = full()
    registry.fault("DELETE", "/blobs/sha256:", Respond(405))
    before = state(registry)
    ran = cli("doctor", f"{registry.address}/acme/bot", "--write", "--format", "json")
    assert ran.code == 0 and checks(ran)["deletion"]["status"] == "ok" and checks(ran)["deletion"]["value"] is True
    assert "blobs are not deleted (HTTP 405)" in checks(ran)["deletion"]["finding"]
    assert registry.recording.count("PUT") == 0 and state(registry) == before


def test_what_it_cannot(cli, full):
    registry = full(referrers=False, catalog=False, mount=False, chunk_min_length=1 << 20)
    registry.fault("GET", "/blobs/", IgnoreRange())
    ran = cli("doctor", f"{registry.address}/acme/bot", "--write", "--format", "json")
    assert ran.code == 0
    found = checks(ran)
    for name in ("referrers", "catalog", "mount", "ranges"):
        assert found[name]["value"] is False, name
    assert found["write"]["value"] == 1 << 20
    text = cli("doctor", f"{registry.address}/acme/bot").out
    assert "WARN     ranges" in text and "blobs are served whole only" in text and text.endswith("It can be used.\n")


def test_credentials_that_are_missing_wrong_or_right(cli, full):
    registry = full(auth=BasicAuth())
    where = f"{registry.address}/acme/bot"
    ran = cli("doctor", where, "--format", "json")
    assert ran.code == 4 and statuses(ran)["credentials"] == "fail" and checks(ran)["credentials"]["code"] == "AUTH"
    assert ran.json["usable"] is False and ran.json_error["code"] == "AUTH"
    assert statuses(ran)["repository"] == "skipped" and "nobody without" in checks(ran)["public"]["finding"]
    wrong = {**LOGGED_IN, "EPOCH_OCI_PASSWORD": "not-the-password"}
    ran = cli("doctor", where, env=wrong)
    assert ran.code == 4 and "FAIL     credentials" in ran.out and "not-the-password" not in ran.out + ran.err
    ran = cli("doctor", where, "--format", "json", env=LOGGED_IN)
    assert ran.code == 0 and checks(ran)["public"]["value"] is False
    words = ("login", registry.address, "--username", USER, "--password-stdin")
    assert run_cli(*words, input=PASSWORD.encode()).code == 0
    ran = cli("doctor", where, "--format", "json")
    file = str(Path(os.environ["DOCKER_CONFIG"]) / "config.json")
    assert (
        ran.code == 0 and checks(ran)["credentials"]["value"] == file and USER in checks(ran)["credentials"]["finding"]
    )
    assert PASSWORD not in ran.out


def test_a_repository_that_anybody_can_read(cli, full):
    registry = full(auth=BearerAuth(anonymous=("pull",)))
    ran = cli("doctor", f"{registry.address}/acme/bot", "--format", "json", env=LOGGED_IN)
    assert ran.code == 0 and checks(ran)["public"]["value"] is True
    assert "--allow-public" in checks(ran)["public"]["advice"]
    # Without credentials it can be used for reading, and that is not writing.
    ran = cli("doctor", f"{registry.address}/acme/bot", "--format", "json")
    assert ran.code == 0 and statuses(ran)["credentials"] == "warn"
    ran = cli("doctor", f"{registry.address}/acme/bot", "--write", "--format", "json")
    assert ran.code == 4 and statuses(ran)["write"] == "fail"


@pytest.mark.parametrize("variant", ["good", "expired", "foreign-ca", "wrong-host"])
def test_certificates(cli, full, tls_kit, variant):
    registry = full(tls=variant)
    words = ("--ca-file", str(tls_kit.ca_file), "--format", "json")
    ran = cli("doctor", f"{registry.address}/acme/bot", *words)
    if variant != "good":
        assert ran.code == 6 and [check["name"] for check in ran.json["checks"]] == ["reachable"]
        hint = {"expired": "renew", "foreign-ca": "--ca-file", "wrong-host": "another name"}[variant]
        assert hint in checks(ran)["reachable"]["advice"] and hint in ran.json_error["message"]
        return
    found = checks(ran)["certificate"]
    assert ran.code == 0 and found["value"] > "20" and str(tls_kit.ca_file) in found["finding"]
    assert "valid until" in found["finding"]
    ran = cli("doctor", f"{registry.address}/acme/bot", "--insecure", "--format", "json")
    assert ran.code == 0 and statuses(ran)["certificate"] == "warn"


def test_a_certificate_of_ours(cli, full, tls_kit):
    registry = full(tls="good")
    for variant, code in (("good", 0), ("expired", 4)):
        files = tls_kit.files(variant)
        words = ("--ca-file", tls_kit.ca_file, "--cert-file", files.certificate, "--key-file", files.key)
        ran = cli("doctor", f"{registry.address}/acme/bot", *words, "--format", "json")
        assert ran.code == code and str(files.certificate) in checks(ran)["own-certificate"]["finding"]


def test_clocks_that_differ(cli, full):
    registry = full()
    registry.fault("GET", "/v2/$", SetHeader("Date", email.utils.formatdate(time.time() - 600, usegmt=True)))
    ran = cli("doctor", registry.address, "--format", "json")
    assert ran.code == 0 and statuses(ran)["clock"] == "warn" and -610 < checks(ran)["clock"]["value"] < -590


def test_what_is_no_registry_or_not_there(cli, full):
    registry = full()
    registry.fault("GET", "/v2/$", Respond(404))
    ran = cli("doctor", registry.address, "--format", "json")
    assert ran.code == 5 and [check["name"] for check in ran.json["checks"]] == ["reachable"]
    registry.stop()
    ran = cli("doctor", registry.address)
    assert ran.code == 6 and "FAIL     reachable" in ran.out and ran.out.endswith("It cannot be used as it is.\n")


@pytest.mark.parametrize("silent", [("catalog", "repository"), ("catalog",)])
def test_a_registry_that_falls_silent_costs_a_bounded_time(full, silent):
    """Time is the test's own: each wait between two tries takes much of it."""
    registry = full()
    paths = {"catalog": "/_catalog", "repository": "/tags/list"}
    cuts = [registry.fault("GET", paths[name], ResetRequest()) for name in silent]
    clock = [0.0]

    def sleep(seconds: float) -> None:
        clock[0] += 22 / len(silent)

    settings = RegistrySettings(plain_http=True, sleep=sleep, clock=lambda: clock[0], jitter=lambda: 1.0)
    found = examine(registry.address, "acme/bot", None, settings)
    told = {check.name: check for check in found.checks}
    # What cannot be done without is a failure where there was no time for it: it would count as usable else.
    assert told["repository"].status == "fail" and found.error is told["repository"].error
    if len(silent) == 1:
        assert "not answered: catalog" in told["repository"].finding
    for name in ("public", "ranges", "download", "referrers"):
        assert told[name].status == "skipped" and "not answered: catalog, repository" in told[name].advice
    assert all(cut.fired for cut in cuts) and not registry.recording.count("HEAD")


def test_a_repository_that_is_not_there_yet(cli, full):
    registry = full()
    ran = cli("doctor", f"{registry.address}/acme/new", "--format", "json")
    assert ran.code == 0 and checks(ran)["repository"]["value"] is False
    assert statuses(ran)["ranges"] == "skipped"
    ran = cli("doctor", f"{registry.address}/acme/new", "--write", "--format", "json")
    assert ran.code == 0 and statuses(ran)["write"] == "ok" and statuses(ran)["deletion"] == "skipped"
    assert registry.recording.count("PUT") == 0 and not registry.uploads("acme/new")
    assert cli("doctor", f"{registry.address}/acme/bot:none").code == 5


def test_an_interruption_is_no_finding(full):
    registry = full()
    registry.fault("GET", "/tags/list", Stall(PATIENCE))
    child = start_cli("doctor", f"{registry.address}/acme/bot")
    until(lambda: registry.recording.count("GET", "/tags/list"))
    child.send_signal(signal.SIGINT)
    with at_once():
        out, err = child.communicate()
    assert child.returncode == 130 and out == b"" and b"INTERRUPTED" in err


def test_a_registry_alone(cli, full):
    registry = full()
    ran = cli("doctor", registry.address)
    assert ran.code == 0 and "not tried: repository, public, ranges, download, referrers" in ran.out
    assert cli("doctor", registry.address, "--write").code == 2
    for word in ("store", "oci:layout", "https://", "a b/c"):
        assert cli("doctor", word).code == 2


def test_real_registries(live_registry, repo_name, tmp_path):
    made = make_snapshot("W3b")
    put_snapshot(tmp_path / "store", made)
    target = f"{live_registry.address}/{repo_name}"
    assert run_cli("push", made.key, target, "--store", tmp_path / "store").code == 0
    ran = run_cli("doctor", target, "--write", "--format", "json")
    assert ran.code == 0, ran.err
    found = checks(ran)
    assert found["deletion"]["value"] is True and found["mount"]["value"] is True and found["ranges"]["value"] is True
    assert found["referrers"]["value"] is False and found["write"]["status"] == "ok"
    assert run_cli("ls", target, "--format", "json").json["tags"] == ["v1"]
    assert run_cli("verify", f"{target}:v1").code == 0
    # It writes down the state of a hash (108 bytes) after it has cancelled an upload; what was sent is gone.
    left = live_registry.storage / "docker/registry/v2/repositories" / repo_name / "_uploads"
    assert not list(left.rglob("data"))


def test_a_real_registry_by_https_that_asks_for_credentials(live_tls, repo_name):
    target, words = f"{live_tls.address}/{repo_name}", ("--ca-file", str(live_tls.ca_file), "--format", "json")
    assert run_cli("doctor", target, *words).code == 4
    ran = run_cli("doctor", target, *words, "--write", env=LOGGED_IN)
    assert ran.code == 0 and statuses(ran)["certificate"] == "ok" and checks(ran)["public"]["value"] is False
