"""What the command line prints as JSON, held to its schemas (`schemas/cli/`): by the harness, after every command.

The schemas are open, for members may be added. What a command prints today has to be all in them, so here they are
closed.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import jsonschema_rs

from epoch_oci import schemas
from epoch_oci.cli.app import VERBS

SEEN: dict[str, int] = {}
"""How often each schema was held to something."""
NOT_JSON = frozenset({"cat", "mount", "completion", "man"})
"""Commands whose standard output is something else, whatever the format."""


def check(words: Sequence[str], env: Mapping[str, str], out: str, err: str) -> None:
    """Fail where a JSON result, an error object or an event is not as its schema says."""
    verb = next((word for word in words if word in VERBS), None)
    as_json = _asked("--format", words, env) == "json"
    if as_json and verb is not None and out.startswith("{"):
        _check_result(verb, words, env, out)
    if as_json and verb == "pull" and (aside := re.search(r"^\{$", err, re.MULTILINE)):  # `-o -`: beside the archive
        value, _ = json.JSONDecoder().raw_decode(err[aside.start() :])
        _hold(value, "cli/pull.v1")
    for value in _objects(err):
        _hold(value, "cli/event.v1" if "event" in value else "cli/error.v1")


def _check_result(verb: str, words: Sequence[str], env: Mapping[str, str], out: str) -> None:
    if verb in NOT_JSON or (verb == "convert" and not _is_written(words, env)):
        return
    if verb == "sync" and _asked("--every", words, env):
        for line in out.splitlines():
            _hold(json.loads(line), "cli/sync-round.v1")
        return
    _hold(json.loads(out), f"cli/{verb}.v1")


def _is_written(words: Sequence[str], env: Mapping[str, str]) -> bool:
    """Whether `convert` writes files and prints a report; else it prints the document."""
    return "-o" in words or bool(_asked("--output", words, env))


def _asked(flag: str, words: Sequence[str], env: Mapping[str, str]) -> str:
    found = [word.partition("=")[2] for word in words if word.startswith(flag + "=")]
    found += [words[at + 1] for at, word in enumerate(words[:-1]) if word == flag]
    return (found or [env.get("EPOCH_OCI_" + flag[2:].upper(), "")])[-1]


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """The JSON objects among the lines."""
    for line in text.splitlines():
        if line.startswith('{"'):
            try:
                yield json.loads(line)
            except ValueError:  # a line that a kill cut off, or the first one of a result in several lines
                continue


def _hold(value: Any, kind: str) -> None:
    SEEN[kind] = SEEN.get(kind, 0) + 1
    errors = [f"{error.instance_path}: {error.message}" for error in _closed(kind).iter_errors(value)]
    assert not errors, f"{kind}: {errors}\n{json.dumps(value, indent=1)[:4000]}"


@cache
def _closed(kind: str) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(_close(schemas.schema(kind)))


def _close(rule: Any) -> Any:
    """The schema with no member allowed that it does not name."""
    if isinstance(rule, list):
        return [_close(item) for item in rule]
    if not isinstance(rule, dict):
        return rule
    closed = {key: item if key in ("if", "then", "examples") else _close(item) for key, item in rule.items()}
    if isinstance(rule.get("properties"), dict) and rule.get("type") == "object":
        closed.setdefault("additionalProperties", False)
    return closed
