"""When a delivery is tried again, when it is given up, and when its endpoint is."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoro_core.ids import EventId, TenantId, WebhookEndpointId, new_id
from memoro_core.webhooks.backoff import DEAD_AFTER, DELAYS, JITTER, DeliveryPolicy
from memoro_core.webhooks.model import DELIVERY_LIFETIME, DeliveryClaim, DeliveryState, Outcome

NOW = datetime(2025, 3, 4, 12, tzinfo=UTC)
REFUSED = Outcome(500, "answered 500")


def claim(
    *, attempt: int = 1, failing_since: datetime | None = None, give_up_at: datetime | None = None
) -> DeliveryClaim:
    return DeliveryClaim(
        tenant_id=TenantId(new_id()),
        event_id=EventId(new_id()),
        endpoint_id=WebhookEndpointId(new_id()),
        lease=attempt,
        attempt=attempt,
        give_up_at=give_up_at or NOW + DELIVERY_LIFETIME,
        url="https://hooks.example.com/",
        payload="{}",
        sealed_secrets=(b"",),
        failing_since=failing_since,
    )


def test_what_arrived_is_done() -> None:
    assert DeliveryPolicy().judge(claim(), Outcome(204), NOW).state is DeliveryState.SUCCEEDED


@pytest.mark.parametrize(
    ("attempt", "delay"), [(1, 5), (2, 30), (3, 120), (6, 3600), (9, 43200), (10, 43200), (99, 43200)]
)
def test_the_steps(attempt: int, delay: int) -> None:
    assert DeliveryPolicy(lambda: 0.5).delay(attempt) == timedelta(seconds=delay)


@given(st.integers(1, 1000), st.floats(0, 1, exclude_max=True))
def test_jitter_stays_within_a_tenth(attempt: int, rand: float) -> None:
    step = DELAYS[min(attempt, len(DELAYS)) - 1]
    delay = DeliveryPolicy(lambda: rand).delay(attempt)
    assert step * (1 - JITTER) - timedelta(milliseconds=1) <= delay <= step * (1 + JITTER) + timedelta(milliseconds=1)


@given(st.randoms(use_true_random=False), st.floats(0, 10))
def test_a_delivery_that_always_fails_ends_when_a_day_has_passed(random: Random, took: float) -> None:
    policy = DeliveryPolicy(random.random)
    at, attempts = NOW, 0
    one = claim()
    while True:
        attempts += 1
        at += timedelta(seconds=took)
        verdict = policy.judge(dataclasses.replace(one, attempt=attempts), REFUSED, at)
        if verdict.state is DeliveryState.FAILED:
            break
        assert verdict.next_attempt_at is not None
        assert at < verdict.next_attempt_at <= one.give_up_at
        at = verdict.next_attempt_at
    assert 10 <= attempts <= 12
    assert abs(at - one.give_up_at) <= timedelta(seconds=20)
    assert not verdict.disable


def test_an_endpoint_that_takes_nothing_for_three_days_is_disabled() -> None:
    policy = DeliveryPolicy()
    just = policy.judge(claim(failing_since=NOW - DEAD_AFTER), REFUSED, NOW)
    assert (just.state, just.disable) == (DeliveryState.FAILED, True)
    not_yet = policy.judge(claim(failing_since=NOW - DEAD_AFTER + timedelta(seconds=1)), REFUSED, NOW)
    assert (not_yet.state, not_yet.disable) == (DeliveryState.PENDING, False)


def test_an_endpoint_that_says_that_it_is_gone_is_disabled_at_once() -> None:
    verdict = DeliveryPolicy().judge(claim(), Outcome(410, "answered 410"), NOW)
    assert (verdict.state, verdict.disable) == (DeliveryState.FAILED, True)
