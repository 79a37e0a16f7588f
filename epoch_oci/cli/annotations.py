"""The K=V of `--annotation`."""

from collections.abc import Sequence

from epoch_oci.errors import UsageError


def parsed(pairs: Sequence[str]) -> dict[str, str]:
    """Keys and values; the last of two with one key counts. Raises UsageError for what is not K=V."""
    found = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not key or not equals:
            raise UsageError(f"--annotation {pair} has no key and value", object="--annotation", hint="write K=V")
        found[key] = text
    return found
