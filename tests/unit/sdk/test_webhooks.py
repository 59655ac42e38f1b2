"""Webhooks in the SDK."""

from __future__ import annotations

from datetime import UTC, datetime

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from memoro import (
    AsyncClient,
    Client,
    DeliveryState,
    InvalidArgument,
    Unavailable,
    WebhookEndpointState,
    WebhookEventType,
)
from memoro.v1 import webhooks_pb2 as pb
from memoro.v1 import webhooks_service_pb2 as service
from tests.support.scripted_server import Failure, ScriptedServer

NOON = datetime(2025, 3, 4, 12, tzinfo=UTC)
STAMP = Timestamp(seconds=int(NOON.timestamp()))
ENDPOINT = pb.WebhookEndpoint(
    id="w1",
    url="https://hooks.example.com/",
    event_types=[pb.WEBHOOK_EVENT_TYPE_JOB_FAILED, 99],  # type: ignore[list-item] # newer than this SDK
    state=pb.WEBHOOK_ENDPOINT_STATE_ENABLED,
    create_time=STAMP,
)
DELIVERY = pb.WebhookDelivery(
    event_id="e1",
    endpoint_id="w1",
    event_type=pb.WEBHOOK_EVENT_TYPE_JOB_FAILED,
    state=pb.DELIVERY_STATE_PENDING,
    attempt=2,
    response_status=503,
    error="answered 503",
    create_time=STAMP,
    next_attempt_time=STAMP,
)


async def test_create_sends_everything_and_shows_the_secret(server: ScriptedServer, client: AsyncClient) -> None:
    server.script("CreateWebhookEndpoint", service.CreateWebhookEndpointResponse(endpoint=ENDPOINT, secret="whsec_x"))
    made = await client.webhooks.create(
        "https://hooks.example.com/", event_types=[WebhookEventType.JOB_FAILED], description="shop", request_id="r1"
    )
    assert server.requests("CreateWebhookEndpoint") == [
        service.CreateWebhookEndpointRequest(
            request_id="r1",
            url="https://hooks.example.com/",
            event_types=[pb.WEBHOOK_EVENT_TYPE_JOB_FAILED],
            description="shop",
        )
    ]
    assert made.secret == "whsec_x"
    assert "whsec_x" not in repr(made)
    assert made.endpoint.state is WebhookEndpointState.ENABLED
    assert made.endpoint.event_types == (WebhookEventType.JOB_FAILED, WebhookEventType.UNKNOWN)
    assert made.endpoint.create_time == NOON
    assert made.endpoint.failing_since is None


async def test_what_shows_a_secret_is_not_repeated(server: ScriptedServer, client: AsyncClient) -> None:
    down = Failure(grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING")
    server.script("CreateWebhookEndpoint", down)
    server.script("RotateWebhookSecret", down)
    with pytest.raises(Unavailable):
        await client.webhooks.create("https://hooks.example.com/")
    with pytest.raises(Unavailable):
        await client.webhooks.rotate("w1")
    assert [call.method for call in server.calls] == ["CreateWebhookEndpoint", "RotateWebhookSecret"]


async def test_a_repeated_create_has_no_secret(server: ScriptedServer, client: AsyncClient) -> None:
    server.script("CreateWebhookEndpoint", service.CreateWebhookEndpointResponse(endpoint=ENDPOINT))
    assert (await client.webhooks.create("https://hooks.example.com/")).secret is None


async def test_deliveries_by_filter(server: ScriptedServer, client: AsyncClient) -> None:
    server.script("ListDeliveries", service.ListDeliveriesResponse(deliveries=[DELIVERY]))
    found = client.webhooks.deliveries(endpoint_id="w1", states=[DeliveryState.PENDING], created_from=NOON, limit=5)
    (one,) = [delivery async for delivery in found]
    assert server.requests("ListDeliveries") == [
        service.ListDeliveriesRequest(
            endpoint_id="w1", states=[pb.DELIVERY_STATE_PENDING], created_from=STAMP, page_size=5
        )
    ]
    assert (one.state, one.attempt, one.response_status) == (DeliveryState.PENDING, 2, 503)
    assert (one.next_attempt_time, one.end_time) == (NOON, None)


def test_the_blocking_client(server: ScriptedServer, blocking_client: Client) -> None:
    refused = Failure(grpc.StatusCode.INVALID_ARGUMENT, "URL_NOT_ALLOWED", violations={"url": "leads to a private"})
    server.script("CreateWebhookEndpoint", refused)
    with pytest.raises(InvalidArgument) as caught:
        blocking_client.webhooks.create("https://10.0.0.1/")
    assert caught.value.violations[0].field == "url"
    server.script("ListWebhookEndpoints", service.ListWebhookEndpointsResponse(endpoints=[ENDPOINT]))
    assert [one.id for one in blocking_client.webhooks.list()] == ["w1"]
    server.script("RedeliverEvent", service.RedeliverEventResponse(delivery=DELIVERY))
    assert blocking_client.webhooks.redeliver("e1", "w1").event_id == "e1"
    server.script("DeleteWebhookEndpoint", service.DeleteWebhookEndpointResponse())
    blocking_client.webhooks.delete("w1")
    assert server.requests("DeleteWebhookEndpoint")[0].endpoint_id == "w1"
