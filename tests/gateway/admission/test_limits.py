from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.keys import Key, digest_of
from gateway.admission.bucket import Bucket
from gateway.admission.limits import Allowances
from gateway.admission.sizes import check_sizes, deeper_than
from gateway.admission_settings import AdmissionSettings
from kiki.errors import LimitError, TooLargeError


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def key(**limits) -> Key:
    return Key(name="anna", sha256=digest_of("x"), **limits)


def test_requests_beyond_the_minutes_are_refused_until_there_are_new_ones():
    clock = Clock()
    allowance = Allowances(AdmissionSettings(), clock).of(key(requests_per_minute=2))
    assert allowance
    for _ in range(2):
        with allowance.request("anna"):
            pass
    with pytest.raises(LimitError) as caught, allowance.request("anna"):
        pass
    assert caught.value.retry_after == pytest.approx(30)
    assert caught.value.limited == "requests"
    clock.now += 30
    with allowance.request("anna"):
        pass


def test_tokens_are_counted_when_they_are_known_and_paid_back_in_time():
    clock = Clock()
    allowance = Allowances(AdmissionSettings(), clock).of(key(tokens_per_minute=60))
    assert allowance
    with allowance.request("anna"):
        allowance.spend(100)
    with pytest.raises(LimitError) as caught, allowance.request("anna"):
        pass
    assert caught.value.limited == "tokens"
    assert caught.value.retry_after == pytest.approx(41)
    assert dict(allowance.headers()) == {
        "x-ratelimit-limit-tokens": "60",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "1m40.00s",
    }


def test_requests_at_a_time_are_bounded_and_come_back_whatever_happens():
    allowance = Allowances(AdmissionSettings()).of(key(concurrent=1))
    assert allowance
    with allowance.request("anna"), pytest.raises(LimitError), allowance.request("anna"):
        pass
    with pytest.raises(RuntimeError), allowance.request("anna"):
        raise RuntimeError
    with allowance.request("anna"):
        pass


def test_the_settings_limit_a_key_that_has_no_limit_of_its_own():
    allowances = Allowances(AdmissionSettings(key_requests_per_minute=5))
    of_settings, own = allowances.of(key()), allowances.of(key(requests_per_minute=7))
    assert of_settings
    assert of_settings.requests
    assert of_settings.requests.limit == 5
    assert own
    assert own.requests
    assert own.requests.limit == 7
    assert Allowances(AdmissionSettings()).of(key()) is None


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(0, 500)), max_size=30))
def test_a_bucket_never_gives_more_than_it_held_and_gained(steps):
    clock = Clock()
    bucket = Bucket(100, clock)
    taken = 0
    for seconds, units in steps:
        clock.now += seconds
        if not bucket.seconds_until(units):
            bucket.take(units)
            taken += units
    assert taken <= 100 + clock.now * 100 / 60 + 1e-6
    assert bucket.level <= 100


def nested(levels: int) -> dict[str, object]:
    schema: dict[str, object] = {}
    for _ in range(levels - 1):
        schema = {"properties": schema}
    return schema


@given(st.integers(1, 60), st.integers(1, 60))
def test_levels_are_counted(levels, limit):
    assert deeper_than(nested(levels), limit) == (levels > limit)


def test_what_is_too_large_is_named():
    settings = AdmissionSettings(max_messages=2, max_tools=1, max_schema_depth=3)
    check_sizes(settings, messages=2, tools=[nested(3)], schemas={"response_format": nested(3)})
    with pytest.raises(TooLargeError) as caught:
        check_sizes(settings, messages=3)
    assert caught.value.param == "messages"
    with pytest.raises(TooLargeError) as caught:
        check_sizes(settings, messages=1, tools=[{}, {}])
    assert caught.value.param == "tools"
    with pytest.raises(TooLargeError) as caught:
        check_sizes(settings, messages=1, tools=[nested(4)])
    assert caught.value.param == "tools[0]"
