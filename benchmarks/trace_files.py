"""How far one has to read to follow a push, a pull and a convert: `python -m benchmarks.trace_files [--files]`.

Runs the command line in this process on the seven files of the demo's snapshot, against the registry of the tests on
loopback, and prints for each verb: the files of `epoch_oci` of which a function runs, how often control goes from one
of them into another, and how often each document is parsed. `--files` lists the files as well. The figures are signs
of how the code is cut, not limits.
"""

import argparse
import contextlib
import io
import os
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import epoch_oci  # noqa: E402
from epoch_oci.cli import main as cli  # noqa: E402
from epoch_oci.cli.demo import KEY, Sample  # noqa: E402

PACKAGE = str(Path(epoch_oci.__file__).parent) + os.sep
EPOCH = Sample().manifest()
NOT_ENTERED = ("<module>", "<lambda>", "<genexpr>", "<listcomp>", "<setcomp>", "<dictcomp>")


@dataclass
class Trace:
    """What one run did. `changes` counts calls and returns after which another file of the package has control."""

    files: Counter[str] = field(default_factory=Counter)
    changes: int = 0
    parses: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._stacks: dict[int, list[str]] = {}

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        """The profile function of every thread."""
        name = frame.f_code.co_filename
        if event == "call" and frame.f_code.co_name == "loads":
            self._parsed(frame)
        if event not in ("call", "return") or not name.startswith(PACKAGE):
            return
        stack = self._stacks.setdefault(threading.get_ident(), [])
        if event == "return":
            self._leave(stack)
        elif frame.f_code.co_name == "<module>" or frame.f_code.co_flags & 0x2 == 0:  # a module's or a class's body
            stack.append(stack[-1] if stack else "")
        else:
            self._enter(stack, name[len(PACKAGE) :], frame.f_code.co_name)

    def _enter(self, stack: list[str], file: str, function: str) -> None:
        with self._lock:
            if function not in NOT_ENTERED:
                self.files[file] += 1
            self.changes += bool(stack) and stack[-1] != file
        stack.append(file)

    def _leave(self, stack: list[str]) -> None:
        if not stack:
            return
        left = stack.pop()
        with self._lock:
            self.changes += bool(stack) and stack[-1] != left

    def _parsed(self, frame: FrameType) -> None:
        """`oci.strict_json.loads`, or `json.loads` where the package calls it without that."""
        caller = frame.f_back
        ours = frame.f_code.co_filename.startswith(PACKAGE)
        if not ours and (caller is None or caller.f_code.co_name == "loads" or not _is_ours(caller)):
            return
        raw = frame.f_locals.get("raw" if ours else "s")
        if isinstance(raw, str | bytes):
            with self._lock:
                self.parses[_name(raw.encode() if isinstance(raw, str) else raw)] += 1


def _is_ours(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(PACKAGE)


def _name(raw: bytes) -> str:
    if raw == EPOCH:
        return "Epoch manifest"
    return "OCI manifest" if b"application/vnd.oci.image.manifest.v1+json" in raw else "others"


def traced(words: Sequence[str]) -> Trace:
    """Run one command line. Raises SystemExit when it fails."""
    trace, out = Trace(), io.StringIO()
    threading.setprofile(trace)
    sys.setprofile(trace)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            code = cli.run([*words, "--progress", "none"], dict(os.environ))
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    if code:
        raise SystemExit(f"{' '.join(words)}: exit {code}\n{out.getvalue()}")
    return trace


def traces(folder: Path) -> Iterator[tuple[str, Trace]]:
    """The three verbs, one after the other, each with nothing in its target."""
    from support.registry import FakeRegistry

    from epoch_oci.locate import open_store

    store, manifest = folder / "store", folder / "manifest.json"
    Sample().store(open_store(str(store)))
    manifest.write_bytes(Sample().manifest())
    with FakeRegistry() as registry:
        target = f"{registry.address}/demo/bot:v1"
        yield "push", traced(["push", str(KEY), target, "--store", str(store)])
        yield "pull", traced(["pull", target, "--store", str(folder / "copy")])
        yield "convert", traced(["convert", str(manifest), "-o", str(folder / "converted")])


def main() -> None:
    """Trace and print."""
    parser = argparse.ArgumentParser(prog="benchmarks.trace_files", description=__doc__)
    parser.add_argument("--files", action="store_true", help="list the files that were entered, with calls")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(HOME=folder, XDG_CACHE_HOME=f"{folder}/cache", XDG_STATE_HOME=f"{folder}/state")
        print(f"{'':8} {'files':>6} {'changes':>8}   parses")
        for verb, trace in traces(Path(folder)):
            parses = ", ".join(f"{name} {count}" for name, count in sorted(trace.parses.items()))
            print(f"{verb:8} {len(trace.files):6} {trace.changes:8}   {parses}")
            for file, calls in trace.files.most_common() if options.files else ():
                print(f"{'':8} {calls:6} {file}")
    print(f"files in epoch_oci: {sum(1 for _ in Path(PACKAGE).rglob('*.py'))}")


if __name__ == "__main__":
    main()
