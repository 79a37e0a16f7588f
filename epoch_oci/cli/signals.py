"""SIGINT and SIGTERM end the work in order; a second one ends it at once, and so does time.

While modules are still being loaded they are held. For this the module loads next to nothing itself.
"""

import os
import signal
import sys

# As type checkers know it. `typing` itself would have to be loaded, while nothing holds a signal yet.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any

    from epoch_oci.errors import InterruptedTransferError

    Farewell = Callable[[InterruptedTransferError], object]

# docs/cli.md (Signals) promises two seconds; the rest is for the last line and the end of the process.
GRACE_SECONDS = 1.8
"""From the first signal to the end, whatever still hangs: what is half-done then is what a kill would have left."""

# Bars hide the cursor while they are drawn, and after `os._exit` nobody else brings it back.
_SHOW_CURSOR = b"\x1b[?25h"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_held: list[int] = []


def hold() -> None:
    """Keep what would end the process until `let_go`; a second signal ends it at once."""
    for number in _SIGNALS:
        if _is_wanted(number):
            signal.signal(number, _hold)


def let_go() -> None:
    """Send the process the signal that was held, if one was; by now there has to be another handler."""
    if _held:
        signal.raise_signal(_held.pop())


def _hold(number: int, frame: object) -> None:
    if _held:
        os._exit(128 + number)
    _held.append(number)


class Interruption:
    """Turns the first signal into InterruptedTransferError in the main thread; `farewell` tells of it if that hangs."""

    def __init__(self, farewell: "Farewell") -> None:
        self._signum = 0
        self._farewell = farewell

    def __call__(self, signum: int, frame: "FrameType | None") -> None:
        """Handle SIGINT or SIGTERM."""
        if self._signum:
            self._exit()
        self._signum = signum
        # Armed before anything else: what is being waited for may never end.
        signal.setitimer(signal.ITIMER_REAL, GRACE_SECONDS)
        raise _interruption(signum)

    def give_up(self, signum: int, frame: "FrameType | None") -> None:
        """Handle SIGALRM: the work did not end in time."""
        try:
            self._farewell(_interruption(self._signum))
        finally:  # whatever became of the line, the process ends here
            self._exit()

    def _exit(self) -> None:
        if os.isatty(2):
            # Not by `sys.stderr`: what was interrupted may be just writing to it, and a buffer is not entered twice.
            try:  # noqa: SIM105 (contextlib loads more than this module may)
                os.write(2, _SHOW_CURSOR)
            except OSError:
                pass
        os._exit(128 + self._signum)


def install(farewell: "Farewell") -> None:
    """Handle the signals from here to the end of the process: the way out after an interruption may hang as well."""
    interruption = Interruption(farewell)
    for number in _SIGNALS:
        if _is_wanted(number):
            signal.signal(number, interruption)
    # Not a thread: one that holds a lock could not be waited for, and a signal ends system calls too.
    signal.signal(signal.SIGALRM, interruption.give_up)
    sys.unraisablehook = _quietly(sys.unraisablehook)


def _interruption(signum: int) -> "InterruptedTransferError":
    from epoch_oci.errors import InterruptedTransferError

    return InterruptedTransferError("interrupted" if signum == signal.SIGINT else "asked to stop", signum)


def _is_wanted(number: int) -> bool:
    """A signal that whoever started us ignores (nohup, a shell's background job) stays ignored."""
    return signal.getsignal(number) is not signal.SIG_IGN


def _quietly(before: "Any") -> "Any":
    """An interruption that lands in a destructor cannot be raised; the alarm ends the work then."""

    def hook(unraisable: "Any") -> None:
        from epoch_oci.errors import InterruptedTransferError

        if not isinstance(unraisable.exc_value, InterruptedTransferError):
            before(unraisable)

    return hook
