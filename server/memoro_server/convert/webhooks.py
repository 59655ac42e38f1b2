"""Webhook endpoints and deliveries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from memoro.v1 import webhooks_pb2, webhooks_service_pb2
from memoro_core.ids import WebhookEndpointId
from memoro_core.webhooks.model import (
    Delivery,
    DeliveryFilter,
    DeliveryState,
    WebhookEndpoint,
    WebhookEndpointState,
    WebhookEventType,
)
from memoro_server.convert.scalars import enum_members, enum_numbers, from_time, from_time_or_none, to_id, to_time

EVENT_TYPES: Final = enum_numbers(WebhookEventType, webhooks_pb2.WebhookEventType, "WEBHOOK_EVENT_TYPE_")
ENDPOINT_STATES: Final = enum_numbers(
    WebhookEndpointState, webhooks_pb2.WebhookEndpointState, "WEBHOOK_ENDPOINT_STATE_"
)
DELIVERY_STATES: Final = enum_numbers(DeliveryState, webhooks_pb2.DeliveryState, "DELIVERY_STATE_")
_EVENT_TYPE_OF: Final = enum_members(EVENT_TYPES)
_DELIVERY_STATE_OF: Final = enum_members(DELIVERY_STATES)


def to_event_types(numbers: Sequence[int]) -> Sequence[WebhookEventType]:
    """What an endpoint is told of; empty: every type."""
    return tuple(_EVENT_TYPE_OF[number] for number in numbers)


def to_delivery_filter(request: webhooks_service_pb2.ListDeliveriesRequest) -> DeliveryFilter:
    """Which deliveries a list asks for."""
    endpoint = request.endpoint_id
    return DeliveryFilter(
        endpoint_id=WebhookEndpointId(to_id(endpoint, "endpoint_id")) if endpoint else None,
        # UNSPECIFIED among the values asks for every one.
        states=() if 0 in request.states else tuple(_DELIVERY_STATE_OF[number] for number in request.states),
        created_from=to_time(request, "created_from"),
        created_until=to_time(request, "created_until"),
    )


def from_endpoint(endpoint: WebhookEndpoint) -> webhooks_pb2.WebhookEndpoint:
    """An endpoint as callers see it, without its secret."""
    return webhooks_pb2.WebhookEndpoint(
        id=str(endpoint.id),
        url=endpoint.url,
        event_types=[EVENT_TYPES[kind] for kind in endpoint.event_types],
        description=endpoint.description,
        state=ENDPOINT_STATES[endpoint.state],
        previous_secret_expire_time=from_time_or_none(endpoint.previous_secret_expires_at),
        failing_since=from_time_or_none(endpoint.failing_since),
        disable_time=from_time_or_none(endpoint.disabled_at),
        create_time=from_time(endpoint.created_at),
    )


def from_delivery(delivery: Delivery) -> webhooks_pb2.WebhookDelivery:
    """A delivery as callers see it."""
    return webhooks_pb2.WebhookDelivery(
        event_id=str(delivery.event_id),
        endpoint_id=str(delivery.endpoint_id),
        event_type=EVENT_TYPES[delivery.event_type],
        state=DELIVERY_STATES[delivery.state],
        attempt=delivery.attempt,
        response_status=delivery.response_status,
        error=delivery.error,
        create_time=from_time(delivery.created_at),
        attempt_time=from_time_or_none(delivery.attempted_at),
        next_attempt_time=from_time_or_none(delivery.next_attempt_at),
        end_time=from_time_or_none(delivery.ended_at),
    )
