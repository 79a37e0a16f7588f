"""The frame of ``support.conformance``: ``Check``, the list ``CHECKS`` and the decorator that fills it."""

import json
from collections.abc import Callable
from dataclasses import dataclass

from support.client import Client, Response
from support.content import digest_of

DATA = b"hello world"
DIGEST = digest_of(DATA)
ABSENT = digest_of(b"absent")
DISTRIBUTION_2 = "distribution-2"
DISTRIBUTION_3 = "distribution-3"


@dataclass(slots=True, frozen=True)
class Check:
    run: Callable[[Client, str], None]
    deviates: frozenset[str]

    def __str__(self) -> str:
        return self.run.__name__


CHECKS: list[Check] = []


def check(*deviates: str) -> Callable[[Callable[[Client, str], None]], Callable[[Client, str], None]]:
    def register(run: Callable[[Client, str], None]) -> Callable[[Client, str], None]:
        CHECKS.append(Check(run, frozenset(deviates)))
        return run

    return register


def first_code(reply: Response) -> str:
    """The code of the first error of an OCI error body."""
    return str(json.loads(reply.body)["errors"][0]["code"])


def refused(reply: Response, code: str, *statuses: int) -> None:
    assert reply.status in statuses, (reply.status, reply.body)
    assert first_code(reply) == code
