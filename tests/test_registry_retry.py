"""How long a wait is, and when there is no further try: the rules themselves, without a registry."""

import time
from email.utils import formatdate

import pytest

from epoch_oci.errors import NetworkError
from epoch_oci.registry.policy import LONGEST_WAIT, Attempts, RegistrySettings, UnreachableError, asked_wait

DATE = "Wed, 21 Oct 2015 07:28:00 GMT"
LATER = "Wed, 21 Oct 2015 07:28:45 GMT"


@pytest.mark.parametrize(
    ("header", "text", "date", "wait"),
    [
        (None, "", None, None),
        ("7", "", None, 7.0),
        (" 7 ", "", None, 7.0),
        ("0", "", None, 0.0),
        ("9" * 400, "", None, 999_999_999.0),
        (LATER, "", DATE, 45.0),
        (DATE, "", LATER, 0.0),
        (DATE, "", None, 0.0),
        ("٣", "", None, None),
        ("soon", "", None, None),
        ("soon", "retry-after: 90s", None, 90.0),
        (None, "toomanyrequests: retry-after: 4", None, 4.0),
        (None, "Retry-After: 4s", None, 4.0),
        (None, "retry-after: 2500ms", None, 2.5),
        (None, "retry-after: 1.8ms", None, 1.0),
        (None, "retry-after: 1.2.3", None, None),
    ],
)
def test_the_wait_that_a_registry_asks_for(header, text, date, wait):
    assert asked_wait(header, text, date) == wait


def test_a_date_is_measured_against_our_clock_where_the_answer_has_none():
    wait = asked_wait(formatdate(time.time() + 300, usegmt=True))
    assert wait is not None and 280 < wait <= 300


class Clock:
    """Goes on when somebody sleeps, and `lasts` seconds for every try."""

    def __init__(self, lasts: float = 0.0) -> None:
        self.now, self.waits, self.lasts = 100.0, [], lasts

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds + self.lasts


def tries(error: NetworkError, clock: Clock, **changes) -> tuple[int, NetworkError]:
    """How often something is done that always fails in one way, and the error in the end."""
    settings = RegistrySettings(sleep=clock.sleep, clock=clock, jitter=lambda: 1.0, **changes)
    attempts = Attempts(settings, "x")
    for tried in range(1, 10_000):
        try:
            attempts.again(error)
        except NetworkError as final:
            return tried, final
    raise AssertionError("there is no end")


def unreachable(*, met: bool) -> UnreachableError:
    error = UnreachableError("nobody answers")
    error.met = met
    return error


def test_a_host_that_never_answered_gets_three_tries_or_ten_seconds():
    tried, error = tries(unreachable(met=False), Clock())
    assert tried == 3 and error.hint and "name and port" in error.hint
    tried, _ = tries(unreachable(met=False), Clock(lasts=10.0))
    assert tried == 2
    told = unreachable(met=False)
    told.hint = "what is known better"
    assert tries(told, Clock())[1].hint == "what is known better"


@pytest.mark.parametrize("lasts", [0.0, 20.0])
def test_a_host_that_is_away_is_waited_for_as_long_as_is_said_and_no_longer(lasts):
    for error in (unreachable(met=True), NetworkError("bad gateway", status=502)):
        clock = Clock(lasts)
        tried, final = tries(error, clock, retry_for=300.0)
        assert 300 <= clock.now - 100 <= 300 + 2 * lasts and tried > 6
        assert final.hint and "300 seconds" in final.hint and "--retry-for" in final.hint
        assert min(clock.waits) >= 0 and max(clock.waits) <= 30


def test_without_patience_a_host_that_is_away_is_a_failure_like_any_other():
    for error in (NetworkError("bad gateway", status=502), NetworkError("broken", status=500)):
        assert tries(error, Clock(), retry_for=0.0, attempts=4)[0] == 4


def test_a_failure_of_another_sort_is_tried_a_few_times():
    clock = Clock()
    assert tries(NetworkError("broken", status=500), clock, attempts=5)[0] == 5 and len(clock.waits) == 4


def test_what_is_final_is_not_tried_again():
    assert tries(NetworkError("no", retryable=False), Clock())[0] == 1


def test_the_longest_wait_is_obeyed_and_a_longer_one_is_refused():
    clock = Clock()
    tries(NetworkError("slow down", status=429, retry_after=LONGEST_WAIT), clock, retry_for=0.0, attempts=2)
    assert clock.waits == [LONGEST_WAIT]
    longer = NetworkError("slow down", status=429, retry_after=LONGEST_WAIT + 1, object="it")
    tried, error = tries(longer, Clock())
    assert tried == 1 and "901 seconds" in error.message and not error.retryable
    assert (error.object, error.status) == ("it", 429) and error.hint and "same command" in error.hint
