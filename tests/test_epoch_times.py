"""Times are text; what Go would not read is no time."""

import pytest

from epoch_oci.epoch.gojson import ZERO_TIME, is_set_time, is_time


@pytest.mark.parametrize(
    "text",
    [
        ZERO_TIME,
        "2026-04-04T21:07:33.418205113+08:00",
        "2026-04-02T13:07:33Z",
        "2026-04-03T09:41:12.9Z",
        "0000-01-01T00:00:00-23:59",
        "2024-02-29T00:00:00Z",
        "2000-02-29T00:00:00Z",
        "2026-12-31T23:59:59.000000001+00:00",
    ],
)
def test_times_of_go(text):
    assert is_time(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2026-04-02",
        "2026-04-02T13:07:33",
        "2026-04-02 13:07:33Z",
        "2026-04-02t13:07:33z",
        "2026-04-02T13:07:33,5Z",
        "2026-04-02T13:07:33.Z",
        "2026-04-02T13:07:33.0123456789Z",
        "2026-04-02T13:07:60Z",
        "2026-04-02T24:00:00Z",
        "2026-13-02T13:07:33Z",
        "2026-04-31T13:07:33Z",
        "2026-02-29T13:07:33Z",
        "1900-02-29T13:07:33Z",
        "2026-04-02T13:07:33+0800",
        "2026-04-02T13:07:33+24:00",
        "2026-04-02T13:07:33Z\n",
        " 2026-04-02T13:07:33Z",
        "２０２６-04-02T13:07:33Z",
        "+2026-04-02T13:07:33Z",
    ],
)
def test_no_times(text):
    assert not is_time(text)


def test_the_zero_time_and_nothing_are_not_set():
    assert not is_set_time(ZERO_TIME)
    assert not is_set_time("")
    assert is_set_time("2026-04-02T13:07:33Z")
