"""Alerts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from pydantic import JsonValue

from memoro_core.ids import AlertId, TenantId


class AlertKind(StrEnum):
    """What an alert tells of."""

    BUDGET_THRESHOLD = "budget.threshold"
    BILL_ABOVE_BOUND = "bill.above_bound"
    QUEUE_FAILING = "queue.failing"
    TEST = "test"


class Severity(StrEnum):
    """How urgent it is."""

    INFO = "INFO"
    WARNING = "WARNING"
    CRITICAL = "CRITICAL"


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
