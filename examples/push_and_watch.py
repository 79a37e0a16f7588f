"""Push from a program and watch: `push_and_watch.py /data/epoch bot:v3 ghcr.io/my-org/bot`.

The library prints nothing and never exits: it reports events, and raises one tree of errors.
"""

import sys

from epoch_oci import EpochOciError, Event, push


def watch(event: Event) -> None:
    """Called from the threads that move bytes."""
    if event.event == "blob-done":
        print(f"{event.action:>8} {event.total:>12} {event.title or event.digest}")
    elif event.event in ("retry", "wait", "warning"):
        print(f"{event.event}: {event.message}", file=sys.stderr)


def main(store: str, snapshot: str, target: str) -> int:
    """The digest on the last line; 1 with the reason and what to do next."""
    try:  # credentials of Docker and podman, proxies and the settings of buckets are found in the environment
        report = push(snapshot, to=target, store=store, on_event=watch)
    except EpochOciError as error:
        print(f"{error.code}: {error.message} {error.hint or ''}", file=sys.stderr)
        return 1
    print(f"{report.transferred} bytes moved", report.digest)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
