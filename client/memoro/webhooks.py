"""Webhooks: URLs that are told of the tenant's events, and what was sent to them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from datetime import datetime

from memoro import convert, methods, paging, requests, wire
from memoro.enums import DeliveryState, WebhookEventType
from memoro.transport import Transport
from memoro.types import NewWebhookSecret, WebhookDelivery, WebhookEndpoint
from memoro.v1 import webhooks_service_pb2


class AsyncWebhooks:
    """The tenant's webhook endpoints and their deliveries."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def create(
        self,
        url: str,
        *,
        event_types: Iterable[WebhookEventType] = (),
        description: str = "",
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> NewWebhookSecret:
        """Creates an endpoint and shows its secret, this once. No `event_types` are all, also those to come.

        Raises InvalidArgument for a URL that is not allowed, and FailedPrecondition for one endpoint too many.
        """
        request = webhooks_service_pb2.CreateWebhookEndpointRequest(
            request_id=requests.request_id_or_new(request_id),
            url=url,
            event_types=[wire.enum_number(WebhookEventType, kind) for kind in event_types],
            description=description,
        )
        response = await self._transport.unary(methods.CREATE_WEBHOOK_ENDPOINT, request, timeout)
        return NewWebhookSecret(convert.webhook_endpoint(response.endpoint), response.secret or None)

    def list(self, *, limit: int | None = None, timeout: float | None = None) -> AsyncGenerator[WebhookEndpoint, None]:
        """Endpoints, newest first."""
        return paging.items(
            self._transport,
            methods.LIST_WEBHOOK_ENDPOINTS,
            webhooks_service_pb2.ListWebhookEndpointsRequest(),
            lambda response: response.endpoints,
            convert.webhook_endpoint,
            limit=limit,
            timeout=timeout,
        )

    async def delete(self, endpoint_id: str, *, request_id: str | None = None, timeout: float | None = None) -> None:
        """Deletes an endpoint with its deliveries. Raises NotFound."""
        request = webhooks_service_pb2.DeleteWebhookEndpointRequest(
            request_id=requests.request_id_or_new(request_id), endpoint_id=endpoint_id
        )
        await self._transport.unary(methods.DELETE_WEBHOOK_ENDPOINT, request, timeout)

    async def rotate(
        self, endpoint_id: str, *, request_id: str | None = None, timeout: float | None = None
    ) -> NewWebhookSecret:
        """Makes a new secret and shows it, this once; the old one signs beside it for 24 hours. Raises NotFound."""
        request = webhooks_service_pb2.RotateWebhookSecretRequest(
            request_id=requests.request_id_or_new(request_id), endpoint_id=endpoint_id
        )
        response = await self._transport.unary(methods.ROTATE_WEBHOOK_SECRET, request, timeout)
        return NewWebhookSecret(convert.webhook_endpoint(response.endpoint), response.secret or None)

    def deliveries(
        self,
        *,
        endpoint_id: str = "",
        states: Iterable[DeliveryState] = (),
        created_from: datetime | None = None,
        created_until: datetime | None = None,
        limit: int | None = None,
        timeout: float | None = None,
    ) -> AsyncGenerator[WebhookDelivery, None]:
        """What was sent and is to be sent, newest event first; the times are those of the events."""
        request = webhooks_service_pb2.ListDeliveriesRequest(
            endpoint_id=endpoint_id,
            states=[wire.enum_number(DeliveryState, state) for state in states],
            created_from=wire.timestamp("created_from", created_from),
            created_until=wire.timestamp("created_until", created_until),
        )
        return paging.items(
            self._transport,
            methods.LIST_DELIVERIES,
            request,
            lambda response: response.deliveries,
            convert.webhook_delivery,
            limit=limit,
            timeout=timeout,
        )

    async def redeliver(
        self, event_id: str, endpoint_id: str, *, request_id: str | None = None, timeout: float | None = None
    ) -> WebhookDelivery:
        """Sends an event to an endpoint anew, at once and for another day. Raises NotFound."""
        request = webhooks_service_pb2.RedeliverEventRequest(
            request_id=requests.request_id_or_new(request_id), event_id=event_id, endpoint_id=endpoint_id
        )
        return convert.webhook_delivery(
            (await self._transport.unary(methods.REDELIVER_EVENT, request, timeout)).delivery
        )
