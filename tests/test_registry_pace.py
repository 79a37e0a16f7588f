"""Fewer bodies at once when a registry throttles, and more again as it lets us."""

import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
from registry_room import blob, room
from support.content import noise
from support.fault_base import Exchange, Fault
from support.wire import Answer

from epoch_oci.oci.verifying import VerifyingReader
from epoch_oci.registry.policy import Pace
from epoch_oci.stores.base import BytesContent

REPO = "acme/bot"
AT_ONCE = 8
HASTE = {403: 600}
"""Waits take this much less than their time, 20 by default; without any, all attempts would be used up in one burst."""


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass(slots=True, frozen=True)
class AtMost(Fault):
    """A registry that answers `status` while more than `most` bodies are under way, and takes its time for each."""

    most: int
    status: int
    seconds: float = 0.05
    seen: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def before(self, exchange: Exchange) -> Answer | None:
        with self.lock:
            self.seen["now"] += 1
            self.seen["peak"] = max(self.seen["peak"], self.seen["now"])
            refused = self.seen["now"] > self.most
        exchange.sleep(self.seconds)
        if not refused:
            return None
        with self.lock:
            self.seen["now"] -= 1
            self.seen["refused"] += 1
        exchange.fire()
        text = b"secondary rate limit" if self.status == 403 else b"slow down"
        return Answer.of(self.status, text)

    def after(self, exchange: Exchange, answer: Answer) -> None:
        if answer.status < 400:
            with self.lock:
                self.seen["now"] -= 1


def hurried(registry, status):
    haste = HASTE.get(status, 20)
    repository, _ = room(
        registry,
        sleep=lambda seconds: time.sleep(seconds / haste),
        pace=Pace(lambda: time.monotonic() * haste),
        jitter=random.Random(7).random,
    )
    return repository


def all_at_once(work, items) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in pool.map(work, items):
            pass


@pytest.mark.parametrize("status", [429, 503, 403])
def test_a_push_that_is_throttled_goes_on_with_fewer_at_once(fake_registry, status):
    registry = fake_registry()
    limit = AtMost(2, status)
    registry.fault("PUT", r"/blobs/uploads/", limit)
    repository = hurried(registry, status)
    contents = [noise(1000 + number) for number in range(40)]
    all_at_once(lambda raw: repository.put(blob(raw), BytesContent(raw)), contents)
    assert all(str(blob(raw).digest) in registry.blobs(REPO) for raw in contents)
    assert limit.seen["refused"] < 36, "at eight at once refusals do not end, and the push fails of them"


def test_a_pull_that_is_throttled_goes_on_with_fewer_at_once(fake_registry):
    registry = fake_registry()
    limit = AtMost(2, 429)
    contents = [noise(1000 + number) for number in range(40)]
    for raw in contents:
        registry.put_blob(REPO, raw)
    registry.fault("GET", r"/blobs/sha256:", limit)
    repository = hurried(registry, 429)

    def read(raw: bytes) -> None:
        with repository.content(blob(raw)).open() as reader:
            assert b"".join(VerifyingReader(reader, blob(raw)).blocks()) == raw

    all_at_once(read, contents)
    assert limit.seen["refused"] < 36


class TestPace:
    def test_nothing_is_held_back_until_the_registry_throttles(self):
        pace = Pace()
        for _ in range(100):
            pace.enter()
        assert pace.room is None

    def test_one_burst_of_refusals_is_one_warning(self):
        clock = Clock()
        pace = Pace(clock)
        in_threads(pace, AT_ONCE)
        for _ in range(AT_ONCE):
            pace.throttled()
        assert pace.room == 4
        clock.now = 2.0
        pace.throttled()
        assert pace.room == 2
        for clock.now in (4.0, 6.0, 8.0):
            pace.throttled()
        assert pace.room == 1

    def test_it_climbs_by_one_a_round_until_nothing_is_held_back(self):
        pace = Pace()
        in_threads(pace, AT_ONCE)
        pace.throttled()
        found = []
        for _ in range(4 + 5 + 6 + 7):
            with pace.body():
                found.append(pace.room)
        assert [found.index(room) for room in (4, 5, 6, 7)] == [0, 4, 9, 15]
        assert pace.room is None

    def test_what_went_wrong_is_no_reason_to_climb(self):
        pace = Pace()
        in_threads(pace, AT_ONCE)
        pace.throttled()
        for _ in range(20):
            with pytest.raises(OSError), pace.body():
                raise OSError
        assert pace.room == 4

    def test_a_thread_never_waits_for_itself(self):
        pace = Pace()
        pace.throttled()
        assert pace.room == 1
        with pace.body(), pace.body():
            pass

    def test_no_more_are_under_way_than_there_is_room_for(self):
        pace, running, peak, lock = Pace(Clock()), 0, 0, threading.Lock()
        in_threads(pace, 4)
        pace.throttled()

        def work(_: int) -> None:
            nonlocal running, peak
            try:
                with pace.body():
                    with lock:
                        running += 1
                        peak = max(peak, running)
                    threading.Event().wait(0.002)
                    with lock:
                        running -= 1
                    raise OSError  # so that it does not climb
            except OSError:
                pass

        all_at_once(work, range(50))
        assert peak == 2


def in_threads(pace: Pace, count: int) -> None:
    """Have `count` bodies under way at the same time, once."""
    barrier = threading.Barrier(count)

    def work() -> None:
        with pace.body():
            barrier.wait(60)

    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
