"""What callers are told of a limit is what the contract shows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from memoro_core.errors import Code, MemoroError, Reason
from memoro_core.limits.errors import daily_limit, quota_exceeded, rate_limited
from memoro_core.limits.model import Limits, Rate, Verdict

LIMITS = Limits(writes=Rate(120, 60), user_requests=Rate(30, 20), daily_units=10_000)


def refused(limit: str, retry_after: float | None = 0.5) -> Verdict:
    return Verdict(False, 60, 0, 30.0, limit, retry_after)


@pytest.mark.parametrize(
    "error",
    [
        rate_limited(refused("writes"), LIMITS),
        daily_limit(10_000, datetime(2026, 2, 1, tzinfo=UTC)),
        quota_exceeded("max_memories", 10_000),
    ],
    ids=lambda error: error.reason,
)
def test_an_error_is_the_example_of_the_contract(error: MemoroError) -> None:
    proto = (Path(__file__).parents[3] / "protos/memoro/v1/error_reason.proto").read_text("utf-8")
    above = proto.partition(f"ERROR_REASON_{error.reason} =")[0]
    example = " ".join(above.rsplit("Example:", 1)[1].replace("//", " ").split())
    assert error.code is Code.RESOURCE_EXHAUSTED
    assert f'message: "{error.message}"' in example
    metadata = ", ".join(f'"{key}": "{value}"' for key, value in error.metadata.items())
    assert f"metadata: {{{metadata}}}" in example
    if error.retry_after is not None:
        assert f'retry_delay: "{error.retry_after:g}s"' in example


def test_a_users_limit_is_told_as_the_users() -> None:
    error = rate_limited(refused("user_requests", 2.25), LIMITS)
    assert error.message == "too many calls: the limit user_requests of this user allows 30 a minute"
    assert (error.reason, error.retry_after) == (Reason.RATE_LIMITED, 2.25)


def test_the_end_of_a_day_is_told_in_utc() -> None:
    error = daily_limit(5, datetime(2026, 2, 1, tzinfo=timezone(timedelta(hours=1))))
    assert error.metadata["reset_time"] == "2026-01-31T23:00:00Z"
    assert error.retry_after is None


def test_bytes_are_told_as_bytes() -> None:
    error = quota_exceeded("max_bytes", 5)
    assert error.message == "the tenant may have 5 bytes in its memories, and with this would have more"
    assert error.metadata == {"limit": "max_bytes", "maximum": "5"}
