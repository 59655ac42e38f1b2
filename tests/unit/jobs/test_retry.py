"""Which failures are tried again, and when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoro_core.errors import Code, MemoroError, ProviderError, Reason, invalid_field, unavailable
from memoro_core.jobs.retry import JITTER, LONGEST_WAIT, RetryPolicy, classify, timed_out

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def test_waits_double_from_the_base_to_the_maximum() -> None:
    policy = RetryPolicy(2.0, 300.0, rand=lambda: 0.5)
    assert [policy.delay(attempt) for attempt in range(1, 11)] == [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    assert policy.retry_at(NOW, 3) == NOW + timedelta(seconds=8)


@given(st.integers(1, 100_000), st.floats(0, 1, exclude_max=True), st.floats(0.01, 60), st.floats(60, 3600))
def test_jitter_stays_within_a_quarter_and_below_the_maximum(
    attempt: int, luck: float, base: float, maximum: float
) -> None:
    middle = RetryPolicy(base, maximum, rand=lambda: 0.5).delay(attempt)
    delay = RetryPolicy(base, maximum, rand=lambda: luck).delay(attempt)
    assert middle * (1 - JITTER) * 0.999 <= delay <= min(maximum, middle * (1 + JITTER)) * 1.001


def test_the_other_side_is_left_alone_for_as_long_as_it_asked() -> None:
    policy = RetryPolicy(2.0, 300.0, rand=lambda: 0.5)
    assert policy.delay(1, retry_after=30) == 30
    assert policy.delay(6, retry_after=30) == 64
    assert policy.delay(1, retry_after=1e9) == LONGEST_WAIT


@pytest.mark.parametrize(
    ("code", "retryable"),
    [
        (Code.UNAVAILABLE, True),
        (Code.RESOURCE_EXHAUSTED, True),
        (Code.DEADLINE_EXCEEDED, True),
        (Code.ABORTED, True),
        (Code.INTERNAL, True),
        (Code.INVALID_ARGUMENT, False),
        (Code.NOT_FOUND, False),
        (Code.PERMISSION_DENIED, False),
        (Code.FAILED_PRECONDITION, False),
    ],
)
def test_errors_of_ours_are_told_as_they_are(code: Code, retryable: bool) -> None:
    failure = classify(MemoroError(code, Reason.PROVIDER_FAILED, "what happened"))
    assert (failure.error.reason, failure.error.message) == ("PROVIDER_FAILED", "what happened")
    assert failure.error.retryable is retryable


def test_a_provider_says_itself_whether_it_may_be_asked_again() -> None:
    busy = classify(ProviderError("429", retryable=True, retry_after=7))
    assert (busy.error.retryable, busy.retry_after) == (True, 7)
    assert not classify(ProviderError("400", retryable=False)).error.retryable
    assert classify(unavailable("database", retry_after=2)).retry_after == 2
    assert not classify(invalid_field("text", "too long")).error.retryable


def test_an_unexpected_exception_is_tried_again_and_tells_nothing() -> None:
    failure = classify(RuntimeError("password=hunter2 at /srv/app.py"))
    assert (failure.error.reason, failure.error.retryable) == ("INTERNAL", True)
    assert "hunter2" not in failure.error.message
    assert "app.py" not in failure.error.message


def test_a_message_is_not_endless() -> None:
    assert len(classify(ProviderError("x" * 100_000, retryable=True)).error.message) == 500


def test_an_attempt_over_its_time_is_tried_again() -> None:
    assert timed_out(120.0).error.reason == "JOB_TIMED_OUT"
    assert timed_out(120.0).error.retryable
