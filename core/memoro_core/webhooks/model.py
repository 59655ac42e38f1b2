"""Endpoints, events, and deliveries of the one to the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from memoro_core.ids import EventId, TenantId, WebhookEndpointId

MAX_ENDPOINTS: Final = 50
"""How many endpoints a tenant can have."""
SECRET_OVERLAP: Final = timedelta(hours=24)
"""How long the secret before the present one signs beside it."""
DELIVERY_LIFETIME: Final = timedelta(days=1)
"""How long a delivery is tried."""


class WebhookEventType(StrEnum):
    """What an event tells of; the values are what receivers see. New ones go here and into the contract."""

    JOB_SUCCEEDED = "job.succeeded"
    JOB_FAILED = "job.failed"
    JOB_CANCELLED = "job.cancelled"
    WEBHOOK_DISABLED = "webhook.disabled"
    BALANCE_LOW = "balance.low"
    SPEND_THRESHOLD = "spend.threshold"


class WebhookEndpointState(StrEnum):
    """Whether events go to an endpoint."""

    ENABLED = "ENABLED"
    DISABLED = "DISABLED"


class DeliveryState(StrEnum):
    """Where a delivery stands."""

    PENDING = "PENDING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class WebhookEndpoint:
    """A URL that is told of events, without its secret. No `event_types` are all of them, also those to come."""

    id: WebhookEndpointId
    url: str
    event_types: Sequence[WebhookEventType]
    description: str
    state: WebhookEndpointState
    created_at: datetime
    previous_secret_expires_at: datetime | None = None
    failing_since: datetime | None = None
    disabled_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class WebhookEvent:
    """Something that happened. `payload` is the body that receivers get, word for word."""

    id: EventId
    type: WebhookEventType
    payload: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event on its way to one endpoint. `response_status` 0: the latest attempt got no answer."""

    event_id: EventId
    endpoint_id: WebhookEndpointId
    event_type: WebhookEventType
    state: DeliveryState
    attempt: int
    response_status: int
    error: str
    created_at: datetime
    attempted_at: datetime | None
    next_attempt_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class DeliveryFilter:
    """Which deliveries to list; all that is set must hold."""

    endpoint_id: WebhookEndpointId | None = None
    states: Sequence[DeliveryState] = ()
    created_from: datetime | None = None
    created_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class DeliveryClaim:
    """The right to make one attempt, until another claim or a redelivery raises the lease.

    The secrets are sealed; there are two while the endpoint changes over from one to the next, the present one first.
    """

    tenant_id: TenantId
    event_id: EventId
    endpoint_id: WebhookEndpointId
    lease: int
    attempt: int
    give_up_at: datetime
    url: str
    payload: str = field(repr=False)
    sealed_secrets: Sequence[bytes] = field(repr=False)
    failing_since: datetime | None
    trace_parent: str | None = None
    """The trace of the call that made the job of which the event tells, as long as that job is kept."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an attempt: the status of the answer, 0 for none, and what it failed of, empty for nothing."""

    status: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an attempt means for its delivery and for the endpoint. `next_attempt_at` is set while it is PENDING."""

    state: DeliveryState
    next_attempt_at: datetime | None = None
    disable: bool = False
