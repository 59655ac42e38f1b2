"""WebhooksService."""

from __future__ import annotations

from memoro.v1 import webhooks_service_pb2 as pb
from memoro_core.ids import EventId, WebhookEndpointId
from memoro_core.webhooks.service import WebhooksService
from memoro_server.call import Call
from memoro_server.convert.idempotency import idempotency_of
from memoro_server.convert.pages import PageSpot
from memoro_server.convert.scalars import to_id
from memoro_server.convert.webhooks import from_delivery, from_endpoint, to_delivery_filter, to_event_types


class WebhooksServicer:
    """The calls of WebhooksService."""

    def __init__(self, webhooks: WebhooksService) -> None:
        self._webhooks = webhooks

    async def CreateWebhookEndpoint(
        self, request: pb.CreateWebhookEndpointRequest, call: Call
    ) -> pb.CreateWebhookEndpointResponse:
        endpoint, secret = await self._webhooks.create(
            call.tenant_id,
            request.url,
            to_event_types(request.event_types),
            request.description,
            idempotency=idempotency_of(call.method.path, request),
        )
        return pb.CreateWebhookEndpointResponse(endpoint=from_endpoint(endpoint), secret=secret)

    async def ListWebhookEndpoints(
        self, request: pb.ListWebhookEndpointsRequest, call: Call
    ) -> pb.ListWebhookEndpointsResponse:
        spot = PageSpot(request, call)
        page = await self._webhooks.list_endpoints(call.tenant_id, size=spot.size, position=spot.position)
        return pb.ListWebhookEndpointsResponse(
            endpoints=[from_endpoint(endpoint) for endpoint in page.items],
            next_page_token=spot.token(page.next_position),
        )

    async def DeleteWebhookEndpoint(
        self, request: pb.DeleteWebhookEndpointRequest, call: Call
    ) -> pb.DeleteWebhookEndpointResponse:
        await self._webhooks.delete(
            call.tenant_id, _endpoint_id(request), idempotency=idempotency_of(call.method.path, request)
        )
        return pb.DeleteWebhookEndpointResponse()

    async def RotateWebhookSecret(
        self, request: pb.RotateWebhookSecretRequest, call: Call
    ) -> pb.RotateWebhookSecretResponse:
        endpoint, secret = await self._webhooks.rotate(
            call.tenant_id, _endpoint_id(request), idempotency=idempotency_of(call.method.path, request)
        )
        return pb.RotateWebhookSecretResponse(endpoint=from_endpoint(endpoint), secret=secret)

    async def ListDeliveries(self, request: pb.ListDeliveriesRequest, call: Call) -> pb.ListDeliveriesResponse:
        spot = PageSpot(request, call)
        page = await self._webhooks.list_deliveries(
            call.tenant_id, to_delivery_filter(request), size=spot.size, position=spot.position
        )
        return pb.ListDeliveriesResponse(
            deliveries=[from_delivery(delivery) for delivery in page.items],
            next_page_token=spot.token(page.next_position),
        )

    async def RedeliverEvent(self, request: pb.RedeliverEventRequest, call: Call) -> pb.RedeliverEventResponse:
        delivery = await self._webhooks.redeliver(
            call.tenant_id,
            EventId(to_id(request.event_id, "event_id")),
            _endpoint_id(request),
            idempotency=idempotency_of(call.method.path, request),
        )
        return pb.RedeliverEventResponse(delivery=from_delivery(delivery))


def _endpoint_id(
    request: pb.DeleteWebhookEndpointRequest | pb.RotateWebhookSecretRequest | pb.RedeliverEventRequest,
) -> WebhookEndpointId:
    return WebhookEndpointId(to_id(request.endpoint_id, "endpoint_id"))
