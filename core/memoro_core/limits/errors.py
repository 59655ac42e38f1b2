"""How callers are told of a limit."""

from __future__ import annotations

from datetime import UTC, datetime

from memoro_core.errors import Code, MemoroError, Reason
from memoro_core.limits.model import Limits, Rate, Verdict


def rate_limited(verdict: Verdict, limits: Limits) -> MemoroError:
    """RESOURCE_EXHAUSTED / RATE_LIMITED for a call that was refused by a bucket: it may pass after `retry_after`."""
    name = verdict.refused_by
    whose = "user" if name == "user_requests" else "tenant"
    rate = getattr(limits, name, None)
    allowed = f"allows {rate.per_minute} a minute" if isinstance(rate, Rate) else "is reached"
    return MemoroError(
        Code.RESOURCE_EXHAUSTED,
        Reason.RATE_LIMITED,
        f"too many calls: the limit {name} of this {whose} {allowed}",
        metadata={"limit": name},
        retry_after=verdict.retry_after,
    )


def daily_limit(maximum: int, resets_at: datetime) -> MemoroError:
    """RESOURCE_EXHAUSTED / DAILY_LIMIT: the day's units are used up; the next day begins at `resets_at`."""
    moment = resets_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return MemoroError(
        Code.RESOURCE_EXHAUSTED,
        Reason.DAILY_LIMIT,
        f"the {maximum} units of today are used up; the next day begins at {moment}",
        metadata={"limit": "daily_units", "reset_time": moment},
    )


def quota_exceeded(limit: str, maximum: int) -> MemoroError:
    """RESOURCE_EXHAUSTED / QUOTA_EXCEEDED: the tenant has as much as it may. `limit`: `max_memories` or `max_bytes`."""
    what = "bytes in its memories, and with this would have more" if limit == "max_bytes" else "memories, and has them"
    return MemoroError(
        Code.RESOURCE_EXHAUSTED,
        Reason.QUOTA_EXCEEDED,
        f"the tenant may have {maximum} {what}",
        metadata={"limit": limit, "maximum": str(maximum)},
    )
