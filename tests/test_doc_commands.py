"""Every command and program that README and docs show is run, against real registries and a bucket."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_runner import run_cli
from doc_commands import NOT_RUN, ROOT, USERS, Block, Command, World, blocks, commands, fences, fits, pages
from recorded import export, make_root
from snapshots import make_snapshot, put_snapshot
from support import live
from support.legacy_epoch import LegacyEpoch
from support.live import LiveRegistry
from support.peers import INSTALLED, PEERS_DIRECTORY, REQUIRE_PEERS, find_peer
from support.registry_auth import PASSWORD
from support.s3 import shared_servers

import epoch_oci

PAGES = pages()
HOSTS = ("HOST", "ghcr.io", "localhost:5000", "epoch.example.com", "harbor.example.com")
CLOUDS = ("123456789012.dkr.ecr.eu-central-1.amazonaws.com", "europe-west3-docker.pkg.dev", "myregistry.azurecr.io")
SNAPSHOTS = ["bot:v1", "bot:v2", "bot:v3", "bot:v4", "sre-agent-bot:v3", "win11:latest"]


@pytest.fixture(scope="module")
def registries(tmp_path_factory) -> Iterator[list[LiveRegistry]]:
    """Two real ones with accounts, of different kinds where there are two."""
    found = list(live.registries().values())
    if not found:
        (pytest.fail if live.REQUIRE_LIVE else pytest.skip)("no registry found")
    (_, hashed) = live.HTPASSWD.strip().split(":")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(live, "HTPASSWD", "".join(f"{user}:{hashed}\n" for user in (live.USER, *USERS)))
        first = LiveRegistry(found[0], tmp_path_factory.mktemp("ghcr"), htpasswd=True).start()
        second = LiveRegistry(found[-1], tmp_path_factory.mktemp("harbor"), htpasswd=True).start()
    try:
        yield [first, second]
    finally:
        first.stop()
        second.stop()


@pytest.fixture(scope="module")
def legacy() -> Iterator[LegacyEpoch]:
    made = make_snapshot("W2a", "bot", "v3")
    with LegacyEpoch() as server:
        for raw in made.blobs.values():
            server.put_blob(raw)
        server.put_manifest("bot", "v3", made.raw)
        yield server


@pytest.fixture
def world(request, tmp_path, isolated_home, registries, legacy) -> World:
    """The page's own: nothing that another one left is in it."""
    page: Path = request.param
    text, prefix = page.read_text(), re.sub(r"[^a-z0-9]+", "-", str(page.relative_to(ROOT)).lower())
    addresses = [f"localhost:{registry.port}" for registry in registries]
    words = {f"epoch+{scheme}": f"epoch+http://{legacy.address}" for scheme in ("https://old-epoch.example.com",)}
    words |= {"epoch+https://epoch.example.com": f"epoch+http://{legacy.address}"}
    words |= {"epoch+http://localhost:4300": f"epoch+http://{legacy.address}"}
    for host in (*HOSTS, *CLOUDS):
        address = addresses[host == "harbor.example.com"]
        words |= {f"{host}/": f"{address}/{prefix}/", host: address}
    variables = {**programs(tmp_path, addresses), "GITHUB_TOKEN": PASSWORD}
    if "s3://" in text:
        _, server = list(shared_servers())[-1]
        bucket = server().make_bucket()
        variables |= server().environ(bucket)
        words |= {"s3://snapshots": f"s3://{bucket}"}
    world = World(tmp_path / "world", words, variables, PASSWORD)
    for name in SNAPSHOTS:
        kind = "W2a" if name.startswith("bot:") else "W3b"  # the dialect of modern Epoch has no place for base images
        put_snapshot(world.folder / "data/epoch", make_snapshot(kind, *name.split(":")))
    put_snapshot(world.folder / "data/epoch", make_snapshot("cloud-image", "win11", "v1"))
    make_root(world.folder / "var/lib/cocoon")
    (world.folder / "export.tar").write_bytes(export("cocoon-0.2.8-bot.tar"))
    for address in addresses:
        words = ("login", address, "--username", live.USER, "--password-stdin")
        assert run_cli(*words, input=PASSWORD.encode()).code == 0
    if "s3://" in text:
        reach = epoch_oci.Connection(environ={**os.environ, **variables})
        epoch_oci.sync(world.folder / "data/epoch", f"s3://{variables['EPOCH_S3_BUCKET']}", connection=reach)
    seed(world)
    return world


def seed(world: World) -> None:
    """What the pages take for granted: an artifact in a registry, and files to push with another client."""
    store, there = world.folder / "data/epoch", world.here("ghcr.io/my-org")
    epoch_oci.push("bot:v3", f"{there}/bot", store=store)
    epoch_oci.push("win11:v1", f"{there}/images/win11", store=store)
    epoch_oci.pull(f"{there}/bot:v3", files=world.folder / "files")
    for name in ("config.json", "memory-ranges"):
        (world.folder / "files" / name).rename(world.work / name)


def programs(folder: Path, addresses: list[str]) -> dict[str, str]:
    """How other clients reach registries of this machine without TLS, which is theirs to be told."""
    blocks = "".join(f'[[registry]]\nlocation = "{address}"\ninsecure = true\n' for address in addresses)
    conf = Path.home() / ".config/containers/registries.conf"
    conf.parent.mkdir(parents=True)
    conf.write_text(blocks)
    hosts = {address: {"tls": "disabled", "hostname": address} for address in addresses}
    for host in hosts.values():
        host |= {"user": live.USER, "pass": PASSWORD}
    (folder / "regctl.json").write_text(json.dumps({"hosts": hosts}))
    path = os.pathsep.join([os.environ["PATH"], str(PEERS_DIRECTORY)])
    return {
        "REGCTL_CONFIG": str(folder / "regctl.json"),
        "PATH": path,
    }


def lacks(command: Command) -> bool:
    """Whether a foreign program of it is not on this machine."""
    named = {*INSTALLED, "jq"} & set(re.findall(r"(?:^|\| )([a-z]+) ", command.text))
    missing = [name for name in named if find_peer(name) is None]
    assert not (missing and REQUIRE_PEERS), missing
    return bool(missing)


@pytest.mark.live
@pytest.mark.timeout(600)
@pytest.mark.parametrize("world", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES], indirect=True)
def test_every_command_of_a_page_does_what_the_page_says(world, request):
    page = request.node.callspec.params["world"]
    for block in blocks(page):
        for command in commands(block):
            if command.reason is None and not lacks(command):
                code, printed, ran = world.run(command)
                assert code == 0, f"{block.page}, line {block.line}: {ran}\n{printed}"
                if command.shown is not None:
                    assert fits(command.shown, printed), f"{command.text}\n{printed}"


def test_no_command_hides_in_a_fence_that_is_not_run():
    hidden = [
        f"{block.page}, line {block.line}"
        for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
        for block in fences(page)
        if page.name != "cli.md" and block.kind == "" and re.search(r"^(?:\$ )?epoch-oci ", block.text, re.MULTILINE)
    ]
    assert hidden == []


def test_what_is_not_run_is_shown_somewhere():
    shown = [command for page in PAGES for block in blocks(page) for command in commands(block)]
    unused = [pattern for pattern in NOT_RUN if not any(re.match(pattern, one.text, re.DOTALL) for one in shown)]
    assert unused == []
    assert sum(command.reason is None for command in shown) > 3 * sum(command.reason is not None for command in shown)


def test_commands_are_read_as_a_shell_would():
    text = "# a word\nepoch-oci push a b \\\n  --force\nepoch-oci ls |\n  cat\nfor n in 1 2; do\n  true\ndone\n"
    found = [command.text for command in commands(Block("p", 1, "sh", text))]
    assert found == [
        "# a word",
        "epoch-oci push a b \\\n  --force",
        "epoch-oci ls |\n  cat",
        "for n in 1 2; do\n  true\ndone",
    ]
    (one, two) = commands(Block("p", 1, "console", "$ echo a\na\n$ true\n"))
    assert (one, two) == (Command("echo a", "a\n"), Command("true", ""))
    assert fits("a…\nend", "abc\nmore\nend\n") and not fits("a…\nend", "b\nend") and fits("", "")


HABITS = ROOT / "docs/how-to/habits.md"
NAMED = re.compile(r"`((?:oras|skopeo|crane|regctl|epoch-oci) [a-z][^`]*)`")


def named(program: str) -> dict[tuple[str, ...], set[str]]:
    """The commands of a program in the tables of habits, each with the flags it is shown with."""
    found: dict[tuple[str, ...], set[str]] = {}
    rows = [line for line in HABITS.read_text().splitlines() if line.startswith("|")]
    for text in {text for row in rows for text in NAMED.findall(row)}:
        name, *words = text.split()
        deepest = next((i for i, word in enumerate(words) if not re.fullmatch(r"[a-z][a-z-]*", word)), len(words))
        if name == program:
            flags = found.setdefault(tuple(words[:deepest]), set())
            flags |= {word.partition("=")[0] for word in words[deepest:] if word.startswith("-")}
    return found


def helped(program: str, words: tuple[str, ...]) -> str:
    """What a command says of itself."""
    if program == "epoch-oci":
        ran = run_cli(*words, "--help")
        assert ran.code == 0, ran.err
        return ran.out
    path = PEERS_DIRECTORY / program if (PEERS_DIRECTORY / program).exists() else find_peer(program)
    if path is None:
        pytest.skip(f"{program} is not here")
    done = subprocess.run([path, *words, "--help"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("program", ["crane", "epoch-oci", "oras", "regctl", "skopeo"])
def test_what_is_compared_is_there(program):
    """The program has the command, and the command has the flags."""
    assert named(program)
    for words, flags in named(program).items():
        said = helped(program, words)
        lacking = [word for word in words if not re.search(rf"\b{re.escape(word)}\b", said)]
        lacking += [flag for flag in flags if not re.search(rf"(?<![\w-]){re.escape(flag)}\b", said)]
        assert lacking == [], words
