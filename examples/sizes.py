"""What is in a store, and how much of it is shared: `sizes.py /data/epoch`. A script over `--format json`."""

import json
import subprocess
import sys
from typing import Any

EXIT_NOT_FOUND = 5


def epoch_oci(*words: str) -> Any:
    """What a command prints with --format json. Raises CalledProcessError, whose returncode says whose fault it is."""
    command = [sys.executable, "-m", "epoch_oci", *words, "--format", "json", "--progress", "none"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def main(store: str) -> int:
    """A line for each snapshot, then the sum and what of it is stored once for several."""
    try:
        rows = epoch_oci("ls", store)["snapshots"]
    except subprocess.CalledProcessError as error:
        return 0 if error.returncode == EXIT_NOT_FOUND else error.returncode
    blobs: dict[str, int] = {}
    total = 0
    for row in rows:
        found = epoch_oci("inspect", f"{row['name']}:{row['tag']}", "--store", store)
        sizes = {file["digest"]: file["size"] for file in found["files"]}
        total += sum(sizes.values())
        blobs |= sizes
        print(f"{sum(sizes.values()):>14} {row['kind']:<12} {row['name']}:{row['tag']}")
    print(f"{total:>14} in all, {total - sum(blobs.values())} of it shared")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
