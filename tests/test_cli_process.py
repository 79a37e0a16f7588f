"""The command line as a process: start-up, signals, streams that fail, and the last line of an error."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_runner import Here, command, completed, environment, run_cli, run_fresh
from snapshots import make_snapshot, put_snapshot

from epoch_oci import errors
from epoch_oci.cli import app, main, settings
from epoch_oci.cli.exit_codes import exit_code, hint_of
from epoch_oci.cli.streams import Secrets, safe
from epoch_oci.redaction import without

HEAVY = {"requests", "urllib3", "oras", "obstore", "jsonschema", "jsonschema_rs", "rich"}
SLOW_SIZE = 3 << 30


@pytest.fixture
def cli(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Here(capsys)


def loaded_by(statement: str) -> set[str]:
    """The top-level modules in a fresh interpreter after `statement`."""
    code = f"import sys\n{statement}\nprint(*{{name.partition('.')[0] for name in sys.modules}}, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    return set(done.stderr.split())


def test_importing_the_package_loads_nothing():
    assert loaded_by("import epoch_oci") & (HEAVY | {"argparse"}) == set()


@pytest.mark.parametrize("words", [["--help"], ["push", "--help"], ["psh"], ["completion", "bash"]])
def test_help_loads_no_heavy_module(words):
    run = f"from epoch_oci.cli.main import run\nrun({words!r}, {{}})"
    assert loaded_by(run) & HEAVY == set()


CHUNKS = {"epoch_oci.chunks", "epoch_oci.artifacts.chunked", "epoch_oci.artifacts.packing", "blake3"}
HTTP = {"requests", "urllib3", "oras", "http.client", "ssl"}
ELSEWHERE = {"obstore", "rich", "jsonschema.validators", "epoch_oci.registry.repository", "epoch_oci.bulk"}
OTHERS = {"epoch_oci.dialects.cocoonstack"}
NOT_MOVING = {"epoch_oci.transfer.execute", "epoch_oci.transfer.zstd", "epoch_oci.flows.push", "epoch_oci.flows.pull"}
MOVING = {"epoch_oci.transfer.assemble", "epoch_oci.transfer.zstd"}
LOOKING = HTTP | ELSEWHERE | CHUNKS | OTHERS | NOT_MOVING
UPLOADING = {"epoch_oci.registry.upload", "epoch_oci.registry.upload_ranged", "epoch_oci.flows.copy"}
DERIVING = {"epoch_oci.dialects.foreign", "epoch_oci.epoch.mint", "epoch_oci.disk.assembly"}
UNUSED = {"charset_normalizer.api", "idna.core"}  # of what requests loads by itself
WORK = {"epoch_oci.flows", "epoch_oci.stores", "epoch_oci.artifacts", "epoch_oci.locate", "hashlib", "logging"}


@pytest.mark.parametrize(
    ("words", "unneeded"),
    [
        (["--help"], LOOKING | WORK),
        (["push", "--help"], LOOKING | WORK),
        (["ls", "store"], LOOKING | {"epoch_oci.dialects.cocoon"}),
        (["ls", "oci:layout"], LOOKING | {"epoch_oci.flows", "epoch_oci.artifacts", "jsonschema_rs"}),
        (["inspect", "team/bot:v1", "--store", "store"], LOOKING),
        (["inspect", "oci:layout"], LOOKING),
        (["validate", "store/manifests/team/bot/v1.json"], LOOKING | {"epoch_oci.stores.epoch_store"}),
        (["push", "team/bot:v1", "oci:layout", "--store", "store"], HTTP | ELSEWHERE | CHUNKS | OTHERS | MOVING),
        (["pull", "oci:layout", "--store", "to"], HTTP | ELSEWHERE | CHUNKS | OTHERS | {"epoch_oci.flows.push"}),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_a_short_command_loads_what_it_needs(tmp_path, words, unneeded):
    """Held by the names of modules, not by time: what is imported is most of what a short command costs."""
    put_snapshot(tmp_path / "store", make_snapshot("W1"))
    first = ["push", "team/bot:v1", "oci:layout", "--store", "store"]
    assert run_cli(*first, cwd=tmp_path).code == 0
    code = (
        "import sys, os\nfrom epoch_oci.__main__ import quicken\nquicken()\nfrom epoch_oci.cli.main import run\n"
        f"assert run({words!r}, {{'HOME': os.getcwd()}}) == 0\nprint(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert set(done.stderr.split()) & unneeded == set()


@pytest.mark.parametrize(
    ("words", "unneeded"),
    [
        (["push", "team/bot:v1", "REGISTRY/acme/bot:v1", "--store", "store"], UPLOADING | DERIVING),
        (["pull", "REGISTRY/acme/bot:v1", "--store", "to"], UPLOADING | {"epoch_oci.flows.push"}),
        (["inspect", "REGISTRY/acme/bot:v1"], UPLOADING | {"epoch_oci.flows.push", "epoch_oci.flows.pull"}),
    ],
    ids=["push", "pull", "inspect"],
)
def test_where_a_registry_has_all_already_nothing_is_loaded_that_moves_bytes(tmp_path, fake_registry, words, unneeded):
    put_snapshot(tmp_path / "store", make_snapshot("W1"))
    place = f"{fake_registry().address}/acme/bot:v1"
    for first in (["push", "team/bot:v1", place, "--store", "store"], ["pull", place, "--store", "to"]):
        assert run_cli(*first, cwd=tmp_path).code == 0
    words = [word.replace("REGISTRY/acme/bot:v1", place) for word in words]
    code = (
        "import sys, os\nfrom epoch_oci.__main__ import quicken\nquicken()\nfrom epoch_oci.cli.main import run\n"
        f"assert run({words!r}, {{'HOME': os.getcwd()}}) == 0\nprint(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    unneeded = (ELSEWHERE - {"epoch_oci.registry.repository"}) | CHUNKS | OTHERS | MOVING | UNUSED | unneeded
    assert set(done.stderr.split()) & unneeded == set() and "oras.provider" in done.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError("x"), 2),
        (errors.ContentError("x"), 3),
        (errors.AccessError("x"), 4),
        (errors.NotFoundError("x"), 5),
        (errors.NetworkError("x"), 6),
        (errors.LocalIOError("x"), 7),
        (errors.PolicyError("x"), 8),
        (errors.ConflictError("x"), 9),
        (errors.BatchError("x", []), 10),
        (errors.InterruptedTransferError("x", signal.SIGINT), 130),
        (errors.InterruptedTransferError("x", signal.SIGTERM), 143),
        (errors.EpochOciError("x"), 1),
        (ValueError("x"), 1),
    ],
)
def test_exit_codes(error, code):
    assert exit_code(error) == code
    if isinstance(error, errors.EpochOciError):
        assert hint_of(error)


@pytest.mark.parametrize(
    ("failures", "said"),
    [
        ([errors.NetworkError("x")], "run the same command again for what failed"),
        ([errors.NetworkError("x"), errors.LocalIOError("x")], "mend what is wrong on this machine and run the same"),
        ([errors.PolicyError("x"), errors.ContentError("x")], "the same command would end the same way"),
        ([errors.NetworkError("x"), errors.AccessError("x")], "again for 1 of them; the 1 other needs what is said"),
        ([errors.NetworkError("x"), *[errors.ConflictError("x")] * 2], "again for 1 of them; the 2 others need what"),
    ],
)
def test_several_failures_are_repeated_only_where_that_can_mend_them(failures, said):
    assert said in hint_of(errors.BatchError("x", failures))


def subclasses(kind):
    return {kind, *(deeper for below in kind.__subclasses__() for deeper in subclasses(below))}


def test_every_error_has_its_exit_code():
    made = subclasses(errors.EpochOciError) - {errors.EpochOciError, errors.InterruptedTransferError}
    assert all(exit_code(kind.__new__(kind)) > 1 for kind in made)


@pytest.mark.parametrize(
    ("error", "line", "code"),
    [
        (errors.ConflictError("a holds b", hint="use c"), "epoch-oci: CONFLICT: a holds b; use c", 9),
        (errors.LocalIOError("disk: full"), "epoch-oci: IO: disk: full; mend it", 7),
        (OSError(28, "No space left on device", "/x/y"), "epoch-oci: IO: /x/y: no space left on device; ", 7),
        (ConnectionResetError(104, "reset"), "epoch-oci: NETWORK: ", 6),
        (ZeroDivisionError("oops"), "epoch-oci: INTERNAL: ZeroDivisionError: oops; run it again with --debug", 1),
        (RecursionError("deep"), "epoch-oci: INTERNAL: RecursionError: deep; ", 1),
        (errors.NotFoundError("a\n\x1b[2Jb", hint="c"), "epoch-oci: NOT_FOUND: a\\n\\x1b[2Jb; c", 5),
    ],
)
def test_the_error_line(capsys, error, line, code):
    assert main._failed(error, [], {}, Secrets()) == code
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(line) and len(err.splitlines()) == 1


def test_a_traceback_with_debug_alone(capsys):
    try:
        raise ZeroDivisionError("oops")
    except ZeroDivisionError as error:
        main._failed(error, ["push", "--debug"], {}, Secrets())
    err = capsys.readouterr().err
    assert "Traceback (most recent call last):" in err and err.splitlines()[-1].startswith("epoch-oci: INTERNAL: ")


def test_the_json_error(capsys):
    main._failed(
        errors.NotFoundError("gone", object="thing\u202e", hint="look"), ["ls", "--format", "json"], {}, Secrets()
    )
    value = json.loads(capsys.readouterr().err.splitlines()[1])
    assert value == {"error": {"code": "NOT_FOUND", "message": "gone; look", "object": "thing\\u202e"}}


def test_no_secret_on_standard_error(capsys):
    environ = {"EPOCH_REGISTRY_TOKEN": "tok-5f3a9c1e77", "AWS_SECRET_ACCESS_KEY": "aws/secret+key=="}
    message = (
        "401 for tok-5f3a9c1e77 and aws%2Fsecret%2Bkey%3D%3D at "
        "https://me:hunter2@h/x?X-Amz-Signature=abcdef&n=1 dG9rLTVmM2E5YzFlNzc="
    )
    for words in ([], ["--debug"], ["--format", "json"], ["--progress", "json"]):
        main._failed(
            errors.AccessError(message, object="tok-5f3a9c1e77"), words, environ, Secrets(settings.secrets_of(environ))
        )
        err = capsys.readouterr().err
        for secret in ("tok-5f3a9c1e77", "aws%2F", "hunter2", "abcdef", "dG9rLTVmM2E5YzFlNzc="):
            assert secret not in err
        assert "X-Amz-Signature=***" in err


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain [x] ~", "plain [x] ~"),
        ("naïve 日本 …", "naïve 日本 …"),
        ("\x1b[31m\x07\x00\n\t", "\\x1b[31m\\x07\\x00\\n\\t"),
        ("\x9b31m\x85", "\\x9b31m\\x85"),
        ("a\u202eb\u2066c\u200dd\ufeff", "a\\u202eb\\u2066c\\u200dd\\ufeff"),
        ("\u05d0\u0627", "\\u05d0\\u0627"),
        ("\u2028\u2029", "\\u2028\\u2029"),
        ("\udcff\ud800", "\\xff\\ud800"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_what_a_terminal_may_see(text, shown):
    assert safe(text) == shown


def test_known_secrets_are_hidden():
    hidden = Secrets(["s3cr3t/x"]).hidden
    assert hidden("a s3cr3t/x b s3cr3t%2Fx czNjcjN0L3g=") == "a *** b *** ***"


@pytest.mark.parametrize("secret", ['"quoted"', "tab\there", "naïve\u202e", "back\\slash", "byte\udcff!"])
def test_a_secret_is_hidden_before_the_text_is_escaped(capsys, secret):
    error = errors.AccessError(f"no {secret} here", object=secret, hint=f"not {secret}")
    for words in ([], ["--debug"], ["--format", "json"], ["--progress", "json"]):
        main._failed(error, words, {}, Secrets([secret]))
        err = capsys.readouterr().err
        assert "no *** here; not ***" in err
        assert without([secret], err) == err
        assert all(json.loads(line) for line in err.splitlines() if line.startswith("{"))


@pytest.mark.parametrize("secret", ["4", "1:", "abc", ""])
def test_a_secret_too_short_to_hide_breaks_no_line(capsys, secret):
    error = errors.NotFoundError("404 abc: 1", object="4")
    main._failed(error, ["--progress", "json", "--format", "json"], {}, Secrets([secret]))
    event, line, value = capsys.readouterr().err.splitlines()
    assert json.loads(event)["message"].startswith("404 abc: 1; ") and line.startswith("epoch-oci: NOT_FOUND: 404 abc")
    assert json.loads(value)["error"]["object"] == "4"


@pytest.fixture
def slow(tmp_path):
    """A snapshot whose one file takes seconds to push: 3 GiB of zeros under a digest that they do not have."""
    digest = "ab" * 32
    store = tmp_path / "store"
    (store / "blobs/sha256").mkdir(parents=True)
    with (store / "blobs/sha256" / digest).open("wb") as file:
        file.truncate(SLOW_SIZE)
    made = make_snapshot("W1")
    value = json.loads(made.raw)
    value["layers"] = [{"digest": digest, "size": SLOW_SIZE, "filename": "memory-ranges"}]
    value["baseImages"] = []
    made.raw, made.blobs = json.dumps(value).encode(), {}
    put_snapshot(store, made)
    return ("push", "team/bot:v1", "oci:layout", "--store", "store")


@contextlib.contextmanager
def start(words: tuple[str, ...], cwd: Path, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        command(*words), cwd=cwd, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for_first_byte(process: subprocess.Popen[bytes]) -> None:
    """Until the first blob is on its way; standard error has JSON events."""
    assert process.stderr is not None
    for line in process.stderr:
        if json.loads(line)["event"] == "blob-progress":
            return
    raise AssertionError("it ended before anything moved")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_in_order(slow, tmp_path, number, code):
    with start((*slow, "--progress", "json"), tmp_path) as process:
        wait_for_first_byte(process)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        assert process.returncode == code
    lines = err.decode().splitlines()
    assert out == b"" and "Traceback" not in err.decode()
    assert lines[-1].startswith("epoch-oci: INTERRUPTED: ") and "run the same command again to go on" in lines[-1]
    assert json.loads(lines[-2])["event"] == "error"
    index = tmp_path / "layout/index.json"
    assert not index.exists() or not json.loads(index.read_bytes())["manifests"]
    visible = [path for path in (tmp_path / "layout").rglob("*") if path.is_file() and path.stat().st_size > 1 << 20]
    assert all(path.name.startswith(".") for path in visible)


def test_a_signal_while_modules_are_loaded_is_one_line(tmp_path):
    """Held until there is somebody to tell of it."""
    early = (
        "import os, signal, sys; from epoch_oci import __main__; from epoch_oci.cli import signals; signals.hold(); "
        "os.kill(os.getpid(), signal.SIGINT); sys.argv = ['epoch-oci', 'ls', 'store']; __main__.main()"
    )
    ran = subprocess.run(
        [sys.executable, "-c", early], cwd=tmp_path, env=environment(), capture_output=True, timeout=60
    )
    assert ran.returncode == 130 and ran.stdout == b""
    assert ran.stderr.decode() == "epoch-oci: INTERRUPTED: interrupted; run the same command again to go on\n"


@pytest.mark.parametrize(
    "module",
    ["epoch_oci.errors", "epoch_oci.cli.main", "argparse", "epoch_oci.flows.push", "requests", "oras.provider"],
)
def test_an_interrupt_while_a_module_is_loaded_is_one_line(tmp_path, module):
    """Whichever it is: those of the start, and those that a verb loads later."""
    put_snapshot(tmp_path / "store", make_snapshot())
    hook = f"""
import os, signal, sys
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
sys.argv = ["epoch-oci", "push", "team/bot:v1", "localhost:1/acme/bot", "--store", "store"]
from epoch_oci.__main__ import main
main()
"""
    ran = subprocess.run([sys.executable, "-c", hook], cwd=tmp_path, env=environment(), capture_output=True, timeout=60)
    assert ran.returncode == 130, ran.stderr
    assert ran.stderr.decode().count("\n") == 1 and ran.stderr.startswith(b"epoch-oci: INTERRUPTED: "), ran.stderr


def test_next_to_nothing_is_loaded_before_signals_are_held():
    path = f"import sys; sys.path[:0] = {sys.path!r}; before = set(sys.modules)"
    loaded = f"{path}; import epoch_oci.__main__; print(*set(sys.modules) - before)"
    ran = subprocess.run([sys.executable, "-S", "-c", loaded], capture_output=True, timeout=60)
    assert not {"typing", "re", "dataclasses", "json", "pathlib"} & set(ran.stdout.decode().split()), ran


def test_a_second_signal_ends_it_at_once(slow, tmp_path):
    with start((*slow, "--progress", "json"), tmp_path) as process:
        wait_for_first_byte(process)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) in (130, 143)


def test_a_signal_that_was_ignored_stays_ignored(slow, tmp_path):
    def ignore() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    with start((*slow, "--progress", "json"), tmp_path, preexec_fn=ignore) as process:
        wait_for_first_byte(process)
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        assert process.returncode == 143


def test_a_reader_that_has_gone_is_quiet(tmp_path):
    (tmp_path / "store").mkdir()
    for number in range(2000):
        path = tmp_path / f"store/manifests/bot{number}/v1.json"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"{}")
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        command("ls", "store", "-q"), cwd=tmp_path, env=environment(), stdout=writer, stderr=subprocess.PIPE, timeout=60
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_full_disk_behind_standard_output():
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command("version"), env=environment(), stdout=full, stderr=subprocess.PIPE, timeout=60, text=True
        )
    assert done.returncode == 7 and done.stderr.startswith("epoch-oci: IO: standard output cannot be written: no space")


def closing(*numbers: int):
    def close() -> None:
        for number in numbers:
            os.close(number)

    return close


def test_closed_streams(tmp_path):
    words = command("demo", "--keep", str(tmp_path / "demo"))
    done = subprocess.run(
        words, env=environment(), stderr=subprocess.PIPE, preexec_fn=closing(1), timeout=60, text=True
    )
    assert done.returncode == 7 and done.stderr.startswith("epoch-oci: IO: standard output is closed; ")
    assert not (tmp_path / "demo").exists()
    done = subprocess.run(
        words, env=environment(), stdout=subprocess.PIPE, preexec_fn=closing(0, 2), timeout=60, text=True
    )
    assert done.returncode == 0 and "Digest: sha256:" in done.stdout


def test_a_file_whose_reader_has_seen_enough(tmp_path):
    made = make_snapshot("W3b")
    put_snapshot(tmp_path / "store", made)
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        command("cat", str(made.key), "memory-ranges", "--store", "store"),
        cwd=tmp_path,
        env=environment(),
        stdout=writer,
        stderr=subprocess.PIPE,
        timeout=60,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize(
    "env", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}]
)
def test_a_terminal_that_knows_ascii_alone(env):
    ran = run_fresh("push", "--help", env=env)
    assert ran.code == 0 and ran.err == ""
    assert run_fresh("validate", "--help", env=env).code == 0


def test_demo(tmp_path):
    ran = run_fresh("demo", cwd=tmp_path, env={"TMPDIR": str(tmp_path)})
    assert (ran.code, ran.err) == (0, "") and list(tmp_path.iterdir()) == []
    assert "byte for byte the same" in ran.out and ran.out.splitlines()[-1].startswith("Digest: sha256:")
    kept = run_fresh("demo", "--keep", tmp_path / "kept", "--format", "json")
    assert kept.code == 0 and kept.json["ok"] is True
    assert f"Digest: {kept.json['digest']}" == ran.out.splitlines()[-1]
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {"store-a", "store-b", "layout", "files"}
    for name in ("store-a", "store-b", "oci:layout"):
        place = f"oci:{tmp_path}/kept/layout" if name.startswith("oci:") else tmp_path / "kept" / name
        assert run_fresh("verify", place, "--round-trip").code == 0
    assert run_fresh("demo", "--keep", tmp_path / "kept").code == 0


def test_a_demo_that_comes_out_wrong_says_so(cli, tmp_path):
    assert cli("demo", "--keep", "kept").code == 0
    (tmp_path / "kept/store-b/blobs/sha256" / ("0" * 64)).write_bytes(b"?")
    ran = cli("demo", "--keep", "kept")
    assert ran.code == 3 and "MISMATCH: the stores hold different objects" in ran.error


def test_version():
    import epoch_oci

    assert run_fresh("version").out.startswith(f"epoch-oci {epoch_oci.__version__} (Python 3.")
    assert run_fresh("--version").out == run_fresh("version").out
    script = Path(sys.executable).with_name("epoch-oci")
    if script.exists():
        done = subprocess.run([script, "--version"], env=environment(), capture_output=True, text=True, timeout=60)
        assert done.stdout == run_fresh("version").out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(cli, shell):
    ran = cli("completion", shell)
    assert ran.code == 0 and "epoch-oci" in ran.out and "_ARGCOMPLETE" in ran.out


def test_manual_pages_say_what_help_says(cli, tmp_path):
    assert cli("man", "-o", "pages").code == 0
    pages = {path.name: path.read_text() for path in (tmp_path / "pages").iterdir()}
    assert set(pages) == {"epoch-oci.1", *(f"epoch-oci-{name}.1" for name in app.VERBS)}
    assert cli("man", "push").out == pages["epoch-oci-push.1"] and cli("man").out == pages["epoch-oci.1"]
    for name in app.VERBS:
        spec, page = app.spec(name), pages[f"epoch-oci-{name}.1"]
        for flag in (*spec.flags.values(), *spec.row.common):
            assert f".B {', '.join(flag.words)}".replace("-", "\\-") in page
        assert page.count("\n.EX\n") == 2 and ".SH SEE ALSO" in page


def test_what_is_installed_is_there_whole_or_as_it_was(cli, tmp_path):
    folder = tmp_path / "pages"
    folder.mkdir()
    (folder / "epoch-oci.1").write_text("an older one")
    (folder / "epoch-oci-push.1").symlink_to("../push")
    words = ("man", "-o", "pages")
    ran = limited(1 << 10, *words, cwd=tmp_path)
    assert ran.returncode == 7 and b"pages/epoch-oci.1" in ran.stderr
    assert {path.name: path.read_text() for path in folder.iterdir() if path.is_file()} == {
        "epoch-oci.1": "an older one"
    }
    assert cli(*words).code == 0 and (folder / "epoch-oci-push.1").is_symlink() and (tmp_path / "push").is_file()
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}
    (folder / "epoch-oci-tag.1").unlink()
    os.mkfifo(folder / "epoch-oci-tag.1")
    assert cli(*words).code == 9
    (tmp_path / "file").touch()
    assert cli("man", "-o", "file").code == 2
    home = {"XDG_DATA_HOME": str(tmp_path / "data"), "SHELL": "/bin/bash"}
    assert limited(1 << 10, "completion", "--install", cwd=tmp_path, env=home).returncode == 7
    assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file()]


def limited(most: int, *words: str, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
    """The command where no file may become larger than `most` bytes."""
    code = f"""
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({most}, {most}))
from epoch_oci.__main__ import main
main()
"""
    line = [sys.executable, "-c", code, *words]
    return subprocess.run(line, cwd=cwd, env=environment(env), capture_output=True, timeout=60)


@pytest.mark.skipif(shutil.which("groff") is None, reason="needs groff")
def test_manual_pages_are_set_without_a_warning(cli, tmp_path):
    assert cli("man", "-o", "pages").code == 0
    for page in (tmp_path / "pages").iterdir():
        done = subprocess.run(["groff", "-man", "-Tutf8", "-ww", "-z", page], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), page.name


def test_completion_of_commands_flags_and_values():
    assert completed("epoch-oci pu") == ["push", "pull"]
    assert completed("epoch-oci push --dr") == ["--dry-run"]
    assert completed("epoch-oci push --format j") == ["json"]
    assert completed("epoch-oci validate --schema epoch-c") == ["epoch-catalog.v1"]
    assert completed("epoch-oci completion ") == ["bash", "zsh", "fish"]
    assert completed("epoch-oci schemas cli/pu") == ["cli/pull.v1", "cli/push.v1"]
    assert completed("epoch-oci man pu") == ["push", "pull"]


def test_completion_of_snapshots(tmp_path):
    put_snapshot(tmp_path, make_snapshot("W1"))
    put_snapshot(tmp_path, make_snapshot("W1", name="other"))
    assert completed("epoch-oci push te", EPOCH_STORE=str(tmp_path)) == ["team/bot:v1"]
    assert completed(f"epoch-oci inspect --store {tmp_path} o") == ["other:v1"]
    assert completed("epoch-oci push te") == []
    assert completed("epoch-oci push te", EPOCH_STORE=str(tmp_path / "nowhere")) == []


def test_completion_is_put_where_the_shell_looks(cli, tmp_path):
    for shell, where in (
        ("bash", ".local/share/bash-completion/completions/epoch-oci"),
        ("zsh", ".local/share/zsh/site-functions/_epoch-oci"),
        ("fish", ".config/fish/completions/epoch-oci.fish"),
    ):
        home = {"HOME": str(tmp_path), "XDG_DATA_HOME": "", "XDG_CONFIG_HOME": ""}
        ran = cli("--install-completion", env={"SHELL": f"/bin/{shell}", **home})
        assert ran.code == 0 and ran.out == "" and f"wrote {tmp_path / where}" in ran.err
        shown = cli("--show-completion", env={"SHELL": f"/bin/{shell}"})
        assert (tmp_path / where).read_text() == shown.out == cli("completion", shell).out


def test_what_is_not_needed_is_not_loaded_and_is_there_when_it_is():
    """oras imports jsonschema for checks that a transfer never asks for, and requests two for texts and hosts."""
    script = """
    import sys
    from epoch_oci.__main__ import quicken
    quicken()
    import oras.provider, requests
    later = ("jsonschema.", "idna.", "charset_normalizer.")
    assert not [name for name in sys.modules if name.startswith(later)]
    from epoch_oci import schemas
    assert list(schemas.findings({}, "epoch-manifest.v1"))
    assert "jsonschema.validators" in sys.modules
    oras.provider.jsonschema.validate(1, {"type": "integer"})
    import jsonschema
    assert jsonschema is not oras.provider.jsonschema and jsonschema.Draft202012Validator
    answer = requests.models.Response()
    answer._content = "grüße aus köln, schöne grüße".encode("latin-1")
    assert answer.apparent_encoding and "charset_normalizer.api" in sys.modules
    assert requests.Request("GET", "http://köln.example/").prepare().url == "http://xn--kln-sna.example/"
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
