"""When an alert is tried again, and when it is given up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoro_core.alerts.model import ALERT_LIFETIME, AlertClaim, AlertState, ChannelResult
from memoro_core.alerts.retry import DELAYS, JITTER, AlertPolicy
from tests.support.alerts import make_alert

NOW = datetime(2025, 3, 4, 12, tzinfo=UTC)
LOGGED = ChannelResult("log", delivered=True)
FAILED = ChannelResult("slack", delivered=False, problem="answered 500", failed=True)


def claim(attempt: int = 1) -> AlertClaim:
    return AlertClaim(make_alert(now=NOW), lease=attempt, attempt=attempt)


@pytest.mark.parametrize(("attempt", "delay"), [(1, 5), (2, 30), (3, 120), (6, 3600), (7, 3600), (99, 3600)])
def test_the_steps(attempt: int, delay: int) -> None:
    assert AlertPolicy(lambda: 0.5).delay(attempt) == timedelta(seconds=delay)


@given(st.integers(1, 1000), st.floats(0, 1, exclude_max=True))
def test_jitter_stays_within_a_tenth(attempt: int, rand: float) -> None:
    step = DELAYS[min(attempt, len(DELAYS)) - 1]
    delay = AlertPolicy(lambda: rand).delay(attempt)
    assert step * (1 - JITTER) - timedelta(milliseconds=1) <= delay <= step * (1 + JITTER) + timedelta(milliseconds=1)


def test_what_everybody_took_is_done_and_keeps_what_others_said() -> None:
    assert AlertPolicy().judge(claim(), [LOGGED], NOW, complete=True).state is AlertState.DELIVERED
    stood_in = AlertPolicy().judge(claim(), [LOGGED, FAILED], NOW, complete=True)
    assert (stood_in.state, stood_in.error) == (AlertState.DELIVERED, "slack: answered 500")


def test_a_channel_that_asks_for_more_time_gets_it_but_not_less() -> None:
    def wait(seconds: int) -> timedelta:
        asked = ChannelResult("slack", delivered=False, failed=True, retry_after=timedelta(seconds=seconds))
        verdict = AlertPolicy(lambda: 0.5).judge(claim(), [LOGGED, asked], NOW, complete=False)
        assert verdict.next_attempt_at is not None
        return verdict.next_attempt_at - NOW

    assert wait(120) == timedelta(seconds=120)
    assert wait(0) == DELAYS[0]


@given(st.randoms(use_true_random=False), st.floats(0, 10), st.integers(0, 3600))
def test_an_alert_that_nobody_takes_is_tried_for_a_day(random: Random, took: float, asked: int) -> None:
    policy = AlertPolicy(random.random)
    busy = ChannelResult("slack", delivered=False, failed=True, retry_after=timedelta(seconds=asked))
    at, attempt = NOW, 1
    while True:
        ended = at + timedelta(seconds=took)
        verdict = policy.judge(claim(attempt), [LOGGED, busy], ended, complete=False)
        if verdict.next_attempt_at is None:
            break
        assert ended < verdict.next_attempt_at <= max(NOW + ALERT_LIFETIME, ended)
        at, attempt = verdict.next_attempt_at, attempt + 1
    assert verdict.state is AlertState.FAILED
    assert 24 <= attempt <= 60
    assert at > NOW + ALERT_LIFETIME - timedelta(seconds=16)


def test_a_long_error_is_cut() -> None:
    wordy = ChannelResult("slack", delivered=False, problem="x" * 10_000, failed=True)
    assert len(AlertPolicy().judge(claim(), [wordy], NOW, complete=False).error) == 500
