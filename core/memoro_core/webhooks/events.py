"""What receivers are told: the bodies of events, as the Standard Webhooks specification shapes them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from types import MappingProxyType
from typing import Any, Final

from pydantic_core import to_json

from memoro_core.billing.model import BudgetKey
from memoro_core.ids import EventId, TenantId, WebhookEndpointId, new_id
from memoro_core.jobs.model import Finish, Job, JobState
from memoro_core.webhooks.model import WebhookEvent, WebhookEventType

JOB_ENDED: Final[Mapping[JobState, WebhookEventType]] = MappingProxyType(
    {
        JobState.SUCCEEDED: WebhookEventType.JOB_SUCCEEDED,
        JobState.FAILED: WebhookEventType.JOB_FAILED,
        JobState.CANCELLED: WebhookEventType.JOB_CANCELLED,
    }
)
"""What the end of a job is told as."""


def job_ended(job: Job, finish: Finish, now: datetime) -> WebhookEvent:
    """The end of a job: which one, and how it ended. Never a text of a user."""
    data: dict[str, Any] = {
        "job_id": job.id,
        "kind": job.kind,
        "state": finish.state,
        "user_id": job.user_id,
        "memory_ids": job.memory_ids,
        "partial": finish.partial,
        "attempt": job.attempt,
        "usage": finish.usage,
        "create_time": _time(job.created_at),
        "end_time": _time(now),
    }
    if finish.result is not None:
        data["result"] = finish.result
    if finish.error is not None:
        data["error"] = finish.error
    return _event(JOB_ENDED[finish.state], data, now)


def webhook_disabled(endpoint_id: WebhookEndpointId, url: str, error: str, now: datetime) -> WebhookEvent:
    """That an endpoint was disabled, and what its last attempt failed of."""
    data = {"endpoint_id": endpoint_id, "url": url, "error": error, "disable_time": _time(now)}
    return _event(WebhookEventType.WEBHOOK_DISABLED, data, now)


def balance_low(tenant_id: TenantId, available: int, low_balance: int, now: datetime) -> WebhookEvent:
    """That less is available than the tenant wants to have at least. Amounts are in micro-credits."""
    data = {"tenant_id": tenant_id, "available": available, "low_balance": low_balance}
    return _event(WebhookEventType.BALANCE_LOW, data, now)


def spend_threshold(
    key: BudgetKey, percent: int, *, committed: int, limit: int, day: date, now: datetime
) -> WebhookEvent:
    """That so many percent of a daily budget of the tenant, or of one of its users, are set aside or spent.

    `limit` is what may be committed on this day. Amounts are in micro-credits.
    """
    data = {
        "tenant_id": key.tenant_id,
        "scope": key.scope,
        "user_id": key.user_id or "",
        "day": day,
        "percent": percent,
        "committed": committed,
        "limit": limit,
    }
    return _event(WebhookEventType.SPEND_THRESHOLD, data, now)


def _event(kind: WebhookEventType, data: Mapping[str, Any], now: datetime) -> WebhookEvent:
    body = {"type": kind, "timestamp": _time(now), "data": data}
    return WebhookEvent(EventId(new_id()), kind, to_json(body).decode())


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
