"""Which kind of registry it is: as the user says, as its host is called, or as it asks for credentials."""

import subprocess
import sys
from dataclasses import replace

import pytest
from cli_runner import Here
from registry_room import RAW, blob, room
from snapshots import make_snapshot, put_snapshot
from support.registry_auth import PASSWORD, USER, BasicAuth, BearerAuth

from epoch_oci.cli.flags import PROFILE_NAMES
from epoch_oci.errors import UsageError
from epoch_oci.oci.reference import Reference
from epoch_oci.registry.auth_token import parse_challenges
from epoch_oci.registry.profiles import PROFILES, Manner, profile_for, profile_told
from epoch_oci.registry.repository import RegistryRepository
from epoch_oci.stores.base import BytesContent

REPO = "acme/bot"


@pytest.fixture
def cli(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Here(capsys)


def told(header: str) -> str | None:
    profile = profile_told(parse_challenges(header))
    return profile and profile.name


# As the user says


def test_the_names_of_the_flag_are_those_of_the_profiles():
    assert tuple(profile.name for profile in PROFILES) == PROFILE_NAMES


def test_the_flag_loads_no_profile():
    code = "import sys, epoch_oci.cli.flags\nassert not any('registry' in name for name in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("env", [{}, {"EPOCH_OCI_PROFILE": "nope"}], ids=["flag", "environment"])
def test_an_unknown_name_is_refused_with_the_list(cli, env):
    ran = cli("ls", "localhost:1/acme/bot", *([] if env else ["--profile", "nope"]), env=env)
    assert ran.code == 2
    assert ("EPOCH_OCI_PROFILE" if env else "--profile") in ran.error
    assert all(name in ran.error for name in PROFILE_NAMES)


@pytest.mark.parametrize("env", [{}, {"EPOCH_OCI_PROFILE": "acr"}], ids=["flag", "environment"])
def test_the_flag_reaches_the_upload(cli, env, fake_registry, tmp_path):
    """acr streams one PATCH and then closes, where an unknown registry is sent one PUT."""
    registry = fake_registry()
    words = ("push", "team/bot:v1", f"{registry.address}/{REPO}:v1", "--store", f"{tmp_path}/store")
    put_snapshot(tmp_path / "store", make_snapshot("W1"))
    assert cli(*words, *([] if env else ["--profile", "acr"]), env=env).code == 0
    assert registry.recording.count("PATCH", "/blobs/uploads/")
    assert registry.recording.body_bytes("PUT", "/blobs/uploads/") == 0


def test_a_profile_that_is_not_there():
    with pytest.raises(UsageError, match="ghcr"):
        profile_for("ghcr.io", "nope")


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("ghcr.io", "ghcr"),
        ("docker.io", "dockerhub"),
        ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", "ecr"),
        ("acme.azurecr.io", "acr"),
        ("europe-docker.pkg.dev", "gar"),
        ("quay.io", "quay"),
        ("registry.gitlab.com", "gitlab"),
        ("harbor.example.com:8443", "harbor"),
        ("zot.example.com", "zot"),
        ("localhost:5000", "unknown"),
        ("ghcr.io.example.com", "unknown"),
    ],
)
def test_hosts(host, name):
    assert profile_for(host).name == name
    assert profile_for(host, "zot").name == "zot"


# As it asks for credentials


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ('Bearer realm="https://hub.example.com/service/token",service="harbor-registry"', "harbor"),
        ('Bearer realm="http://h:8080/service/token",service="harbor-registry",scope="repository:a/b:pull"', "harbor"),
        ('Basic realm="harbor"', "harbor"),
        ('Bearer realm="https://git.example.com/jwt/auth",service="container_registry"', "gitlab"),
        ('Bearer realm="https://q.example.com:8443/v2/auth",service="q.example.com:8443"', "quay"),
        ('Bearer realm="https://acme.azurecr.io/oauth2/token",service="acme.azurecr.io"', "acr"),
        ('Basic realm="x", Bearer realm="https://git.example.com/jwt/auth",service="container_registry"', "gitlab"),
    ],
)
def test_challenges_that_tell(header, name):
    assert told(header) == name


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        'Basic realm="registry"',
        'Basic realm="harbor-like"',
        'Bearer realm="https://h/token",service="harbor-registry"',
        'Bearer realm="https://h/service/token",service="other"',
        'Bearer realm="https://git.example.com/v2/token",service="container_registry"',
        'Bearer realm="https://h/v2/auth",service="docker-proxy"',
        'Bearer realm="https://acme.azurecr.io/oauth2/token",service="other.azurecr.io"',
        'Bearer realm="https://evil.example/https://h/jwt/auth",service="container_registry"',
        'Bearer realm="https://h/service/token harbor-registry",service=""',
    ],
)
def test_challenges_that_tell_nothing(header):
    assert told(header) is None


@pytest.mark.parametrize(
    ("auth", "name"),
    [
        (BearerAuth({USER: PASSWORD}, anonymous=None, service="harbor-registry", path="/service/token"), "harbor"),
        (BearerAuth({USER: PASSWORD}, anonymous=None, service="container_registry", path="/jwt/auth"), "gitlab"),
        (BasicAuth(realm="harbor"), "harbor"),
        (BearerAuth({USER: PASSWORD}, anonymous=None), "unknown"),
        (BasicAuth(), "unknown"),
        (None, "unknown"),
    ],
)
def test_a_registry_is_known_by_its_first_answer(fake_registry, auth, name):
    registry = fake_registry(auth=auth)
    repository, heard = room(registry, login=True)
    repository.put(blob(RAW), BytesContent(RAW))
    assert repository._manner.profile.name == name
    assert any(name in line and "taken for" in line for line in heard.debug) == (name != "unknown")
    asked = [request for request in registry.recording if request.path not in ("/service/token", "/jwt/auth", "/token")]
    assert len(asked) == 2 + (auth is not None)  # a session and a blob; nothing is asked only to find out


def test_a_registry_is_known_under_another_name_for_good(fake_registry):
    """What was recognised is neither unlearnt nor changed, and a name that was given is never doubted."""
    registry = fake_registry(auth=BasicAuth(realm="harbor"))
    repository, _ = room(registry, login=True)
    repository.has(blob(RAW))
    repository._client.auth.on_challenge(
        parse_challenges('Bearer realm="https://h/jwt/auth",service="container_registry"')
    )
    assert repository._manner.profile.name == "harbor"
    settings = replace(repository._client.settings, profile="unknown")
    named = RegistryRepository(Reference.parse(f"{registry.address}/{REPO}"), settings)
    named.has(blob(RAW))
    assert named._manner.profile.name == "unknown"


def test_a_quay_of_ones_own_is_not_asked_how_far_an_upload_got(fake_registry):
    registry = fake_registry(auth=BearerAuth({USER: PASSWORD}, anonymous=None, path="/v2/auth"))
    registry.auth.service = registry.address
    repository, _ = room(registry, login=True)
    repository.put(blob(RAW), BytesContent(RAW))
    assert repository._manner.profile.name == "quay" and not repository._manner.profile.asks_status
    assert repository.limits().largest == 20 << 30


def test_chunks_shrink_no_further_than_a_mebibyte_or_what_the_registry_says():
    manner = Manner(profile_for("r.example"))
    sizes = []
    while manner.shrink():
        sizes.append(manner.chunk)
        assert len(sizes) < 30
    assert sizes == [16 << 20, 8 << 20, 4 << 20, 2 << 20, 1 << 20] and manner.chunk == 1 << 20
    told = Manner(profile_for("r.example"))
    told.at_least(12 << 20)
    assert told.shrink() and told.chunk == 16 << 20 and not told.shrink()
