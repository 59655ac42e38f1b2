"""Alerts, and what becomes of them on their way to people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from pydantic import JsonValue

from memoro_core.ids import AlertId, TenantId

ALERT_LIFETIME: Final = timedelta(days=1)
"""How long channels are tried."""


class AlertKind(StrEnum):
    """What an alert tells of."""

    BUDGET_THRESHOLD = "budget.threshold"
    BREAKER_OPEN = "breaker.open"
    BILL_ABOVE_BOUND = "bill.above_bound"
    QUEUE_FAILING = "queue.failing"
    TEST = "test"


class Severity(StrEnum):
    """How urgent it is."""

    INFO = "INFO"
    WARNING = "WARNING"
    CRITICAL = "CRITICAL"

    def reaches(self, least: Severity) -> bool:
        """Whether it is at least as urgent as another."""
        order = list(Severity)
        return order.index(self) >= order.index(least)


@dataclass(frozen=True, slots=True)
class Alert:
    """What operators are told. Of alerts with one `dedupe_key` only the first is raised.

    `tenant_id` is whom it is about, the nil UUID for the deployment; `title` is a sentence; `details` hold figures and
    ids, never a text of a user.
    """

    id: AlertId
    tenant_id: TenantId
    dedupe_key: str
    kind: AlertKind
    severity: Severity
    title: str
    created_at: datetime
    details: Mapping[str, JsonValue] = field(default_factory=dict)


class AlertState(StrEnum):
    """Where an alert stands."""

    PENDING = "PENDING"
    DELIVERED = "DELIVERED"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class AlertClaim:
    """The right to make one attempt, until another claim raises the lease.

    `delivered_over` are the channels that have taken the alert already; attempts are numbered from 1.
    """

    alert: Alert
    lease: int
    attempt: int
    delivered_over: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Sent:
    """What came of giving an alert to a channel: what it failed of, empty for nothing, and how long the channel asks
    to be left alone.
    """

    problem: str = ""
    retry_after: timedelta | None = None


@dataclass(frozen=True, slots=True)
class ChannelResult:
    """What a channel has to do with an alert.

    Unless it was delivered, `problem` says why not; `failed` that it should have been.
    """

    channel: str
    delivered: bool
    problem: str = ""
    failed: bool = False
    retry_after: timedelta | None = None


@dataclass(frozen=True, slots=True)
class AlertVerdict:
    """What an attempt means for its alert. `next_attempt_at` is set while it is PENDING."""

    state: AlertState
    next_attempt_at: datetime | None = None
    error: str = ""
