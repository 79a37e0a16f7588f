"""Small documents named on the command line: read whole, with a cap, from a file or standard input."""

import os
import stat
import sys

from epoch_oci.errors import LocalIOError, NotFoundError, UsageError
from epoch_oci.oci.reference import refuse_user_info

STANDARD_INPUT = "-"


def read_document(word: str, limit: int) -> bytes:
    """The bytes of a file or, for `-`, of standard input; one more than `limit` where there are more.

    Raises NotFoundError, LocalIOError, UsageError for a directory or a location with a password in it.
    """
    if word == STANDARD_INPUT:
        return sys.stdin.buffer.read(limit + 1)
    try:
        with open(word, "rb") as file:  # noqa: PTH123 (the word is shown as it was typed)
            if stat.S_ISDIR(os.fstat(file.fileno()).st_mode):
                raise IsADirectoryError
            return file.read(limit + 1)
    except FileNotFoundError:
        refuse_user_info(word)
        raise NotFoundError(f"there is no file {word}", object=word, hint="name a file, or `-`") from None
    except IsADirectoryError:
        hint = "name a file in it, or look at all of it with `epoch-oci verify`"
        raise UsageError(f"{word} is a directory", object=word, hint=hint) from None
    except OSError as error:
        raise LocalIOError(f"{word}: {(error.strerror or str(error)).lower()}", object=word) from error
