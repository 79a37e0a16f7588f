"""The configuration file: what it may say, what outweighs it, and mirrors."""

import json
import os
from pathlib import Path

import pytest
from cli_runner import Here, run_cli, run_fresh, start_cli
from snapshots import make_snapshot, put_snapshot, tree
from support.faults import Flip, Respond
from support.registry_auth import PASSWORD, USER, BasicAuth

from epoch_oci import schemas
from epoch_oci.cli import app
from epoch_oci.cli.commands.machine import _OF_COMMANDS
from epoch_oci.cli.config_file import DEFAULT_KEYS, HOST_KEYS, load
from epoch_oci.cli.flags import COMMON
from epoch_oci.cli.session import connection_here, options_for_workers
from epoch_oci.cli.settings import environment, settings


@pytest.fixture
def cli(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Here(capsys)


@pytest.fixture
def bot(tmp_path):
    made = make_snapshot("W3b")
    put_snapshot(tmp_path / "store", made)
    return made


def write(text: str, mode: int = 0o600) -> Path:
    path = Path(os.environ["XDG_CONFIG_HOME"]) / "epoch-oci" / "config.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def shown(cli, name: str, *words: str, env: dict[str, str] | None = None) -> tuple[object, str, str | None]:
    """What `config show` says of a setting: its value, and where it comes from."""
    ran = cli("config", "show", *words, "--format", "json", env=env)
    assert ran.code == 0, ran.err
    (row,) = [row for row in ran.json["settings"] if row["name"] == name]
    return row["value"], row["from"]["kind"], row["from"]["where"]


def arguments(*words: str) -> dict[str, object]:
    """What a verb would be given."""
    call = app.parse(words, environment())
    assert not isinstance(call, int)
    return dict(call.arguments)


def test_a_flag_outweighs_a_variable_and_that_the_file_and_that_the_default(cli):
    assert shown(cli, "retry-for") == (600.0, "default", None)
    path = write('# mine\n[defaults]\nretry-for = "5m"\n')
    assert shown(cli, "retry-for") == (300.0, "file", f"{path}:3")
    env = {"EPOCH_OCI_RETRY_FOR": "4m"}
    assert shown(cli, "retry-for", env=env) == (240.0, "variable", "EPOCH_OCI_RETRY_FOR")
    assert shown(cli, "retry-for", "--retry-for", "3m", env=env) == (180.0, "flag", "--retry-for")


def test_what_people_see(cli):
    path = write('[defaults]\njobs = 3\n[hosts."a.b"]\nmirrors = ["m.example", "n.example/x"]\n')
    text = cli("config", "show").out
    assert f"Configuration file: {path}" in text and f"{path}:2" in text
    assert "a.b: mirrors" in text and "m.example, n.example/x" in text
    assert cli("config", "nonsense").code == 2 and cli("config").out == cli("config", "show").out


def test_flags_of_a_command_have_the_file_s_defaults(cli, bot, tmp_path, monkeypatch):
    path = write(
        f'[defaults]\nstore = "{tmp_path}/store"\njobs = 3\nlevel = 9\npart-size = 1048576\nlimit-rate = "50M"\n'
    )
    assert cli("inspect", "team/bot:v1").code == 0
    assert cli("push", "team/bot:v1", "oci:layout").code == 0
    found = arguments("push", "a:b", "ghcr.io/a/b")
    assert (found["jobs"], found["level"], found["part_size"], found["limit_rate"]) == (3, 9, "1048576", "50M")
    assert arguments("push", "a:b", "ghcr.io/a/b", "-j", "5")["jobs"] == 5
    monkeypatch.setenv("EPOCH_STORE", "elsewhere")
    assert arguments("push", "a:b", "ghcr.io/a/b")["store"] == "elsewhere"
    # What is typed outweighs it as it does a variable: a place for files is no contradiction then.
    assert cli("pull", "oci:layout", "-o", "files").code == 0
    assert shown(cli, "level") == (9, "file", f"{path}:4")


def test_a_default_for_one_form_is_none_for_the_other(cli, bot):
    write("[defaults]\nzstd = 3\nlevel = 3\nchunk-size = 1048576\n")
    plain = cli("push", "team/bot:v1", "oci:layout", "--store", "store", "--format", "json")
    assert plain.code == 0 and plain.json["artifactType"] == "application/vnd.cocoon.snapshot.v1+json"
    words = ("--store", "store", "--dialect", "cocoonstack", "--allow-loss", "--format", "json")
    other = cli("push", "team/bot:v1", "oci:other", *words)
    assert other.code == 0 and other.json["artifactType"] == "application/vnd.cocoonstack.snapshot.v2+json"
    assert cli("push", "team/bot:v1", "oci:third", "--store", "store", "--zstd", "3").code == 2


def test_what_holds_for_a_host_and_the_least_of_several():
    write(
        '[defaults]\njobs = 9\nlimit-rate = "1G"\n[hosts."a.example"]\njobs = 4\nlimit-rate = "50M"\n'
        '[hosts."B.example:5000"]\njobs = 2\nlimit-rate = 104857600\n'
    )
    assert arguments("push", "a:b", "c.example/r")["jobs"] == 9
    assert arguments("push", "a:b", "a.example/r:v1")["jobs"] == 4
    both = arguments("copy", "docker://a.example/r:v1", "b.example:5000/r")
    assert both["jobs"] == 2 and both["limit_rate"] == "50M"
    assert arguments("sync", "store", "b.example:5000/m")["jobs"] == 2
    assert arguments("copy", "a.example/r:v1", "b.example:5000/r", "-j", "7")["jobs"] == 7


def test_a_certificate_authority_of_one_host(cli, fake_registry, tls_kit, bot):
    registry, other = fake_registry(tls="good"), fake_registry(tls="good")
    path = write(f'[hosts."{registry.address}"]\nca-file = "{tls_kit.ca_file}"\n')
    words = ("--store", "store", "--format", "json")
    assert cli("push", "team/bot:v1", f"{registry.address}/acme/bot", *words, "--retry-for", "0").code == 0
    assert cli("push", "team/bot:v1", f"{other.address}/acme/bot", *words, "--retry-for", "0").code == 6
    found = cli("config", "show", "--format", "json").json
    assert found["file"] == str(path) and found["hosts"] == [
        {
            "host": registry.address,
            "name": "ca-file",
            "value": str(tls_kit.ca_file),
            "from": {"kind": "file", "where": f"{path}:2"},
        }
    ]


def test_http_for_one_host_and_a_variable_outweighs_it(cli):
    write('[hosts."registry.invalid:1"]\nplain-http = true\n')
    words = ("ls", "registry.invalid:1/a", "--retry-for", "0", "--debug")
    assert "http://registry.invalid:1/" in cli(*words).err
    assert "http://registry.invalid:1/" not in cli(*words, env={"EPOCH_OCI_PLAIN_HTTP": "0"}).err


SECRETS = "hunter2-hunter2"


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("[defaults]\njob = 3\n", 2, 'config.toml:2: [defaults] has no key "job"; did you mean jobs?'),
        ("[default]\njobs = 3\n", 2, "did you mean defaults?"),
        ("jobs = 3\n", 2, "write jobs below [defaults]"),
        ('[hosts."a.b"]\nstore = "/x"\n', 2, "write it below [defaults]"),
        ('[defaults]\nprofile = "ghcr"\n', 2, 'write it below [hosts."HOST"]'),
        ("[hosts]\nghcr.io = {jobs = 2}\n", 2, '[hosts."ghcr.io"]'),
        ('[hosts."a.b"]\nfoo = 1\n', 2, "config.toml:2: [hosts] has no key"),
        ("[defaults]\n\njobs = 300\n", 2, "config.toml:3: jobs: 300 is more than 64"),
        ('[defaults]\njobs = "3"\n', 2, "config.toml:2: jobs: "),
        ("[defaults]\njobs = 1979-05-27\n", 2, "config.toml:2: jobs: "),
        ('[defaults]\nlimit-rate = "1"\n', 2, "config.toml:2"),
        ('[defaults]\nca-file = "relative.pem"\n', 2, "config.toml:2: ca-file: "),
        ('[defaults]\nca-file = "/none.pem"\n', 5, "config.toml:2: there is no file /none.pem"),
        ("[defaults]\nforce = true\n", 2, "what allows something is typed, or in EPOCH_OCI_FORCE"),
        ("[defaults]\nallow_public = true\n", 2, "or in EPOCH_OCI_ALLOW_PUBLIC"),
        ('[hosts."a.b"]\ninsecure = true\n', 2, "or in EPOCH_OCI_INSECURE"),
        ("[defaults]\njobs = 8.5\n", 2, "jobs: 8.5 is not of type integer"),
        ('[hosts."a.b"]\nprofile = "ghrc"\n', 2, 'profile: "ghrc" is none of ghcr, dockerhub, '),
        ('[hosts."a.b/c"]\njobs = 1\n', 2, "a registry is HOST[:PORT]"),
        ('[hosts."a.b"]\nkey-file = "/k.pem"\n', 2, "cert-file"),
        ('[hosts."a b"]\njobs = 1\n', 2, "hosts"),
        ('[hosts."a.b"]\nmirrors = ["https://m.example"]\n', 2, "config.toml:2: mirrors: "),
        ('[hosts."a.b"]\ntrust-host = ["u:p@m.example"]\n', 2, "config.toml:2: trust-host: "),
        (f'[defaults]\npassword = "{SECRETS}"\n', 2, "config.toml:2: password looks like a secret"),
        (f'[hosts."a.b"]\nauth_token = "{SECRETS}"\n', 2, "config.toml:2: auth_token looks like a secret"),
        (f"password = {SECRETS}\n", 2, "no TOML: it is wrong at line 1"),
        (f'[defaults]\nstore = "{SECRETS}\n', 2, "no TOML"),
        (f'[defaults]\nstore = "epoch+https://bob:{SECRETS}@h.example"\n', 2, "config.toml:2: store: "),
        (f'[hosts."a.b"]\nmirrors = ["m.example", "bob:{SECRETS}@m.example/x"]\n', 2, "config.toml:2: mirrors: "),
        (f'[hosts."bob:{SECRETS}@a.b"]\njobs = 1\n', 2, "config.toml:1: hosts: "),
        ("[defaults]\nx = " + "[" * 5000, 2, "no TOML"),
        (f"[defaults]\njobs = {'9' * 5000}\n", 2, "no TOML"),
        ("[defaults]\njobs = nan\n", 2, "config.toml:2: jobs: "),
        (f"[defaults]\njobs{'.a' * 100_000} = 1\n", 2, "config.toml:2: there are more than 128 dots"),
        (f"[defaults]\njobs{'.a' * 128} = 1\n", 2, "jobs: an object is not of type integer"),
        (f"# {'x' * (1 << 20)}\n", 2, "too large"),
        ("\udcff", 2, "not UTF-8"),
    ],
)
def test_what_is_wrong_in_it_is_said_with_its_line_and_a_way_on(cli, text, code, says):
    path = write("")
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    for words in (("version",), ("push", "a:b", "oci:layout", "--store", "store")):
        ran = cli(*words)
        assert ran.code == code and says in ran.error
        assert SECRETS not in ran.err and ran.out == ""


def test_what_is_shown_has_no_password_and_no_signature(cli):
    env = {
        "EPOCH_OCI_STORE": f"epoch+https://bob:{SECRETS}@h.example",
        "EPOCH_OCI_REGISTRY_CONFIG": str(write("")),
        "EPOCH_OCI_TRUST_HOST": f"a.example\nbob:{SECRETS}@b.example",
        "EPOCH_OCI_CACHE": f"s3://b/p?X-Amz-Signature={SECRETS}",
    }
    for words in ((), ("--format", "json")):
        ran = cli("config", "show", *words, env=env)
        assert ran.code == 0 and SECRETS not in ran.out + ran.err
        assert "h.example" in ran.out and "b.example" in ran.out and "X-Amz-Signature=" in ran.out


def test_who_may_write_it(cli, tmp_path):
    for mode in (0o602, 0o620, 0o666):
        path = write("", mode)
        ran = cli("version")
        assert ran.code == 8 and str(path) in ran.error and "chmod go-w" in ran.error
    write("", 0o644)
    assert cli("version").code == 0
    if os.geteuid() == 0:
        os.chown(path, 12345, 0)
        assert cli("version").code == 8 and "somebody else" in cli("version").error


def test_which_file_it_is(cli, tmp_path):
    write("[defaults]\njobs = 3\n")
    (tmp_path / "mine.toml").write_text("[defaults]\njobs = 4\n")
    (tmp_path / "mine.toml").chmod(0o600)
    named = {"EPOCH_OCI_CONFIG": str(tmp_path / "mine.toml")}
    assert shown(cli, "jobs")[0] == 3
    assert shown(cli, "jobs", env=named)[0] == 4
    assert shown(cli, "jobs", env={"EPOCH_OCI_CONFIG": "/dev/null"})[0] is None
    assert cli("version", env={"EPOCH_OCI_CONFIG": str(tmp_path / "none")}).code == 5
    assert cli("version", env={"EPOCH_OCI_CONFIG": str(tmp_path)}).code == 2
    os.mkfifo(tmp_path / "fifo")
    assert run_cli("version", env={"EPOCH_OCI_CONFIG": str(tmp_path / "fifo")}).code == 2


def test_help_needs_no_file_that_is_right():
    write("[")
    for words in (("--help",), ("push", "--help")):
        assert run_fresh(*words).code == 0


def test_the_format_of_errors_may_stand_in_it(cli):
    write('[defaults]\nformat = "json"\n')
    ran = cli("inspect", "oci:none")
    assert ran.code == 5 and ran.json_error["code"] == "NOT_FOUND"


def test_a_worker_elsewhere_has_its_own_file(monkeypatch, tls_kit):
    host = '[hosts."a.b"]\nprofile = "harbor"\nmirrors = ["m.example/x"]\n'
    write(f'[defaults]\nretry-for = 90\nca-file = "{tls_kit.ca_file}"\n{host}')
    connection = connection_here(())
    assert connection.ca_file == str(tls_kit.ca_file) and connection.retry_for == 90.0
    assert connection.at("A.b").profile == "harbor" and connection.at("c.d").profile is None
    monkeypatch.setenv("EPOCH_OCI_PROFILE", "zot")
    assert connection_here(()).at("a.b").profile == "zot"
    # What its run was told outweighs it, as what is typed does.
    told = options_for_workers(settings({"profile": "ghcr", "retry_for": "5s"}, {}))
    assert connection_here(told).at("a.b").profile == "ghcr" and connection_here(told).retry_for == 5.0


def test_every_option_of_how_a_registry_is_reached_travels_to_a_worker(tmp_path, monkeypatch, tls_kit):
    monkeypatch.chdir(tmp_path)
    for name in ("ca.pem", "own.pem", "own.key"):
        (tmp_path / name).write_bytes(Path(tls_kit.ca_file).read_bytes())
    (tmp_path / "auth.json").write_text("{}")
    given = {
        "plain_http": True,
        "insecure": True,
        "ca_file": "ca.pem",
        "cert_file": "own.pem",
        "key_file": "own.key",
        "registry_config": "auth.json",
        "trust_host": ["m.example"],
        "profile": "zot",
        "retry_for": "0",
    }
    assert set(given) == {flag.name for flag in COMMON if flag.registry} - {"progress", "username", "password_stdin"}
    there = connection_here(options_for_workers(settings(given, {})))
    assert there.plain_http and there.insecure and there.profile == "zot" and there.retry_for == 0
    assert there.trusted_hosts == {"m.example"}
    paths = (there.ca_file, there.cert_file, there.key_file, there.registry_config)
    assert paths == tuple(str(tmp_path / name) for name in ("ca.pem", "own.pem", "own.key", "auth.json"))


def test_neither_what_is_said_in_the_file_nor_who_logs_in_travels_to_a_worker():
    write("[defaults]\nretry-for = 90\n")
    environ = {**environment(), "EPOCH_OCI_USERNAME": "me", "EPOCH_OCI_PASSWORD": "hush"}
    assert options_for_workers(settings({}, environ, load(environ))) == ()


def test_the_schema_has_the_keys_that_are_read():
    rule = schemas.schema("cli/config-file.v1")
    assert set(rule["properties"]["defaults"]["properties"]) == set(DEFAULT_KEYS)
    assert set(rule["$defs"]["host"]["properties"]) == set(HOST_KEYS)
    flags = {flag.key for name in app.VERBS for flag in app.spec(name).flags.values()} | {flag.key for flag in COMMON}
    assert set(DEFAULT_KEYS) | set(HOST_KEYS) - {"mirrors"} <= flags
    # Each can be looked up, and takes what its flag takes.
    assert set(DEFAULT_KEYS) <= {flag.key for flag in (*COMMON, *_OF_COMMANDS)}
    choices = {flag.key: flag.choices for flag in (*COMMON, *_OF_COMMANDS)}
    for table in (rule["properties"]["defaults"], rule["$defs"]["host"]):
        for key, taken in table["properties"].items():
            assert tuple(taken.get("enum", ())) == choices.get(key, ()), key


# Mirrors


def mirrored(origin, *mirrors: str) -> None:
    write(f'[hosts."{origin.address}"]\nmirrors = {json.dumps(mirrors)}\n')


@pytest.fixture
def pair(cli, bot, fake_registry):
    return mirrored_pair(cli, fake_registry)


def mirrored_pair(cli, fake_registry, *words: str):
    """A registry that asks for credentials, and a mirror that has all of it below a prefix."""
    origin, mirror = fake_registry(auth=BasicAuth()), fake_registry()
    env = {"EPOCH_OCI_USERNAME": USER, "EPOCH_OCI_PASSWORD": PASSWORD}
    target = f"{origin.address}/acme/bot:v1"
    assert cli("push", "team/bot:v1", target, "--store", "store", *words, env=env).code == 0
    for digest, body in origin.manifests("acme/bot").items():
        mirror.put_manifest("cache/acme/bot", "v1", body)
        assert digest in mirror.manifests("cache/acme/bot")
    for digest in origin.blobs("acme/bot"):
        mirror.put_blob("cache/acme/bot", origin.blob("acme/bot", digest))
    origin.recording.clear()
    mirrored(origin, f"{mirror.address}/cache")
    return origin, mirror, env


def test_a_pull_takes_the_bytes_from_a_mirror_and_the_tag_from_the_origin(cli, pair, tmp_path):
    origin, mirror, env = pair
    ran = cli("pull", f"{origin.address}/acme/bot:v1", "--store", "to", "--format", "json", env=env)
    assert ran.code == 0, ran.err
    assert ran.json["reference"] == f"{origin.address}/acme/bot:v1" and ran.json["bytesTransferred"] > 0
    assert tree(tmp_path / "to" / "blobs") == tree(tmp_path / "store" / "blobs")
    assert origin.recording.count("GET", "/blobs/") == 0 and origin.recording.count("*", "/manifests/v1") > 0
    assert mirror.recording.count("GET", "/blobs/") > 0
    assert not mirror.traces(PASSWORD) and all(each.header("Authorization") is None for each in mirror.recording)
    assert cli("verify", "to").code == 0


@pytest.mark.parametrize("form", ["--chunked", "--part-size=256KiB"])
def test_chunks_and_parts_come_from_a_mirror_as_well(cli, bot, fake_registry, tmp_path, form):
    origin, mirror, env = mirrored_pair(cli, fake_registry, form)
    for way, ends in (("--store", "to"), ("-o", "files")):
        assert cli("pull", f"{origin.address}/acme/bot:v1", way, ends, env=env).code == 0
    assert tree(tmp_path / "to" / "blobs") == tree(tmp_path / "store" / "blobs")
    assert origin.recording.count("GET", "/blobs/") == 0 and mirror.recording.count("GET", "/blobs/") > 0


def test_verify_asks_the_registry_itself(cli, pair):
    origin, mirror, env = pair
    assert cli("verify", f"{origin.address}/acme/bot:v1", env=env).code == 0
    assert len(mirror.recording) == 0


@pytest.mark.parametrize("wrong", ["lacks a blob", "lacks all", "wrong bytes", "refuses", "is not there"])
def test_where_a_mirror_does_not_serve_the_origin_does(cli, pair, tmp_path, wrong):
    origin, mirror, env = pair
    if wrong == "lacks a blob":
        mirror.delete_blob("cache/acme/bot", max(mirror.blobs("cache/acme/bot").items(), key=lambda item: item[1])[0])
    elif wrong == "lacks all":
        mirrored(origin, f"{mirror.address}/other")
    elif wrong == "wrong bytes":
        mirror.fault("GET", "/blobs/", Flip(0))
    elif wrong == "refuses":
        mirror.fault("GET", "/blobs/", Respond(403))
    else:
        mirror.stop()
    ran = cli("pull", f"{origin.address}/acme/bot:v1", "--store", "to", env=env)
    assert ran.code == 0 and f"the mirror {mirror.address}/" in ran.err and "does not serve" in ran.err
    assert tree(tmp_path / "to" / "blobs") == tree(tmp_path / "store" / "blobs")


def test_a_mirror_that_is_behind_is_not_believed(cli, pair, tmp_path):
    origin, _, env = pair
    put_snapshot(tmp_path / "store", make_snapshot("W1", tag="v2"))
    words = ("push", "team/bot:v2", f"{origin.address}/acme/bot:v1", "--store", "store", "--force", "-q")
    new = cli(*words, env=env).out.strip()
    ran = cli("pull", f"{origin.address}/acme/bot:v1", "--store", "to", "-q", env=env)
    assert ran.code == 0 and ran.out.strip() == new


def test_while_the_origin_is_away_the_mirror_is_heard_with_a_warning(cli, pair, tmp_path):
    origin, mirror, env = pair
    origin.stop()
    ran = cli("pull", f"{origin.address}/acme/bot:v1", "-o", "files", "--retry-for", "0", env=env)
    assert ran.code == 0 and "is away" in ran.err and mirror.address in ran.err


def test_an_archive_is_read_from_the_origin_for_what_went_out_cannot_be_taken_back(pair):
    origin, mirror, env = pair
    child = start_cli("pull", f"{origin.address}/acme/bot:v1", "-o", "-", env=env)
    out, _ = child.communicate()
    assert child.returncode == 0 and out
    assert len(mirror.recording) == 0


def test_the_library_has_mirrors_too(pair, tmp_path):
    import epoch_oci
    from epoch_oci.locate import HostReach

    origin, mirror, _ = pair
    reach = {origin.address: HostReach(mirrors=(f"{mirror.address}/cache",))}
    connection = epoch_oci.Connection(username=USER, password=PASSWORD, hosts=reach)
    epoch_oci.pull(f"{origin.address}/acme/bot:v1", tmp_path / "to", connection=connection)
    assert origin.recording.count("GET", "/blobs/") == 0 and mirror.recording.count("GET", "/blobs/") > 0
