"""Runs the command line under a sampling profiler that sees every thread: `sampler.py OUTPUT ARGUMENT…`.

Many times a second it notes what each thread that is not merely waiting for another one is doing.
"""

import os
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import FrameType

from epoch_oci.cli.main import run

INTERVAL = 0.005
IDLE = ("threading.py", "queue.py", "selectors.py", "concurrent/futures/thread.py", "concurrent/futures/_base.py")
PACKAGE = "/epoch_oci/"
ROWS = 15


def _spot(frame: FrameType) -> str:
    path = Path(frame.f_code.co_filename)
    return f"{frame.f_code.co_qualname} ({path.parent.name}/{path.name}:{frame.f_lineno})"


def _ours(frame: FrameType | None) -> str:
    while frame is not None:
        if PACKAGE in frame.f_code.co_filename:
            return _spot(frame)
        frame = frame.f_back
    return "-"


class Sampler(threading.Thread):
    """Counts where the other threads are, until the process ends."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.spots: Counter[tuple[str, str]] = Counter()
        self.rounds = 0
        self.begin = time.perf_counter()

    def run(self) -> None:
        while True:
            time.sleep(INTERVAL)
            self.rounds += 1
            for thread, frame in sys._current_frames().items():
                if thread != self.ident and not frame.f_code.co_filename.endswith(IDLE):
                    self.spots[_spot(frame), _ours(frame)] += 1

    def report(self) -> str:
        """The busiest places, in seconds over all threads."""
        spots = self.spots.most_common(ROWS)
        wall = time.perf_counter() - self.begin
        a_sample = wall / max(self.rounds, 1)
        lines = [f"{wall:.2f} s of wall clock, {a_sample * sum(self.spots.values()):.2f} s busy in all threads"]
        for (spot, ours), count in spots:
            lines.append(f"{a_sample * count:7.2f} s  {spot}" + ("" if spot == ours else f"  <- {ours}"))
        return "\n".join(lines)


def main(words: list[str]) -> None:
    """Run the command line, then write the report."""
    sampler = Sampler()
    sampler.start()
    code = run(words[1:], os.environ)
    Path(words[0]).write_text(sampler.report())
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
