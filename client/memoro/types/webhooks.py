"""Webhook endpoints and their deliveries."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from memoro.enums import DeliveryState, WebhookEndpointState, WebhookEventType


@dataclass(frozen=True, slots=True)
class WebhookEndpoint:
    """A URL that is told of the tenant's events, without its secret. No `event_types` are all of them."""

    id: str
    url: str
    event_types: tuple[WebhookEventType, ...]
    description: str
    state: WebhookEndpointState
    previous_secret_expire_time: datetime | None
    failing_since: datetime | None
    disable_time: datetime | None
    create_time: datetime | None


@dataclass(frozen=True, slots=True)
class NewWebhookSecret:
    """An endpoint with the secret just made for it, which cannot be read again."""

    endpoint: WebhookEndpoint
    secret: str | None = field(repr=False)
    """None when the call repeats an earlier one, whose answer held it: if that was lost, rotate it."""


@dataclass(frozen=True, slots=True)
class WebhookDelivery:
    """One event on its way to one endpoint."""

    event_id: str
    endpoint_id: str
    event_type: WebhookEventType
    state: DeliveryState
    attempt: int
    response_status: int
    """The HTTP status of the latest attempt; 0: there was no answer."""
    error: str
    """What the latest attempt failed of; empty: it did not."""
    create_time: datetime | None
    attempt_time: datetime | None
    next_attempt_time: datetime | None
    end_time: datetime | None
