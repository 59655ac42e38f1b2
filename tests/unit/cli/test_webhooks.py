"""`memoro webhooks`."""

from __future__ import annotations

from memoro.v1 import webhooks_pb2 as pb
from memoro.v1 import webhooks_service_pb2 as service
from tests.unit.cli.conftest import CommandLine

ENDPOINT = pb.WebhookEndpoint(id="w1", url="https://hooks.example.com/", state=pb.WEBHOOK_ENDPOINT_STATE_DISABLED)
DELIVERY = pb.WebhookDelivery(event_id="e1", endpoint_id="w1", state=pb.DELIVERY_STATE_FAILED, error="answered 410")


def test_create_shows_the_secret(memoro: CommandLine) -> None:
    made = service.CreateWebhookEndpointResponse(endpoint=ENDPOINT, secret="whsec_x")
    memoro.server.script("CreateWebhookEndpoint", made, made)
    shown = memoro(
        "webhooks", "create", "https://hooks.example.com/", "--event", "job_failed", "--event", "JOB_CANCELLED"
    )
    assert shown.stdout.splitlines() == ["endpoint w1", "secret: whsec_x"]
    (request,) = memoro.server.requests("CreateWebhookEndpoint")
    assert list(request.event_types) == [pb.WEBHOOK_EVENT_TYPE_JOB_FAILED, pb.WEBHOOK_EVENT_TYPE_JOB_CANCELLED]
    (line,) = memoro.json("webhooks", "create", "https://hooks.example.com/")
    assert (line["endpoint"]["id"], line["secret"]) == ("w1", "whsec_x")
    memoro("webhooks", "create", "https://hooks.example.com/", "--event", "nonsense", code=2)


def test_rotate_delete_and_redeliver(memoro: CommandLine) -> None:
    memoro.server.script(
        "RotateWebhookSecret", service.RotateWebhookSecretResponse(endpoint=ENDPOINT, secret="whsec_y")
    )
    assert "whsec_y" in memoro("webhooks", "rotate", "w1").stdout
    memoro.server.script("DeleteWebhookEndpoint", service.DeleteWebhookEndpointResponse())
    assert memoro("webhooks", "delete", "w1").stdout == "endpoint w1 is deleted\n"
    memoro.server.script("RedeliverEvent", service.RedeliverEventResponse(delivery=DELIVERY))
    assert "e1" in memoro("webhooks", "redeliver", "e1", "w1").stdout
    (request,) = memoro.server.requests("RedeliverEvent")
    assert (request.event_id, request.endpoint_id) == ("e1", "w1")


def test_lists(memoro: CommandLine) -> None:
    memoro.server.script("ListWebhookEndpoints", service.ListWebhookEndpointsResponse(endpoints=[ENDPOINT]))
    assert "DISABLED" in memoro("webhooks", "list").stdout
    memoro.server.script("ListDeliveries", service.ListDeliveriesResponse(deliveries=[DELIVERY]))
    shown = memoro("webhooks", "deliveries", "--to", "w1", "--state", "failed", "--since", "2025-03-04T12:00:00")
    assert "answered 410" in shown.stdout
    (request,) = memoro.server.requests("ListDeliveries")
    assert (request.endpoint_id, list(request.states)) == ("w1", [pb.DELIVERY_STATE_FAILED])
    assert request.created_from.seconds == 1741089600
