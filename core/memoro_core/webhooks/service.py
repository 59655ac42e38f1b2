"""What callers do with webhooks."""

from __future__ import annotations

from collections.abc import Sequence

from memoro_core.clock import Clock
from memoro_core.errors import Code, MemoroError, Reason, not_found
from memoro_core.idempotency import Idempotency
from memoro_core.ids import EventId, TenantId, WebhookEndpointId, new_id
from memoro_core.paging import Page, cut, identifier
from memoro_core.webhooks.addresses import parse_target
from memoro_core.webhooks.model import (
    DELIVERY_LIFETIME,
    MAX_ENDPOINTS,
    SECRET_OVERLAP,
    Delivery,
    DeliveryFilter,
    WebhookEndpoint,
    WebhookEndpointState,
    WebhookEventType,
)
from memoro_core.webhooks.ports import WebhookStore
from memoro_core.webhooks.secrets import SecretSeal, new_secret


class WebhooksService:
    """Endpoints of a tenant and what was sent to them. Every method raises UNAVAILABLE when the database is away."""

    def __init__(self, store: WebhookStore, seal: SecretSeal, clock: Clock, *, allow_private: bool) -> None:
        self._store = store
        self._seal = seal
        self._clock = clock
        self._allow_private = allow_private

    async def create(
        self,
        tenant_id: TenantId,
        url: str,
        event_types: Sequence[WebhookEventType],
        description: str,
        *,
        idempotency: Idempotency | None = None,
    ) -> tuple[WebhookEndpoint, str]:
        """A new endpoint with its secret, which is told only here: empty for a repeated request.

        Raises URL_NOT_ALLOWED, WEBHOOK_LIMIT_REACHED, REQUEST_ID_REUSED.
        """
        parse_target(url, allow_private=self._allow_private)
        endpoint = WebhookEndpoint(
            id=WebhookEndpointId(new_id()),
            url=url,
            event_types=tuple(event_types),
            description=description,
            state=WebhookEndpointState.ENABLED,
            created_at=self._clock.now(),
        )
        secret = new_secret()
        sealed = self._seal.seal(tenant_id, endpoint.id, secret)
        stored, made_now = await self._store.create(tenant_id, endpoint, sealed, idempotency)
        return stored, secret if made_now else ""

    async def list_endpoints(
        self, tenant_id: TenantId, *, size: int, position: tuple[str, ...] | None
    ) -> Page[WebhookEndpoint]:
        """Endpoints, newest first."""
        before = WebhookEndpointId(identifier(position)) if position else None
        rows = await self._store.list_endpoints(tenant_id, limit=size + 1, before=before)
        return cut(rows, size, (str(rows[size - 1].id),) if len(rows) > size else None)

    async def delete(
        self, tenant_id: TenantId, endpoint_id: WebhookEndpointId, *, idempotency: Idempotency | None = None
    ) -> None:
        """Removes an endpoint with its deliveries. Raises WEBHOOK_NOT_FOUND, REQUEST_ID_REUSED."""
        await self._store.delete(tenant_id, endpoint_id, idempotency, now=self._clock.now())

    async def rotate(
        self, tenant_id: TenantId, endpoint_id: WebhookEndpointId, *, idempotency: Idempotency | None = None
    ) -> tuple[WebhookEndpoint, str]:
        """The endpoint with a new secret, which is told only here: empty for a repeated request.

        Raises WEBHOOK_NOT_FOUND, REQUEST_ID_REUSED.
        """
        now = self._clock.now()
        secret = new_secret()
        endpoint, made_now = await self._store.rotate(
            tenant_id,
            endpoint_id,
            self._seal.seal(tenant_id, endpoint_id, secret),
            idempotency,
            now=now,
            previous_expires_at=now + SECRET_OVERLAP,
        )
        return endpoint, secret if made_now else ""

    async def list_deliveries(
        self, tenant_id: TenantId, delivery_filter: DeliveryFilter, *, size: int, position: tuple[str, ...] | None
    ) -> Page[Delivery]:
        """Deliveries that fit, newest event first."""
        before = (EventId(identifier(position)), WebhookEndpointId(identifier(position, 1))) if position else None
        rows = await self._store.list_deliveries(tenant_id, delivery_filter, limit=size + 1, before=before)
        last = rows[size - 1] if len(rows) > size else None
        return cut(rows, size, (str(last.event_id), str(last.endpoint_id)) if last else None)

    async def redeliver(
        self,
        tenant_id: TenantId,
        event_id: EventId,
        endpoint_id: WebhookEndpointId,
        *,
        idempotency: Idempotency | None = None,
    ) -> Delivery:
        """Sends an event to an endpoint anew. Raises DELIVERY_NOT_FOUND, REQUEST_ID_REUSED."""
        now = self._clock.now()
        return await self._store.redeliver(
            tenant_id, event_id, endpoint_id, idempotency, now=now, give_up_at=now + DELIVERY_LIFETIME
        )


def webhook_not_found(endpoint_id: WebhookEndpointId) -> MemoroError:
    """NOT_FOUND / WEBHOOK_NOT_FOUND."""
    return not_found(Reason.WEBHOOK_NOT_FOUND, "webhook endpoint", endpoint_id)


def delivery_not_found(event_id: EventId) -> MemoroError:
    """NOT_FOUND / DELIVERY_NOT_FOUND."""
    return not_found(Reason.DELIVERY_NOT_FOUND, "delivery of event", event_id)


def webhook_limit_reached() -> MemoroError:
    """FAILED_PRECONDITION / WEBHOOK_LIMIT_REACHED."""
    return MemoroError(
        Code.FAILED_PRECONDITION,
        Reason.WEBHOOK_LIMIT_REACHED,
        f"the tenant has {MAX_ENDPOINTS} webhook endpoints, which is the most it can have",
        metadata={"limit": str(MAX_ENDPOINTS)},
    )
