"""Webhook endpoints and deliveries in PostgreSQL."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Final
from uuid import UUID

from memoro_core.idempotency import Idempotency, request_id_reused
from memoro_core.ids import EventId, TenantId, WebhookEndpointId
from memoro_core.postgres.database import Connection, Database, rows_of
from memoro_core.postgres.queries import load_queries
from memoro_core.postgres.webhook_rows import claim_of, delivery_of, endpoint_of
from memoro_core.webhooks.model import (
    DELIVERY_LIFETIME,
    MAX_ENDPOINTS,
    Delivery,
    DeliveryClaim,
    DeliveryFilter,
    DeliveryState,
    Outcome,
    Verdict,
    WebhookEndpoint,
    WebhookEvent,
)
from memoro_core.webhooks.service import delivery_not_found, webhook_limit_reached, webhook_not_found

_SQL: Final = load_queries("webhooks")


class PostgresWebhookStore:
    """A `WebhookStore` and a `DeliveryStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self, tenant_id: TenantId, endpoint: WebhookEndpoint, sealed: bytes, idempotency: Idempotency | None
    ) -> tuple[WebhookEndpoint, bool]:
        async with self._database.tenant_tx(tenant_id) as connection:
            made = await _done_before(connection, tenant_id, idempotency, endpoint.id, endpoint.created_at)
            if made is not None:
                return await _endpoint(connection, tenant_id, WebhookEndpointId(made)), False
            row = await connection.fetchrow(
                _SQL["create_endpoint"],
                tenant_id,
                endpoint.id,
                endpoint.url,
                list(endpoint.event_types),
                endpoint.description,
                endpoint.state,
                sealed,
                endpoint.created_at,
                MAX_ENDPOINTS,
            )
            if row is None:
                raise webhook_limit_reached()
            return endpoint_of(row), True

    async def list_endpoints(
        self, tenant_id: TenantId, *, limit: int, before: WebhookEndpointId | None
    ) -> Sequence[WebhookEndpoint]:
        async with self._database.tenant_tx(tenant_id) as connection:
            rows = await connection.fetch(_SQL["list_endpoints"], tenant_id, before, limit)
        return [endpoint_of(row) for row in rows]

    async def delete(
        self, tenant_id: TenantId, endpoint_id: WebhookEndpointId, idempotency: Idempotency | None, *, now: datetime
    ) -> None:
        async with self._database.tenant_tx(tenant_id) as connection:
            if await _done_before(connection, tenant_id, idempotency, endpoint_id, now) is not None:
                return
            if await connection.fetchval(_SQL["delete_endpoint"], tenant_id, endpoint_id) is None:
                raise webhook_not_found(endpoint_id)

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
        async with self._database.tenant_tx(tenant_id) as connection:
            if await _done_before(connection, tenant_id, idempotency, endpoint_id, now) is not None:
                return await _endpoint(connection, tenant_id, endpoint_id), False
            row = await connection.fetchrow(_SQL["rotate_secret"], tenant_id, endpoint_id, sealed, previous_expires_at)
            if row is None:
                raise webhook_not_found(endpoint_id)
            return endpoint_of(row), True

    async def list_deliveries(
        self,
        tenant_id: TenantId,
        delivery_filter: DeliveryFilter,
        *,
        limit: int,
        before: tuple[EventId, WebhookEndpointId] | None,
    ) -> Sequence[Delivery]:
        async with self._database.tenant_tx(tenant_id) as connection:
            rows = await connection.fetch(
                _SQL["list_deliveries"],
                tenant_id,
                delivery_filter.endpoint_id,
                list(delivery_filter.states),
                delivery_filter.created_from,
                delivery_filter.created_until,
                *(before or (None, None)),
                limit,
            )
        return [delivery_of(row) for row in rows]

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
        async with self._database.tenant_tx(tenant_id) as connection:
            if await _done_before(connection, tenant_id, idempotency, event_id, now) is not None:
                row = await connection.fetchrow(_SQL["get_delivery"], tenant_id, event_id, endpoint_id)
            else:
                row = await connection.fetchrow(_SQL["redeliver"], tenant_id, event_id, endpoint_id, now, give_up_at)
            if row is None:
                raise delivery_not_found(event_id)
            return delivery_of(row)

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
        # What a crash takes back of an attempt is done again, as it would be if the worker itself had crashed.
        async with self._database.system_tx(durable=False) as connection:
            rows = await connection.fetch(
                _SQL["claim_deliveries"],
                now,
                lease_until,
                failing,
                per_endpoint,
                list(running.keys()),
                list(running.values()),
                limit,
            )
        return [claim_of(row, now) for row in rows]

    async def settle(
        self, claim: DeliveryClaim, outcome: Outcome, verdict: Verdict, disabled: WebhookEvent | None, *, now: datetime
    ) -> bool:
        attempt = (claim.tenant_id, claim.event_id, claim.endpoint_id, claim.lease)
        async with self._database.tenant_tx(claim.tenant_id, durable=False) as connection:
            if verdict.state is DeliveryState.SUCCEEDED:
                return await connection.fetchval(_SQL["delivered"], *attempt, outcome.status, now) is not None
            held = await connection.fetchval(
                _SQL["not_delivered"],
                *attempt,
                verdict.state,
                verdict.next_attempt_at,
                outcome.status,
                outcome.error,
                now,
            )
            if held is not None and disabled is not None:
                # It may have recovered since the claim; but one that says that it is gone is gone.
                since = None if outcome.status == HTTPStatus.GONE else claim.failing_since
                if await connection.fetchval(_SQL["disable"], claim.tenant_id, claim.endpoint_id, now, since):
                    await announce_in(connection, claim.tenant_id, [disabled], now=now)
        return held is not None

    async def prune(self, *, ended_before: datetime, limit: int) -> int:
        async with self._database.system_tx(durable=False) as connection:
            return rows_of(await connection.execute(_SQL["prune_deliveries"], ended_before, limit))


async def announce_in(
    connection: Connection, tenant_id: TenantId, events: Sequence[WebhookEvent], *, now: datetime
) -> None:
    """Puts events into the outbox, for each endpoint that wants to know of them, within a transaction of its tenant."""
    announced = [{"id": event.id, "type": event.type, "payload": event.payload} for event in events]
    await connection.execute(_SQL["announce"], tenant_id, announced, now, now + DELIVERY_LIFETIME)


async def _endpoint(connection: Connection, tenant_id: TenantId, endpoint_id: WebhookEndpointId) -> WebhookEndpoint:
    row = await connection.fetchrow(_SQL["get_endpoint"], tenant_id, endpoint_id)
    if row is None:
        raise webhook_not_found(endpoint_id)
    return endpoint_of(row)


async def _done_before(
    connection: Connection, tenant_id: TenantId, idempotency: Idempotency | None, made: UUID, now: datetime
) -> UUID | None:
    """The id that the request made before; None when it is new, and now remembered. Raises REQUEST_ID_REUSED."""
    if idempotency is None:
        return None
    record = (tenant_id, idempotency.request_id, idempotency.fingerprint, {"id": str(made)}, now)
    if await connection.fetchval(_SQL["record_webhook_request"], *record) is not None:
        return None
    row = (await connection.fetch(_SQL["find_webhook_request"], tenant_id, idempotency.request_id))[0]
    if not hmac.compare_digest(row["fingerprint"], idempotency.fingerprint):
        raise request_id_reused(idempotency.request_id)
    return UUID(row["answer"]["id"])
