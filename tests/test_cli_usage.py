"""Words and flags: where they may stand, what is refused, and how a refusal reads."""

import re
import shlex

import pytest
from cli_runner import Here, run_cli
from layouts import Layout

from epoch_oci import dialects
from epoch_oci.cli import app, arguments, flags, render, settings
from epoch_oci.cli.flags import COMMON
from epoch_oci.errors import UsageError

COMMANDS = tuple(app.VERBS)
SPECS = {name: app.spec(name) for name in COMMANDS}


@pytest.fixture
def cli(capsys):
    return Here(capsys)


def test_the_contract_s_commands_are_there():
    assert {"push", "pull", "convert", "validate", "inspect", "verify", "ls", "login", "logout", "demo", "version"} <= {
        *COMMANDS
    }


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("push", "SNAPSHOT TARGET"),
        ("pull", "REFERENCE"),
        ("convert", "FILE"),
        ("validate", "FILE…"),
        ("inspect", "LOCATION"),
        ("verify", "LOCATION"),
        ("ls", "[LOCATION]"),
        ("login", "HOST"),
        ("logout", "HOST"),
        ("demo", ""),
        ("version", ""),
    ],
)
def test_words_of_the_contract(command, words):
    assert " ".join(word.usage for word in SPECS[command].words.values()) == words


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        (
            "push",
            "--store --dialect --part-size --annotation -a --mount-from --allow-loss --allow-public"
            " --force --dry-run -j",
        ),
        ("pull", "--store --output -o --as --only --force --dry-run --jobs"),
        ("convert", "--to --dialect -o --config"),
        ("validate", "--schema"),
        ("inspect", "--store"),
        ("verify", "--store --fast --round-trip"),
        ("ls", "--store"),
        ("demo", "--keep"),
    ],
)
def test_flags_of_the_contract(command, flags):
    known = {word for flag in SPECS[command].flags.values() for word in flag.words}
    assert set(flags.split()) <= known


def test_common_flags_of_the_contract():
    wanted = "--format --progress -q -v --debug --plain-http --insecure --ca-file --registry-config --username"
    assert {word for flag in COMMON for word in flag.words} >= {*wanted.split(), "--password-stdin"}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command(cli, command):
    ran = cli(command, "--help")
    assert ran.code == 0 and ran.err == ""
    assert ran.out.startswith(f"Usage: epoch-oci {command}")
    for flag in (*SPECS[command].flags.values(), *SPECS[command].row.common):
        assert f"  {flag.word}" in ran.out
    assert cli(command, "-h").out == cli("help", command).out == ran.out


def test_the_dialects_of_the_flag_are_those_there_are():
    assert flags.DIALECT_NAMES == dialects.NAMES


@pytest.mark.parametrize("command", COMMANDS)
def test_values_that_are_few_are_shown_and_what_may_be_repeated_says_so(cli, command):
    text = " ".join(cli(command, "--help").out.split())
    for flag in SPECS[command].flags.values():
        assert not flag.choices or f"{flag.word} {'|'.join(flag.choices)}" in text
        assert flag.kind != "many" or f"{flag.help.removesuffix('.')}; may be repeated." in text
    for word in SPECS[command].words.values():
        assert not word.many or f"{word.help.removesuffix('.')}; may be repeated." in text


@pytest.mark.parametrize("command", COMMANDS)
def test_two_examples_of_every_command_can_be_typed(cli, command):
    examples = SPECS[command].row.examples
    assert len(set(examples)) == 2 and all(f"\n  {example}\n" in cli(command, "--help").out for example in examples)
    for example in examples:
        typed = [part for part in re.split(r"[|]|\$\(|\)", example) if part.lstrip().startswith("epoch-oci ")]
        call = app.parse(shlex.split(typed[0])[1:], {"HOME": "/"})
        assert not isinstance(call, int) and call.command == command


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",), ("help",), ("-q",)])
def test_help_of_the_program(cli, words):
    ran = cli(*words)
    assert ran.code == 0 and ran.err == ""
    assert all(f"\n  {command} " in ran.out for command in COMMANDS)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("psh",), 'there is no command "psh"; did you mean push?'),
        (("nonsense",), "there is no command"),
        (("nope",), "one of: push, pull, "),
        (("delete", "ghcr.io/a/b:c"), "did you mean rm?"),
        (("show",), "did you mean inspect?"),
        (("copy", "bot:v1", "ghcr.io/a/b"), "neither a registry reference nor an OCI layout"),
        (("copy", "s3://bucket", "ghcr.io/a/b"), "`push` takes one snapshot, and `sync` all of them"),
        (("push",), "epoch-oci push needs SNAPSHOT; write `epoch-oci push SNAPSHOT TARGET`"),
        (("push", "bot"), "needs TARGET"),
        (("push", "a", "b", "c"), "too many arguments: c"),
        (("push", "a", "b", "--frmat", "json"), 'has no flag "--frmat"; did you mean --format?'),
        (("push", "a", "b", "--forse"), "did you mean --force?"),
        (("push", "a", "b", "-x"), 'has no flag "-x"'),
        (("--jobs", "3", "push", "a", "b"), 'has no flag "--jobs"'),
        (("push", "a", "b", "--jobs"), "--jobs needs a value"),
        (("push", "a", "b", "--force=yes"), "--force takes no value"),
        (("push", "a", "b", "--jobs", "0"), '--jobs cannot be "0"; it takes a number from 1 to 64'),
        (("push", "a", "b", "--jobs", "many"), '--jobs cannot be "many"'),
        (("push", "a", "b", "--jobs", "١"), "--jobs cannot be"),
        (("push", "a", "b", "--format", "xml"), '--format cannot be "xml"; it takes one of: text, json'),
        (("ls", "--progress", "loud"), "it takes one of: auto, bar, plain, json, none"),
        (("convert", "x", "--to", "tar"), "it takes one of: oci, epoch"),
        (("push", "a", "oci:b", "--store", "s", "--part-size", "1000"), "at least 1KiB"),
        (("push", "a", "oci:b", "--store", "s", "--part-size", "1GB"), "cannot be"),
        (("push", "a", "oci:b", "--store", "s", "--annotation", "novalue"), "write K=V"),
        (("push", "a", "oci:b", "--store", "s", "--annotation", "=v"), "write K=V"),
        (("push", "a", "oci:b"), "no store is named; name it with --store DIR, or set EPOCH_STORE"),
        (("push", "a", "b", "--store", "s"), "neither a registry reference nor an OCI layout"),
        (("push", "localhost:5000/acme/bot", "bot:v1"), "write `epoch-oci push bot:v1 localhost:5000/acme/bot`"),
        (("push", "oci:b:v1", "bot"), "the snapshot comes first, and then where it goes"),
        (("push", "localhost:5000/acme/bot", "./s"), "write `epoch-oci pull localhost:5000/acme/bot --store ./s`"),
        (("push", "ghcr.io:443/a/b", "ghcr.io/c"), "write `epoch-oci copy ghcr.io:443/a/b ghcr.io/c`"),
        (("push", "oci:./b:v1", "ghcr.io/c"), "write `epoch-oci copy oci:./b:v1 ghcr.io/c`"),
        (("push", "a", "ghcr.io", "--store", "s"), "names a registry and no repository; write ghcr.io/REPOSITORY"),
        (("push", "a", "https://ghcr.io/a", "--store", "s"), "write ghcr.io/a, or"),
        (("pull", "http://nas:5000/a", "--store", "s"), "write nas:5000/a and give --plain-http"),
        (("convert", "https://ghcr.io/a"), "write ghcr.io/a, or"),
        (("ls", "HTTPS://ghcr.io/a"), "write ghcr.io/a, or epoch+https://ghcr.io/a"),
        (("push", "https://ghcr.io/a", "oci:b:v1", "--store", "s"), "write `epoch-oci copy ghcr.io/a oci:b:v1`"),
        (("push", "https://ghcr.io/a", "bot", "--store", "s"), "write `epoch-oci push bot ghcr.io/a`"),
        (("copy", "https://ghcr.io/a", "oci:b:v1"), "write ghcr.io/a, or"),
        (("sync", "https://ghcr.io/a", "oci:b"), "write ghcr.io/a, or"),
        (("sync", "s", "http://nas:5000/a"), "write nas:5000/a and give --plain-http"),
        (("tag", "https://ghcr.io/a:v1", "v2"), "write ghcr.io/a:v1, or"),
        (("tag", "v2", "ghcr.io/a:v1"), "write `epoch-oci tag ghcr.io/a:v1 v2`"),
        (("rm", "https://ghcr.io/a:v1"), "write ghcr.io/a:v1, or"),
        (("prune", "https://ghcr.io/a"), "write ghcr.io/a, or"),
        (("inspect", "https://ghcr.io/a"), "write ghcr.io/a, or"),
        (("verify", "https://ghcr.io/a"), "write ghcr.io/a, or"),
        (("cat", "https://ghcr.io/a", "f"), "write ghcr.io/a, or"),
        (("cat", "cow.raw", "oci:b:v1"), "write `epoch-oci cat oci:b:v1 cow.raw`"),
        (("mount", "https://ghcr.io/a", "d", "-f"), "write ghcr.io/a, or"),
        (("mount", "./d", "ghcr.io/a:v1"), "write `epoch-oci mount ghcr.io/a:v1 ./d`"),
        (("diff", "https://ghcr.io/a", "oci:b"), "write ghcr.io/a, or"),
        (("login", "https://ghcr.io/a"), "is no registry; write ghcr.io"),
        (("logout", "https://ghcr.io/a"), "is no registry; write ghcr.io"),
        (("inspect", "oci:b:bad tag"), 'as a tag "bad tag" may hold only'),
        (("ls", ""), "LOCATION is empty; is a variable of the shell not set?"),
        (("push", "a", ""), "TARGET is empty"),
        (("validate", "x", ""), "FILE is empty"),
        (("pull", "oci:b", "--store", ""), "--store was given an empty value"),
        (("pull", "oci:b", "-o", ""), "--output was given an empty value"),
        (("pull", "oci:b", "-o", "d", "--only="), "--only was given an empty value"),
        (("--format=", "ls", "s"), "--format was given an empty value"),
        (("ls", "s", "--registry-config", ""), "--registry-config was given an empty value"),
        (("push", "./s", "oci:b", "--store", "s"), "./s is no snapshot's name; name a snapshot, NAME[:TAG]"),
        (("pull", "oci:b", "--store", "localhost:5000/x"), "is a registry reference, and an Epoch store is wanted"),
        (("pull", "oci:b", "-o", "oci:c"), "is no directory for files; name a directory; `copy` fills a layout"),
        (("pull", "oci:b", "-o", "s3://c"), "is no directory for files"),
        (("push", "a", "oci:b", "--store", "s", "--as", "c"), "--as names the snapshot of an archive"),
        (
            ("push", "a", "localhost:1/b", "--store", "s", "--mount-from", "ghcr.io/c", "--plain-http"),
            "ghcr.io is another registry, and blobs are mounted within one; name a repository of localhost:1",
        ),
        (("pull", "oci:b", "-o", "-", "--only", "*.json"), "--only"),
        (("pull", "oci:b"), "name a store with --store DIR"),
        (("pull", "oci:b", "--store", "s", "-o", "d"), "exclude each other"),
        (("pull", "oci:b", "--store", "s", "--only", "x"), "--only chooses files"),
        (("pull", "bot:v1", "--store", "s"), "neither a registry reference nor an OCI layout"),
        (("ls",), "no store is named"),
        (("completion", "tcsh"), "one of: bash, zsh, fish"),
        (("validate", "--schema", "nope", "x"), 'there is no schema "nope"'),
        (("validate", "."), ". is a directory"),
    ],
)
def test_usage_errors_are_one_line_and_exit_2(cli, words, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = cli(*words)
    assert ran.code == 2 and ran.out == ""
    assert ran.error.startswith("epoch-oci: USAGE: ") and says in ran.error and "; " in ran.error
    assert len(ran.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [("pull", "oci:b", "-o"), ("pull", "oci:b", "--store"), ("ls",), ("demo", "--keep")])
def test_a_file_for_a_directory_is_exit_2(cli, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(b"x")
    Layout().write(tmp_path / "b")
    ran = cli(*words, "./file")
    assert ran.code == 2 and "is a file, and a directory is wanted here" in ran.error


@pytest.mark.parametrize(
    "words",
    [
        ("LONG",),
        ("push", "a", "oci:b", "--LONG"),
        ("push", "LONG", "oci:b", "--store", "s"),
        ("push", "a", "LONG", "--store", "s"),
        ("push", "a", "oci:b:LONG", "--store", "s"),
        ("push", "a", "ghcr.io/LONG", "--store", "s"),
        ("push", "a", "oci:b", "--store", "LONG"),
        ("push", "a", "oci:b", "--store", "s", "--annotation", "LONG"),
        ("push", "a", "oci:b", "--store", "s", "--part-size", "LONG"),
        ("push", "a", "oci:b", "c", "LONG"),
        ("pull", "ghcr.io/a@LONG", "--store", "s"),
        ("pull", "oci:LONG", "--store", "s"),
        ("pull", "oci:b", "--store", "s", "--as", "LONG"),
        ("validate", "LONG"),
        ("validate", "x", "--schema", "LONG"),
        ("convert", "LONG"),
        ("convert", "x", "--config", "LONG"),
        ("ls", "LONG"),
        ("ls", "s", "--profile", "LONG"),
        ("ls", "s", "--ca-file", "LONG"),
        ("verify", "LONG"),
        ("inspect", "cocoon:LONG"),
        ("login", "LONG"),
        ("logout", "LONG"),
        ("completion", "LONG"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("long", ["x" * 100_000, "./" + "y/" * 50_000, "a b " * 25_000, "\u202e" * 20_000])
def test_no_message_repeats_a_long_word(cli, words, long, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = cli(*(word.replace("LONG", long) for word in words), "--format", "json")
    assert ran.code in (2, 3, 5, 7), ran.err[:1000]
    assert len(ran.error) < 5_000 and len(ran.err) < 15_000


def test_a_usage_error_is_json_too_when_asked_for(cli):
    for words in (("--format", "json", "pull"), ("pull", "--format=json")):
        ran = cli(*words)
        assert ran.code == 2 and len(ran.err.splitlines()) == 2
        assert ran.json_error.keys() == {"code", "message", "object"}
        assert ran.json_error["code"] == "USAGE"
    assert cli("pull", env={"EPOCH_OCI_FORMAT": "json"}).json_error["code"] == "USAGE"


@pytest.mark.parametrize(
    "words",
    [
        ("version", "--format", "json"),
        ("--format", "json", "version"),
        ("--format=json", "version"),
        ("--version", "--format", "json"),
    ],
)
def test_common_flags_stand_before_or_after_the_command(cli, words):
    assert cli(*words).json.keys() == {"version", "python", "oras"}


def test_a_flag_after_the_command_outweighs_one_before_it(cli):
    assert cli("--format", "json", "version", "--format", "text").out.startswith("epoch-oci ")


def test_what_may_be_repeated_adds_up_wherever_it_stands():
    call = app.parse(["-v", "--trust-host", "a.example", "version", "--trust-host=b.example", "-v"], {})
    assert not isinstance(call, int)
    assert (call.settings.verbose, call.settings.trust_host) == (2, ("a.example", "b.example"))


def test_of_two_formats_the_last_one_is_that_of_an_error_too(cli):
    assert cli("--format", "text", "--format=json", "nope").json_error["code"] == "USAGE"
    assert len(cli("--format=json", "nope", "--format", "text").err.splitlines()) == 1


def test_a_dash_is_no_command(cli):
    ran = cli("-")
    assert ran.code == 2 and ran.out == "" and "there is no command" in ran.error


def test_a_flag_outweighs_the_environment(cli):
    assert cli("version", env={"EPOCH_OCI_FORMAT": "json"}).out.startswith("{")
    assert cli("version", "--format", "text", env={"EPOCH_OCI_FORMAT": "json"}).out.startswith("epoch-oci ")
    assert cli("version", env={"EPOCH_OCI_FORMAT": ""}).out.startswith("epoch-oci ")


def test_a_wrong_variable_is_named(cli):
    ran = cli("version", env={"EPOCH_OCI_FORMAT": "xml"})
    assert ran.code == 2 and 'EPOCH_OCI_FORMAT cannot be "xml"' in ran.error


class Asked(dict):
    """An environment that remembers what it was asked for."""

    def __init__(self, **values: str) -> None:
        super().__init__(values)
        self.names: set[str] = set()

    def get(self, name, default=None):
        self.names.add(name)
        return super().get(name, default)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_has_its_variable(command):
    environ = Asked()
    words = ["x" for word in SPECS[command].words.values() if not word.optional]
    call = app.parse([command, *words], environ)
    assert not isinstance(call, int)
    flags = (*SPECS[command].flags.values(), *COMMON)
    expected = {f"EPOCH_OCI_{flag.word.removeprefix('--').replace('-', '_').upper()}" for flag in flags}
    assert expected <= environ.names


def test_variables_of_every_kind():
    environ = {
        "EPOCH_OCI_FORCE": "1",
        "EPOCH_OCI_JOBS": "7",
        "EPOCH_OCI_ANNOTATION": "a=1\nb=two words\n",
        "EPOCH_OCI_DRY_RUN": "no",
        "EPOCH_OCI_VERBOSE": "2",
        "EPOCH_STORE": "/from/epoch",
    }
    call = app.parse(["push", "a", "b"], environ)
    assert call.arguments["force"] is True and call.arguments["dry_run"] is False
    assert call.arguments["jobs"] == 7 and call.settings.verbose == 2
    assert call.arguments["annotation"] == ("a=1", "b=two words")
    assert call.arguments["store"] == "/from/epoch" and call.origins["store"] == "EPOCH_STORE"
    call = app.parse(["push", "a", "b"], environ | {"EPOCH_OCI_STORE": "/ours"})
    assert call.arguments["store"] == "/ours"
    assert app.parse(["push", "a", "b", "--store", "/typed"], environ).arguments["store"] == "/typed"


def test_a_switch_in_the_environment_must_be_one():
    with pytest.raises(UsageError, match='EPOCH_OCI_FORCE cannot be "perhaps"'):
        app.parse(["push", "a", "b"], {"EPOCH_OCI_FORCE": "perhaps"})


def test_flags_may_be_repeated():
    call = app.parse(["pull", "r", "--only", "a", "--only", "b", "-vv", "-v"], {})
    assert call.arguments["only"] == ("a", "b") and call.settings.verbose == 3


def test_a_word_may_look_like_a_flag_behind_two_dashes():
    assert app.parse(["push", "--", "--odd", "oci:x"], {}).arguments["snapshot"] == "--odd"


@pytest.mark.parametrize(
    "words",
    [
        ("login", "ghcr.io", "--password", "hunter2hunter2"),
        ("login", "ghcr.io", "--password=hunter2hunter2"),
        ("login", "ghcr.io", "-p", "hunter2hunter2"),
        ("login", "ghcr.io", "-phunter2hunter2"),
        ("login", "ghcr.io", "me", "hunter2hunter2"),
        ("push", "a", "b", "--token=hunter2hunter2"),
        ("push", "a", "b", "--password-stdin=hunter2hunter2"),
    ],
)
@pytest.mark.parametrize("debug", [(), ("--debug",)])
def test_a_secret_is_no_flag_s_value_and_is_not_repeated(cli, words, debug):
    ran = cli(*words, *debug)
    assert ran.code == 2
    assert "hunter2" not in ran.out + ran.err
    if "--password" in words[2] or words[2].startswith(("-p", "--password")):
        assert "--password-stdin" in ran.err


@pytest.mark.parametrize(
    "words",
    [
        ("ls", "USER@ghcr.io/acme/bot"),
        ("inspect", "docker://USER@ghcr.io/acme/bot:v1"),
        ("pull", "USER@localhost:5000/acme/bot", "--store", "x"),
        ("push", "bot", "USER@[::1]:5000/acme/bot", "--store", "."),
        ("ls", "https://USER@ghcr.io/acme/bot"),
        ("pull", "localhost:1/x", "--store", "s3://USER@bucket"),
        ("pull", "localhost:1/x", "--store", "x", "--seed=epoch+https://USER@host"),
        ("convert", "USER@ghcr.io/acme/bot:v1"),
        ("login", "USER@ghcr.io"),
        ("logout", "https://USER@ghcr.io/"),
        ("login", "ghcr.io", "USER@ghcr.io"),
        ("ls", "a", "USER@ghcr.io/acme/bot"),
        ("USER@ghcr.io/acme/bot",),
        ("--store=s3://USER@bucket", "ls"),
    ],
)
@pytest.mark.parametrize("secret", ["hunter2hunter2", "p/w@hunter2", "hunter2" * 30, "h"])
def test_a_password_in_a_location_is_refused_and_not_repeated(cli, words, secret, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = cli(*(word.replace("USER", f"me:{secret}") for word in words), "--format", "json", "--debug")
    assert ran.code == 2
    assert f":{secret}" not in ran.out + ran.err and secret[:7] + secret[:7] not in ran.err
    assert "hunter2" not in ran.err


def test_a_password_in_a_store_of_the_environment_is_not_repeated(cli):
    ran = cli("ls", env={"EPOCH_STORE": "epoch+https://me:hunter2@host"})
    assert ran.code == 2 and "hunter2" not in ran.err


def test_a_user_needs_a_password(cli):
    ran = cli("ls", "localhost:1/x", "-u", "me")
    assert ran.code == 2 and "EPOCH_OCI_PASSWORD" in ran.error and "--password-stdin" in ran.error
    assert cli("ls", "localhost:1/x", env={"EPOCH_OCI_USERNAME": "me", "EPOCH_OCI_PASSWORD": ""}).code == 2


@pytest.mark.parametrize(
    "command", [("ls", "localhost:1/x"), ("logout", "localhost:1"), ("push", "a", "localhost:1/x")]
)
def test_a_credentials_file_that_is_not_there_is_exit_2(cli, command, tmp_path):
    for path in (tmp_path / "none.json", tmp_path):
        ran = cli(*command, "--registry-config", path)
        assert ran.code == 2 and f"--registry-config: there is no file {path}" in ran.error
    ran = cli(*command, env={"EPOCH_OCI_REGISTRY_CONFIG": str(tmp_path / "none.json")})
    assert ran.code == 2 and "EPOCH_OCI_REGISTRY_CONFIG" in ran.error


def test_a_password_needs_a_user(cli, tmp_path):
    ran = cli("ls", "localhost:1/x", "--password-stdin")
    assert ran.code == 2 and "--password-stdin needs --username" in ran.error


@pytest.mark.parametrize("content", [b"", b"\n", b"one\ntwo\n", b"x" * 70_000])
def test_a_password_is_one_line(content):
    ran = run_cli("ls", "localhost:1/x", "--username", "u", "--password-stdin", input=content)
    assert ran.code == 2 and "standard input holds no password" in ran.error


def test_a_missing_ca_file_is_not_found(cli):
    ran = cli("version", "--ca-file", "/nowhere/ca.pem")
    assert ran.code == 5 and "/nowhere/ca.pem" in ran.error


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("auto", None),
        ("none", 0),
        ("1024", 1024),
        ("1K", 1024),
        ("1KiB", 1024),
        ("5M", 5 << 20),
        ("1GiB", 1 << 30),
        ("3G", 3 << 30),
    ],
)
def test_part_sizes(text, size):
    assert arguments.part_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "0", "1023", "-1", "1.5G", "1 GiB", "1GB", "1TiB", "GiB", "١GiB", "1e9", "1GiB\n"]
)
def test_part_sizes_that_are_none(text):
    with pytest.raises(UsageError):
        arguments.part_size(text)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1717666771, "1.6 GiB"),
        (1 << 40, "1.0 TiB"),
        (1048575, "1.0 MiB"),
    ],
)
def test_sizes_for_people(count, text):
    assert render.size_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0.0 s"), (3.21, "3.2 s"), (59.97, "1:00"), (75, "1:15"), (3700, "1:01:40")]
)
def test_times_for_people(seconds, text):
    assert render.duration_text(seconds) == text


def test_what_an_unparsable_line_wants():
    guess = settings.guessed(["push", "--format", "json", "--progress=json", "--debug", "--oops"], {})
    assert guess.json and guess.json_progress and guess.debug
    assert not settings.guessed(["push", "--", "--format", "json"], {}).json
