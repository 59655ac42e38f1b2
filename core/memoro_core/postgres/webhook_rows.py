"""Rows of `webhook_endpoints` and `webhook_deliveries`, as the domain has them."""

from __future__ import annotations

from datetime import datetime

from asyncpg import Record

from memoro_core.webhooks.model import (
    Delivery,
    DeliveryClaim,
    DeliveryState,
    WebhookEndpoint,
    WebhookEndpointState,
    WebhookEventType,
)


def endpoint_of(row: Record) -> WebhookEndpoint:
    """An endpoint from a row with the columns of `get_endpoint`."""
    return WebhookEndpoint(
        id=row["endpoint_id"],
        url=row["url"],
        event_types=tuple(WebhookEventType(kind) for kind in row["event_types"]),
        description=row["description"],
        state=WebhookEndpointState(row["state"]),
        created_at=row["created_at"],
        previous_secret_expires_at=row["previous_expires_at"],
        failing_since=row["failing_since"],
        disabled_at=row["disabled_at"],
    )


def delivery_of(row: Record) -> Delivery:
    """A delivery from a row with the columns of `get_delivery`."""
    state = DeliveryState(row["state"])
    return Delivery(
        event_id=row["event_id"],
        endpoint_id=row["endpoint_id"],
        event_type=WebhookEventType(row["event_type"]),
        state=state,
        attempt=row["attempt"],
        response_status=row["response_status"],
        error=row["error"],
        created_at=row["created_at"],
        attempted_at=row["attempted_at"],
        next_attempt_at=row["next_attempt_at"] if state is DeliveryState.PENDING else None,
        ended_at=row["ended_at"],
    )


def claim_of(row: Record, now: datetime) -> DeliveryClaim:
    """A claim from a row of `claim_deliveries`, with the secrets that sign at this time."""
    secrets = [row["secret"]]
    if row["previous_secret"] is not None and row["previous_expires_at"] > now:
        secrets.append(row["previous_secret"])
    return DeliveryClaim(
        tenant_id=row["tenant_id"],
        event_id=row["event_id"],
        endpoint_id=row["endpoint_id"],
        lease=row["lease"],
        attempt=row["attempt"],
        give_up_at=row["give_up_at"],
        url=row["url"],
        payload=row["payload"],
        sealed_secrets=tuple(secrets),
        failing_since=row["failing_since"],
        trace_parent=row["trace_parent"],
    )
