"""What webhooks need from the outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from memoro_core.idempotency import Idempotency
from memoro_core.ids import EventId, TenantId, WebhookEndpointId
from memoro_core.webhooks.model import (
    Delivery,
    DeliveryClaim,
    DeliveryFilter,
    Outcome,
    Verdict,
    WebhookEndpoint,
    WebhookEvent,
)


class WebhookStore(Protocol):
    """Endpoints and deliveries of tenants. A request that was done before writes nothing; another payload under its id
    raises REQUEST_ID_REUSED.
    """

    async def create(
        self, tenant_id: TenantId, endpoint: WebhookEndpoint, sealed: bytes, idempotency: Idempotency | None
    ) -> tuple[WebhookEndpoint, bool]:
        """The endpoint, and whether it was made now. Raises WEBHOOK_LIMIT_REACHED, and WEBHOOK_NOT_FOUND when what the
        request made before is gone.
        """
        ...

    async def list_endpoints(
        self, tenant_id: TenantId, *, limit: int, before: WebhookEndpointId | None
    ) -> Sequence[WebhookEndpoint]:
        """Endpoints newest first, at most `limit`, older than `before`."""
        ...

    async def delete(
        self, tenant_id: TenantId, endpoint_id: WebhookEndpointId, idempotency: Idempotency | None, *, now: datetime
    ) -> None:
        """Removes the endpoint with its deliveries. Raises WEBHOOK_NOT_FOUND."""
        ...

    async def rotate(
        self,
        tenant_id: TenantId,
        endpoint_id: WebhookEndpointId,
        sealed: bytes,
        idempotency: Idempotency | None,
        *,
        now: datetime,
        previous_expires_at: datetime,
    ) -> tuple[WebhookEndpoint, bool]:
        """The endpoint, and whether it has this new secret. Raises WEBHOOK_NOT_FOUND."""
        ...

    async def list_deliveries(
        self,
        tenant_id: TenantId,
        delivery_filter: DeliveryFilter,
        *,
        limit: int,
        before: tuple[EventId, WebhookEndpointId] | None,
    ) -> Sequence[Delivery]:
        """Deliveries newest event first, at most `limit`, older than `before`."""
        ...

    async def redeliver(
        self,
        tenant_id: TenantId,
        event_id: EventId,
        endpoint_id: WebhookEndpointId,
        idempotency: Idempotency | None,
        *,
        now: datetime,
        give_up_at: datetime,
    ) -> Delivery:
        """The delivery, PENDING, due and with its attempts ahead of it. Raises DELIVERY_NOT_FOUND."""
        ...


class DeliveryStore(Protocol):
    """What the sender works off, over all tenants."""

    async def claim(
        self,
        *,
        failing: bool,
        running: Mapping[WebhookEndpointId, int],
        per_endpoint: int,
        limit: int,
        now: datetime,
        lease_until: datetime,
    ) -> Sequence[DeliveryClaim]:
        """Takes deliveries that are due, the longest due first, at most `limit`, and at most `per_endpoint` of each
        endpoint, those that `running` counts included; only of endpoints that are failing, or of those that are not.
        """
        ...

    async def settle(
        self, claim: DeliveryClaim, outcome: Outcome, verdict: Verdict, disabled: WebhookEvent | None, *, now: datetime
    ) -> bool:
        """Records what came of an attempt; whether the claim still held.

        `disabled` goes to the tenant's other endpoints if this one is disabled now.
        """
        ...

    async def prune(self, *, ended_before: datetime, limit: int) -> int:
        """Removes deliveries that ended before that time, and those without an endpoint; how many."""
        ...


class WebhookSender(Protocol):
    """Posts events."""

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        """What came of it. Never raises for what the other side does or fails to do."""
        ...
