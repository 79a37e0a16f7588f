"""The program: every command by its name, and what a command line asks for."""

from collections.abc import Mapping, Sequence

from epoch_oci.cli.parser import HELP, Call, Invocation, Row, Spec, divided, no_such_command, program_flags

# In the order in which --help lists them.
VERBS: Mapping[str, Row] = {
    "push": Row(
        "transfer",
        "epoch-oci push bot:v3 ghcr.io/acme/bot:v3 --store /srv/epoch",
        "cocoon snapshot export bot -o - | epoch-oci push - ghcr.io/acme/bot:v3 --as bot:v3",
    ),
    "pull": Row(
        "transfer",
        "epoch-oci pull ghcr.io/acme/bot:v3 --store cocoon:/var/lib/cocoon",
        "epoch-oci pull ghcr.io/acme/bot:v3 -o ./bot --only '*.json'",
    ),
    "sync": Row(
        "bulk",
        "epoch-oci sync s3://snapshots ghcr.io/acme --include 'team/*' --dry-run",
        "epoch-oci sync /srv/epoch registry.example/mirror --every 10m --health-file /run/sync.json",
    ),
    "copy": Row(
        "artifacts",
        "epoch-oci copy ghcr.io/acme/bot:v3 registry.example/acme/bot:v3",
        "epoch-oci copy ghcr.io/acme/bot:v3 oci-archive:bot.tar:v3",
    ),
    "tag": Row(
        "artifacts",
        "epoch-oci tag ghcr.io/acme/bot:v3 stable",
        "epoch-oci tag oci:./layout:v3 v3.0 latest --force",
    ),
    "rm": Row(
        "artifacts",
        "epoch-oci rm ghcr.io/acme/bot:v1 --dry-run",
        "epoch-oci rm bot:v1 bot:v2 --store /srv/epoch --yes",
    ),
    "prune": Row(
        "bulk",
        "epoch-oci prune /srv/epoch --keep-last 5 --dry-run",
        "epoch-oci prune ghcr.io/acme/bot --keep-within 30d --keep stable --yes",
    ),
    "convert": Row(
        "documents",
        "epoch-oci convert manifest.json",
        "epoch-oci convert ghcr.io/acme/bot:v3 --to epoch -o ./documents",
    ),
    "validate": Row(
        "documents",
        "epoch-oci validate /srv/epoch/manifests/bot/v3.json",
        "oras manifest fetch ghcr.io/acme/bot:v3 | epoch-oci validate -",
        registry=False,
        formats=("sarif", "github"),
    ),
    "schemas": Row(
        "about",
        "epoch-oci schemas epoch-manifest.v1",
        "epoch-oci schemas --dir ./schemas",
        registry=False,
    ),
    "inspect": Row(
        "look",
        "epoch-oci inspect bot:v3 --store /srv/epoch",
        "epoch-oci inspect ghcr.io/acme/bot:v3 --format json",
    ),
    "verify": Row(
        "look",
        "epoch-oci verify ghcr.io/acme/bot:v3",
        "epoch-oci verify /srv/epoch --fast",
    ),
    "ls": Row(
        "look",
        "epoch-oci ls /srv/epoch",
        "epoch-oci ls ghcr.io/acme/bot --long",
    ),
    "cat": Row(
        "read",
        "epoch-oci cat ghcr.io/acme/bot:v3 config.json",
        "epoch-oci cat bot:v3 memory-ranges --range 0-4095 --store /srv/epoch",
    ),
    "mount": Row(
        "read",
        "epoch-oci mount ghcr.io/acme/bot:v3 /mnt/bot",
        "epoch-oci mount ghcr.io/acme/bot:v3 /mnt/bot --cache /var/cache/bot --foreground",
    ),
    "diff": Row(
        "read",
        "epoch-oci diff ghcr.io/acme/bot:v2 ghcr.io/acme/bot:v3",
        "epoch-oci diff bot:v2 bot:v3 --store /srv/epoch --deep --svg bot.svg",
    ),
    "login": Row(
        "account",
        "epoch-oci login ghcr.io",
        "pass show ghcr | epoch-oci login ghcr.io --username acme --password-stdin",
    ),
    "logout": Row(
        "account",
        "epoch-oci logout ghcr.io",
        "epoch-oci logout localhost:5000 --format json",
        registry=False,
    ),
    "doctor": Row(
        "machine",
        "epoch-oci doctor ghcr.io/acme/bot",
        "epoch-oci doctor registry.example:5000/vms/bot --write --format json",
    ),
    "config": Row(
        "machine",
        "epoch-oci config show",
        "epoch-oci config show --format json",
    ),
    "demo": Row(
        "about",
        "epoch-oci demo",
        "epoch-oci demo --keep ./demo",
        registry=False,
    ),
    "completion": Row(
        "about",
        'eval "$(epoch-oci completion bash)"',
        "epoch-oci completion --install",
        registry=False,
    ),
    "man": Row(
        "about",
        "epoch-oci man push | man -l -",
        "epoch-oci man -o ~/.local/share/man/man1",
        registry=False,
    ),
    "version": Row(
        "about",
        "epoch-oci version",
        "epoch-oci version --format json",
        registry=False,
    ),
}


def spec(name: str) -> Spec:
    """What the command takes; its module is loaded now."""
    return Spec.of(name, VERBS[name])


def parse(words: Sequence[str], environ: Mapping[str, str]) -> Call | int:
    """What `words` ask for; an exit code where the answer has been given already (help).

    Raises UsageError, and NotFoundError for a file that a flag names.
    """
    if words[:1] == ["help"]:  # as the users of oras, skopeo and crane type it
        words = [*words[1:], "--help"]
    before, name, after = divided(words)
    common = program_flags(before, VERBS)
    if common.asks_help or (name is None and common.stands_for is None):
        return _help(None)
    invocation = Invocation(environ, common.given)
    if common.stands_for is not None:
        return spec(common.stands_for).call(common.arguments, [], invocation)
    assert name is not None
    if name not in VERBS:
        raise no_such_command(name, VERBS)
    asked = spec(name)
    given, typed = asked.read(after)
    # Help needs neither all words nor a configuration file that is right.
    return _help(asked) if given.pop(HELP) else asked.call(given, typed, invocation)


def _help(of: Spec | None) -> int:
    from epoch_oci.cli.help import help_text
    from epoch_oci.cli.streams import write_result

    write_result(help_text(of, VERBS))
    return 0
