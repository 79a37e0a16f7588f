"""Standard output and standard error: what may be written there, and what becomes of a stream that fails."""

import codecs
import contextlib
import os
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from typing import TextIO

from epoch_oci.errors import LocalIOError
from epoch_oci.redaction import user_info, without

# With these a terminal shows characters in another order than they stand in: one name would pass for another
# (reliability N2).
_HOSTILE_DIRECTIONS = frozenset({"R", "AL", "AN", "RLE", "RLO", "RLI", "LRE", "LRO", "LRI", "FSI", "PDF", "PDI"})
# A signed URL is a credential for whoever sees it, and each cloud calls its signature otherwise: so the value of no
# parameter is shown.
_QUERY_VALUE = re.compile(r"([?&][^=&\s\"'<>]{1,64}=)[^&\s\"'<>]+?(?=:?(?:[&\s\"'<>]|\Z))")
_USER_INFO = re.compile(r"(://)[^/@\s\"'<>]+@")
_HIDDEN = "***"


# In an encoding that has them not; whatever came from others is escaped instead.
_PLAIN = {"…": "...", "→": "->", "·": "-", "—": "-", "–": "-", "’": "'", "━": "=", "─": "-"}
_ERRORS = "epoch-oci-plain"


def _plain(error: UnicodeError) -> tuple[str | bytes, int]:
    if isinstance(error, UnicodeEncodeError) and (found := _PLAIN.get(error.object[error.start])) is not None:
        return found, error.start + 1
    return codecs.backslashreplace_errors(error)


class ReaderGoneError(Exception):
    """Whoever read our standard output has closed it."""


def safe(text: str) -> str:
    """`text` as one line that a terminal only shows: control, invisible and right-to-left characters escaped.

    And so is `##[`, which runners of GitHub and Azure take for a command wherever it stands in a line of their log.
    """
    text = text.replace("##[", "#\\x23[")
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if _is_harmless(char) else _escape(char) for char in text)


def result_line(text: str) -> str:
    """As `safe`, for a line that begins with what others wrote: GitHub's runners read `::` there as a command."""
    text = safe(text)
    return text.replace("::", "\\x3a:", 1) if text.lstrip().startswith("::") else text


def _is_harmless(char: str) -> bool:
    return char.isprintable() and unicodedata.bidirectional(char) not in _HOSTILE_DIRECTIONS


def _escape(char: str) -> str:
    if "\udc80" <= char <= "\udcff":  # a byte that is not UTF-8, as Python keeps it
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")


_LONGEST_WORD, _LONGEST_TEXT = 400, 4000
_LONG_WORD = re.compile(rf"\S{{{_LONGEST_WORD + 1},}}")


def bounded(text: str) -> str:
    """`text` as long as a person reads: of longer words, and of all of it, the beginning and the end."""
    text = _LONG_WORD.sub(lambda found: _cut(found[0], _LONGEST_WORD), text)
    return text if len(text) <= _LONGEST_TEXT else _cut(text, _LONGEST_TEXT)


def _cut(text: str, limit: int) -> str:
    return f"{text[: limit // 2]}…{text[-limit // 4 :]}"


class Secrets:
    """Known secrets, which no line on standard error may hold; a last gate behind those who redact at the source.

    They are taken out of a text before it is escaped or encoded, so that neither hides them nor is broken by it.
    """

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._values = set(values)

    def add(self, value: str) -> None:
        """Hide `value` from now on, however it is spelled."""
        self._values.add(value)

    def add_typed(self, words: Iterable[str]) -> None:
        """Hide the user and password that stand in a location or URL, where they do not belong."""
        for word in words:
            # A flag and its value may be one word: `--store=s3://…`.
            for part in (word, word.partition("=")[2]):
                if found := user_info(part):
                    # Not the user alone: that may be any word, and would be hidden wherever it stands.
                    self._values |= {f"{found}@", found.partition(":")[2] or found}

    def hidden(self, text: str) -> str:
        """`text` without secrets, without user info in URLs and without the values of their queries."""
        # Known secrets first: what is cut out after them may be a part of one, of which the rest would stay.
        text = without(self._values, text, _HIDDEN)
        return _QUERY_VALUE.sub(rf"\g<1>{_HIDDEN}", _USER_INFO.sub(rf"\g<1>{_HIDDEN}@", text))

    def shown(self, text: str) -> str:
        """`text` as one line for people: without secrets, harmless, and no longer than they read."""
        return bounded(safe(bounded(self.hidden(text))))  # escapes make a text longer


def prepare() -> bool:
    """Make the standard streams safe to use; False when standard output was closed from the start.

    A file opened later must not take the place of a closed stream, and no text may fail to be encoded.
    """
    had_output = sys.stdout is not None
    codecs.register_error(_ERRORS, _plain)
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115, PTH123
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123
        else:
            # A file name that is no UTF-8 must not end a report (reliability F24).
            stream.reconfigure(errors=_ERRORS)
    return had_output


def write_result(content: str | bytes) -> None:
    """Write to standard output. Raises ReaderGoneError, LocalIOError."""
    with _output_errors():
        if isinstance(content, str):
            sys.stdout.write(content)
        else:
            # Text that is still held would come after the bytes.
            sys.stdout.flush()
            sys.stdout.buffer.write(content)


def flush_result() -> None:
    """All that was written has arrived. Raises ReaderGoneError, LocalIOError."""
    with _output_errors():
        sys.stdout.flush()


def write_error(line: str) -> None:
    """One line to standard error; where nobody listens is no reason to fail."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


def discard_output() -> None:
    """Standard output leads nowhere from here on, so that nothing fails again at the end."""
    with contextlib.suppress(OSError, ValueError):
        # Python flushes at its end, and would fail there once more, aloud.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)


def is_terminal(stream: TextIO) -> bool:
    """Whether people look at it, on something that can move its cursor."""
    with contextlib.suppress(ValueError):
        return stream.isatty()
    return False


@contextlib.contextmanager
def _output_errors() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise ReaderGoneError from None
    except OSError as error:
        raise LocalIOError(
            f"standard output cannot be written: {(error.strerror or str(error)).lower()}",
            object="standard output",
            hint="the work itself was done; make room and run the same command again for its result",
        ) from error
