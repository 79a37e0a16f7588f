"""Findings for code review: SARIF 2.1.0, and the commands that GitHub's runners read from standard output."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from epoch_oci import __version__
from epoch_oci.cli.streams import safe
from epoch_oci.errors import EpochOciError, Finding

if TYPE_CHECKING:
    from epoch_oci.flows.validate import DocumentReport

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_RULES = {
    "JSON": "Every reader has to read the same: no duplicate names, no NaN, bounded depth, UTF-8.",
    "SCHEMA": "The document has to fit the JSON Schema of its kind.",
    "NAME": "Names of files, snapshots and tags have to be portable and harmless.",
    "DIGEST": "Digests are algorithm and lower-case hex, and agree with what they stand for.",
    "SIZE": "Sizes are whole numbers of bytes within bounds, and add up.",
    "TYPE": "Media types and versions have to be those of a kind that is known.",
    "MISMATCH": "What is said twice has to be the same.",
}
"""What each code of a finding is about. Others are possible and have no rule."""
_MOST_RESULTS = 5_000
"""GitHub's code scanning keeps no more of a run, and takes none of a run that has 25,000."""


def sarif(reports: Sequence["DocumentReport"], unread: Sequence[EpochOciError]) -> dict[str, Any]:
    """A log with one run, of reports with places. What could not be read is a failure of the tool, and no result.

    Of more than 5,000 findings the errors come before the warnings, and how many are left out is told.
    """
    found = [(report, finding) for report in reports for finding in _in_order(report)]
    notifications = [_notification(error) for error in unread]
    if len(found) > _MOST_RESULTS:
        notifications.append(_left_out(len(found)))
        found.sort(key=lambda item: item[1].severity != "error")
    rules = [{"id": code, "shortDescription": {"text": text}} for code, text in _RULES.items()]
    return {
        "$schema": _SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": {"name": "epoch-oci", "version": __version__, "rules": rules}},
                # As Python counts: in bytes or UTF-16 units the same number points elsewhere.
                "columnKind": "unicodeCodePoints",
                "invocations": [{"executionSuccessful": not unread, "toolExecutionNotifications": notifications}],
                "results": [_result(report, finding) for report, finding in found[:_MOST_RESULTS]],
            }
        ],
    }


def _in_order(report: "DocumentReport") -> list[Finding]:
    """From the top of the document to its end."""
    return sorted(report.findings, key=lambda finding: report.places[finding.path])


def _notification(error: EpochOciError) -> dict[str, Any]:
    return {"level": "error", "descriptor": {"id": error.code}, "message": {"text": _plain(str(error))}}


def _left_out(count: int) -> dict[str, Any]:
    text = f"{count - _MOST_RESULTS} of {count} findings are left out; --format json has all of them"
    return {"level": "warning", "message": {"text": text}}


def _result(report: "DocumentReport", finding: Finding) -> dict[str, Any]:
    line, column = report.places[finding.path]
    region = {"startLine": line, "startColumn": column}
    physical = {"artifactLocation": {"uri": _uri(report.file)}, "region": region}
    # What stays the same when lines move: a finding that somebody has dismissed stays dismissed.
    fingerprint = hashlib.sha256(f"{report.kind}\n{finding.path}\n{finding.code}".encode("utf-8", "surrogateescape"))
    rule = {"ruleIndex": list(_RULES).index(finding.code)} if finding.code in _RULES else {}
    return {
        "ruleId": finding.code,
        **rule,
        "level": finding.severity,
        "message": {"text": _plain(f"{finding.path}: {finding.problem}")},
        "locations": [
            {
                "physicalLocation": physical,
                "logicalLocations": [{"fullyQualifiedName": safe(finding.path), "kind": "member"}],
            }
        ],
        "partialFingerprints": {"findingPath/v1": fingerprint.hexdigest()},
    }


def _uri(file: str) -> str:
    """A relative reference as code scanning wants it, for a path below the working directory."""
    if os.path.isabs(file):  # noqa: PTH117 (a word, as it was typed)
        return Path(file).as_uri()
    return quote(os.fsencode(os.path.normpath(file)))


def _plain(text: str) -> str:
    """A message in which nothing is a link: `[text](where)` is one, also in plain text (SARIF 3.11.6)."""
    text = safe(text)
    return text.replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]") if "](" in text else text


def workflow_commands(reports: Iterable["DocumentReport"], unread: Iterable[EpochOciError]) -> list[str]:
    """A command for each finding, which GitHub shows at its line; for people a line for what is right.

    No other line begins as a command does, whatever a file is called.
    """
    lines = []
    for report in reports:
        lines += [_command(report, finding) for finding in _in_order(report)]
        if report.valid:
            lines.append(f"ok: {safe(report.file)} ({report.kind})")
    return lines + [f"::error title={_property(error.code)}::{_data(str(error))}" for error in unread]


def _command(report: "DocumentReport", finding: Finding) -> str:
    line, column = report.places[finding.path]
    properties = {
        # GitHub knows files by their path from the root (docs/validate.md), without `./`.
        "file": os.path.normpath(report.file),
        "line": str(line),
        "col": str(column),
        "title": finding.code,
    }
    said = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
    return f"::{finding.severity} {said}::{_data(f'{finding.path}: {finding.problem}')}"


def _data(text: str) -> str:
    """`text` as the message of a command: its runner undoes these escapes and no others."""
    return safe(text).replace("%", "%25")


def _property(text: str) -> str:
    """`text` as the value of a property; a file's name as it is, so that it is the file's name.

    But for what a terminal obeys: a runner undoes these escapes alone, and no repository has names with others.
    """
    for char, escape in (("%", "%25"), ("\r", "%0D"), ("\n", "%0A"), (":", "%3A"), (",", "%2C")):
        text = text.replace(char, escape)
    return safe(text)
