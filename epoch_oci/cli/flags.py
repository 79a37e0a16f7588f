"""Every flag and argument: what it is called, what it takes, what it is for. The parser and the help are made of it."""

from typing import Annotated, Literal

from epoch_oci.dataclass import dataclass

Kind = Literal["text", "switch", "count", "number", "many", "duration"]
PREFIX = "EPOCH_OCI_"


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag. Its environment variable is EPOCH_OCI_<FLAG>, or `variable`; `variables` are asked after it.

    A `count` may be repeated, a `number` is an integer from 1 to `most`, a `many` is a list: in the environment one
    value a line. A `duration` is in seconds. `registry` is true for what matters to registries alone.
    """

    words: tuple[str, ...]
    help: str
    kind: Kind = "text"
    metavar: str = ""
    choices: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    most: int = 256
    variable: str = ""
    registry: bool = False

    @property
    def takes_value(self) -> bool:
        """Whether something has to follow it."""
        return self.kind not in ("switch", "count")

    @property
    def word(self) -> str:
        """The long form, as it is typed."""
        return self.words[0]

    @property
    def name(self) -> str:
        """The long form as an identifier."""
        return self.word.removeprefix("--").replace("-", "_")

    @property
    def key(self) -> str:
        """What it is called in the configuration file."""
        return self.word.removeprefix("--")

    @property
    def sources(self) -> tuple[str, ...]:
        """The environment variables that stand in for it, in the order in which they are asked."""
        return (self.variable or PREFIX + self.name.upper(), *self.variables)


@dataclass(frozen=True, slots=True)
class Word:
    """One argument of a command."""

    metavar: str
    help: str
    optional: bool = False
    many: bool = False

    @property
    def usage(self) -> str:
        """How the usage line shows it."""
        text = self.metavar + ("…" if self.many else "")
        return f"[{text}]" if self.optional else text


PROFILE_NAMES = (
    "ghcr",
    "dockerhub",
    "ecr",
    "acr",
    "gar",
    "quay",
    "gitlab",
    "harbor",
    "zot",
    "distribution",
    "unknown",
)
"""The kinds of registry there are; written out, since what is known of each loads more than a help text needs."""

DIALECT_NAMES = ("cocoon", "cocoonstack")
"""The dialects that are shipped, written out for the same reason."""

COMMON = (
    Flag(("--format",), "How the result is printed.", choices=("text", "json"), metavar="FORMAT"),
    Flag(
        ("--progress",),
        "How progress is shown on standard error (auto: bars on a terminal, else a line every 10 s).",
        choices=("auto", "bar", "plain", "json", "none"),
        metavar="MODE",
        registry=True,
    ),
    Flag(
        ("--quiet", "-q"),
        "No progress and no warnings, and of a result that has a digest nothing else.",
        kind="switch",
    ),
    Flag(("--verbose", "-v"), "Say more about what is done.", kind="count"),
    Flag(("--debug",), "Show HTTP exchanges, without secrets, and the traceback of an error.", kind="switch"),
    Flag(("--plain-http",), "Speak http to the registry, not https.", kind="switch", registry=True),
    Flag(("--insecure",), "Do not verify the registry's TLS certificate.", kind="switch", registry=True),
    Flag(("--ca-file",), "Trust the certificate authorities of this file as well.", metavar="PEM", registry=True),
    Flag(("--cert-file",), "Show the registry this certificate of ours.", metavar="PEM", registry=True),
    Flag(("--key-file",), "The key of --cert-file (default: it is in that file).", metavar="PEM", registry=True),
    Flag(("--registry-config",), "Read and write credentials in this file.", metavar="FILE", registry=True),
    Flag(
        ("--trust-host",),
        "Let the registry send credentials and content to this host as well.",
        kind="many",
        metavar="HOST",
        registry=True,
    ),
    Flag(
        ("--profile",),
        "Treat the registry as one of this kind, whatever its host is called.",
        choices=PROFILE_NAMES,
        metavar="NAME",
        registry=True,
    ),
    Flag(
        ("--retry-for",),
        "How long to wait for a registry that is away, while an object makes no progress; 0 is off (default: 10m).",
        kind="duration",
        metavar="DURATION",
        registry=True,
    ),
    Flag(("--username", "-u"), "Log in as this user.", metavar="U", registry=True),
    Flag(
        ("--password-stdin",),
        "Read the password, or a token, from standard input (or set EPOCH_OCI_PASSWORD).",
        kind="switch",
        registry=True,
    ),
)
"""The flags that every command takes, before its name or after it."""

Store = Annotated[
    str | None,
    Flag(
        ("--store",),
        "The store: DIR, s3://BUCKET, gs://, az://, cocoon:DIR, or epoch+https://HOST (read only).",
        metavar="S",
        variables=("EPOCH_STORE",),
    ),
]
Dialect = Annotated[
    str, Flag(("--dialect",), "How the artifact is written (default: cocoon).", choices=DIALECT_NAMES, metavar="D")
]
PartSize = Annotated[
    str,
    Flag(
        ("--part-size",),
        "Carry larger files in parts: none, auto, or a size such as 1GiB (default: auto).",
        metavar="SIZE",
    ),
]
Chunked = Annotated[
    bool,
    Flag(
        ("--chunked",),
        "Write the chunked form: what earlier versions in the target have already is not sent again.",
        kind="switch",
    ),
]
Bases = Annotated[
    tuple[str, ...],
    Flag(
        ("--base",),
        "With --chunked: an earlier version, a tag of the target or a reference "
        "(default: what the tag holds, and the newest tags).",
        kind="many",
        metavar="REF",
    ),
]
VerifyBases = Annotated[
    bool,
    Flag(
        ("--verify-bases",),
        "With --chunked: read what others have put into packs before it is reused, once, and check every chunk.",
        kind="switch",
    ),
]
Plain = Annotated[
    bool,
    Flag(("--plain",), "Write the plain form, whole files as layers, whatever the artifact is in.", kind="switch"),
]
Level = Annotated[
    int,
    Flag(
        ("--level",), "With --chunked: how hard zstd tries, 1 to 19 (default: 1).", kind="number", metavar="N", most=19
    ),
]
Zstd = Annotated[
    int | None,
    Flag(
        ("--zstd",),
        "With --dialect cocoonstack: write version 2, files from 1 MiB on in zstd of this level, 1 to 19.",
        kind="number",
        metavar="LEVEL",
        most=19,
    ),
]
ChunkSize = Annotated[
    str | None,
    Flag(
        ("--chunk-size",), "With --zstd: cut larger files into layers of this size, for example 1GiB.", metavar="SIZE"
    ),
]
Annotations = Annotated[
    tuple[str, ...],
    Flag(("--annotation", "-a"), "Add an annotation; an empty value omits it.", kind="many", metavar="K=V"),
]
AnnotationFile = Annotated[
    str | None,
    Flag(
        ("--annotation-file",),
        "Add the annotations of this JSON file, an object of texts, or that as `$manifest`; --annotation comes after.",
        metavar="FILE",
    ),
]
VerifyWith = Annotated[
    str | None,
    Flag(
        ("--verify-with",),
        "Run this program first, with the artifact by digest for {} or as its last word; "
        "unless it exits 0, nothing is fetched.",
        metavar="COMMAND",
    ),
]
DigestFile = Annotated[
    str | None,
    Flag(("--digest-file",), "When all is done, write the artifact's digest into this file.", metavar="FILE"),
]
MountFrom = Annotated[
    tuple[str, ...],
    Flag(
        ("--mount-from",),
        "Take blobs over from this repository of the same registry.",
        kind="many",
        metavar="REPOSITORY",
    ),
]
AllowLoss = Annotated[
    bool, Flag(("--allow-loss",), "Go on where the dialect has no home for something.", kind="switch")
]
AllowPublic = Annotated[
    bool,
    Flag(
        ("--allow-public",), "Push guest memory and state even where everybody can read the repository.", kind="switch"
    ),
]
Force = Annotated[
    bool,
    Flag(
        ("--force",),
        "Replace a tag, snapshot or file that holds something else.",
        kind="switch",
    ),
]
ForceAnew = Annotated[
    bool,
    Flag(
        ("--force",),
        "Replace a snapshot or file that holds something else, and fetch damaged blobs of a store anew.",
        kind="switch",
    ),
]
DryRun = Annotated[bool, Flag(("--dry-run",), "Print the plan and change nothing.", kind="switch")]
Jobs = Annotated[
    int | None,
    Flag(
        ("--jobs", "-j"),
        "Transfers at a time, ranges and parts counted (default: 4, and up to 16 while that makes it faster).",
        kind="number",
        metavar="N",
        most=64,
    ),
]
Seeds = Annotated[
    tuple[str, ...],
    Flag(
        ("--seed",),
        "Take blobs that this store, or oci:DIR, has from there instead of fetching them.",
        kind="many",
        metavar="S",
    ),
]
ReadCache = Annotated[
    str | None,
    Flag(
        ("--cache",),
        "Keep what is read of files in chunks in this directory, and take from it what is there.",
        metavar="DIR",
    ),
]
PullCache = Annotated[
    str | None,
    Flag(
        ("--cache",),
        "Take from this directory what `cat` or `mount` --cache has kept there of files in chunks; nothing is added.",
        metavar="DIR",
    ),
]
PrunedCache = Annotated[
    str | None,
    Flag(
        ("--cache",),
        "In place of a location: the directory of `mount --cache`, brought down to --cache-size.",
        metavar="DIR",
    ),
]
CacheSize = Annotated[
    str,
    Flag(
        ("--cache-size",),
        "Keep at most about so much in --cache; what was used longest ago goes first.",
        metavar="SIZE",
    ),
]
LimitRate = Annotated[
    str | None,
    Flag(
        ("--limit-rate",),
        "Move no more than so many bytes a second over the network, all transfers together; for example 50M.",
        metavar="SIZE",
    ),
]
Output = Annotated[
    str | None,
    Flag(
        ("--output", "-o"),
        "Write the files into this directory, under their own names; `-` is an archive on standard output.",
        metavar="DIR",
    ),
]
DocumentsOutput = Annotated[
    str | None,
    Flag(("--output", "-o"), "Write the documents of both sides into this directory.", metavar="DIR"),
]
As = Annotated[str | None, Flag(("--as",), "What the snapshot shall be called.", metavar="NAME[:TAG]")]
Only = Annotated[
    tuple[str, ...],
    Flag(("--only",), "With -o DIR: only files whose name matches, for example *.json.", kind="many", metavar="GLOB"),
]
To = Annotated[
    str | None,
    Flag(("--to",), "What to translate to (default: the other side).", choices=("oci", "epoch"), metavar="SIDE"),
]
Config = Annotated[
    str | None,
    Flag(
        ("--config",),
        "The config that goes with an OCI manifest in a file (default: the one beside it, as `-o DIR` wrote it).",
        metavar="FILE",
        variable=PREFIX + "CONVERT_CONFIG",  # EPOCH_OCI_CONFIG names the configuration file
    ),
]
Schema = Annotated[
    str | None, Flag(("--schema",), "Check as this kind of document (default: what it is).", metavar="NAME")
]
SchemaName = Annotated[
    str | None, Word("NAME", "The schema to print, as the list has it (default: list them all).", optional=True)
]
SchemasDirectory = Annotated[
    str | None, Flag(("--dir",), "Write them as files below this directory, or the one that is named.", metavar="DIR")
]
Fast = Annotated[bool, Flag(("--fast",), "Look whether everything is there; read no blob.", kind="switch")]
RoundTrip = Annotated[
    bool,
    Flag(("--round-trip",), "Also translate each manifest there and back, and compare the bytes.", kind="switch"),
]
Referrers = Annotated[
    bool,
    Flag(("--referrers",), "Signatures, attestations and what else refers to it come along (default).", kind="switch"),
]
NoReferrers = Annotated[bool, Flag(("--no-referrers",), "Leave behind what refers to it.", kind="switch")]
Yes = Annotated[bool, Flag(("--yes", "-y"), "Do not ask; scripts need this.", kind="switch")]
Long = Annotated[
    bool, Flag(("--long", "-l"), "With size, date, kind and digest; one small request for each tag.", kind="switch")
]
All = Annotated[
    bool, Flag(("--all",), "Also tags under which a registry keeps what refers to a manifest.", kind="switch")
]
Rebuild = Annotated[
    bool,
    Flag(
        ("--rebuild",),
        "Of an artifact in chunks, also make the index anew from its packs, and compare.",
        kind="switch",
    ),
]
Range = Annotated[
    str | None,
    Flag(("--range",), "Only these bytes: A-B (both included), A- or -N, as in HTTP.", metavar="A-B"),
]
Deep = Annotated[
    bool, Flag(("--deep",), "Read files whose chunks no index tells, to compare them chunk by chunk.", kind="switch")
]
Svg = Annotated[str | None, Flag(("--svg",), "Also draw it: a strip for each file.", metavar="FILE")]
Foreground = Annotated[bool, Flag(("--foreground", "-f"), "Do not go into the background.", kind="switch")]
Keep = Annotated[str | None, Flag(("--keep",), "Leave the stores it made in this directory.", metavar="DIR")]

Include = Annotated[
    tuple[str, ...],
    Flag(
        ("--include",), "Only snapshots whose NAME:TAG matches, for example 'team/*:v*'.", kind="many", metavar="GLOB"
    ),
]
Exclude = Annotated[
    tuple[str, ...],
    Flag(("--exclude",), "No snapshot whose NAME:TAG matches; outweighs --include.", kind="many", metavar="GLOB"),
]
NewerThan = Annotated[
    str | None,
    Flag(("--newer-than",), "Only snapshots made since then: 7d, 2026-04-01.", metavar="WHEN"),
]
AllTags = Annotated[bool, Flag(("--all-tags",), "Every tag of every name (default).", kind="switch")]
NoAllTags = Annotated[bool, Flag(("--no-all-tags",), "Of every name only the tag `latest`.", kind="switch")]
Rename = Annotated[
    tuple[str, ...],
    Flag(
        ("--rename",),
        "Call it otherwise at the target: a regular expression on NAME:TAG and what stands in its place.",
        kind="many",
        metavar="PATTERN=REPLACEMENT",
    ),
]
Repository = Annotated[
    tuple[str, ...],
    Flag(
        ("--repository",),
        "A repository below the source's prefix, where the registry has no catalog.",
        kind="many",
        metavar="NAME",
    ),
]
RepositoriesFrom = Annotated[
    str | None, Flag(("--repositories-from",), "The same from a file, one a line; `-` is stdin.", metavar="FILE")
]
Delete = Annotated[
    bool,
    Flag(
        ("--delete",), "Remove tags at the target that the source no longer has; see them by --dry-run.", kind="switch"
    ),
]
Report = Annotated[
    str | None, Flag(("--report",), "Also write the result as one self-contained HTML page.", metavar="FILE.html")
]
Every = Annotated[str | None, Flag(("--every",), "Go on for ever, a round every so often: 10m, 1h.", metavar="SPAN")]
Health = Annotated[
    str | None, Flag(("--health-file",), "With --every: how the last round went, as JSON.", metavar="FILE")
]
Metrics = Annotated[
    str | None,
    Flag(("--metrics",), "With --every: serve Prometheus metrics at HOST:PORT, or :PORT on loopback.", metavar="ADDR"),
]
Scheduler = Annotated[
    str | None,
    Flag(("--scheduler",), "Do the transfers on this Dask cluster: tcp://HOST:8786.", metavar="ADDRESS"),
]
Workers = Annotated[
    int | None,
    Flag(("--workers",), "Do the transfers in so many processes of this machine.", kind="number", metavar="N"),
]
KeepLast = Annotated[
    int | None,
    Flag(("--keep-last",), "Keep the newest N tags of each name.", kind="number", metavar="N", most=1_000_000),
]
KeepWithin = Annotated[str | None, Flag(("--keep-within",), "Keep what is not older: 30d.", metavar="SPAN")]
KeepGlob = Annotated[
    tuple[str, ...],
    Flag(("--keep",), "Keep tags, or NAME:TAG, that match, whatever their age.", kind="many", metavar="GLOB"),
]
Grace = Annotated[
    str,
    Flag(("--grace",), "Leave content alone that was written less than so long ago (default: 24h).", metavar="SPAN"),
]
Prunable = Annotated[
    str | None,
    Word("LOCATION", "A store, oci:DIR or HOST/REPOSITORY (default: the store of --store).", optional=True),
]
SyncJobs = Annotated[
    int, Flag(("--jobs", "-j"), "Transfers at a time (default: 8).", kind="number", metavar="N", most=64)
]
SyncSource = Annotated[
    str, Word("SOURCE", "A store, HOST[:PORT][/PREFIX] of a registry, or oci:DIR; all that is below it is meant.")
]
SyncTarget = Annotated[str, Word("TARGET", "A store, HOST[:PORT]/PREFIX (NAME becomes PREFIX/NAME), or oci:DIR.")]
Snapshot = Annotated[
    str, Word("SNAPSHOT", "The snapshot, NAME[:TAG], in the store; `-` is Cocoon's export archive on standard input.")
]
Target = Annotated[str, Word("TARGET", "HOST[:PORT]/REPOSITORY[:TAG[,TAG…]], oci:DIR[:TAG] or oci-archive:FILE[:TAG].")]
Reference = Annotated[
    str, Word("REFERENCE", "HOST[:PORT]/REPOSITORY, oci:DIR or oci-archive:FILE, with [:TAG][@DIGEST].")
]
CopySource = Annotated[str, Word("SRC", "HOST[:PORT]/REPOSITORY, oci:DIR or oci-archive:FILE, with [:TAG][@DIGEST].")]
CopyTarget = Annotated[
    str, Word("DST", "HOST[:PORT]/REPOSITORY[:TAG[,TAG…]], oci:DIR[:TAG] or oci-archive:FILE[:TAG].")
]
NewTags = Annotated[tuple[str, ...], Word("NEW", "Further tags for it, in the same repository.", many=True)]
References = Annotated[
    tuple[str, ...],
    Word("REF", "What to remove: HOST/REPOSITORY:TAG or @DIGEST, oci:DIR:TAG, or NAME:TAG in --store.", many=True),
]
File = Annotated[str, Word("FILE", "A manifest: a file, `-`, oci:DIR[:TAG] or a registry reference.")]
Files = Annotated[tuple[str, ...], Word("FILE", "The documents to check; `-` is standard input.", many=True)]
Location = Annotated[
    str, Word("LOCATION", "A registry reference, oci:DIR, oci-archive:FILE, or NAME[:TAG] in the store of --store.")
]
LocationOrStore = Annotated[
    str,
    Word(
        "LOCATION", "A registry reference, oci:DIR, oci-archive:FILE, a store, or NAME[:TAG] in the store of --store."
    ),
]
OptionalLocation = Annotated[
    str | None,
    Word("LOCATION", "A store, a repository, a registry or a layout (default: the store of --store).", optional=True),
]
FileName = Annotated[str, Word("FILE", "The file's name, as `inspect` shows it.")]
SideA = Annotated[str, Word("A", "A snapshot: a registry reference, oci:DIR[:TAG], or NAME[:TAG] in the store.")]
SideB = Annotated[str, Word("B", "The snapshot to hold against it.")]
Directory = Annotated[str, Word("DIR", "An empty directory.")]
Host = Annotated[str, Word("HOST", "The registry, HOST[:PORT].")]
Shell = Annotated[str | None, Word("SHELL", "bash, zsh or fish (default: the one in $SHELL).", optional=True)]
Install = Annotated[bool, Flag(("--install",), "Put it where the shell looks for it by itself.", kind="switch")]
Examined = Annotated[str, Word("HOST", "The registry, HOST[:PORT], or one repository, HOST/REPOSITORY[:TAG].")]
Write = Annotated[
    bool,
    Flag(
        ("--write",),
        "Also try what needs writing: uploads, which are cancelled, and a manifest, which is deleted again.",
        kind="switch",
    ),
]
ConfigAction = Annotated[
    str | None, Word("ACTION", "show: print every setting, and where it comes from (default).", optional=True)
]
Topic = Annotated[str | None, Word("COMMAND", "The command (default: the program itself).", optional=True)]
PagesOutput = Annotated[str | None, Flag(("--output", "-o"), "Write all pages into this directory.", metavar="DIR")]
