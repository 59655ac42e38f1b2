"""Webhooks over a whole deployment, from the SDK and the command to a receiver that checks signatures."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Iterator

import psutil
import pytest
import pytest_asyncio

from memoro import (
    AsyncClient,
    Client,
    DeliveryState,
    InvalidArgument,
    NotFound,
    WebhookDelivery,
    WebhookEndpointState,
    WebhookEventType,
)
from tests.fakes.webhook_receiver import Answer, Receiver
from tests.support.dev import Dev, running_dev

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def hooked() -> Iterator[Dev]:
    """A deployment that may send to this machine, with a key to seal secrets."""
    key = "a key of at least thirty-two characters"
    with running_dev({"MEMORO_WEBHOOK_ALLOW_PRIVATE": "true", "MEMORO_SECRET_KEY": key}) as running:
        yield running


@pytest_asyncio.fixture
async def client(hooked: Dev) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(hooked.endpoint, api_key=hooked.api_key) as connected:
        yield connected
        async for endpoint in connected.webhooks.list():
            await connected.webhooks.delete(endpoint.id)


@pytest_asyncio.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as listening:
        yield listening


async def delivery_in(client: AsyncClient, state: DeliveryState, *, seconds: float = 20.0) -> WebhookDelivery:
    """The latest delivery, once it is in that state and has been tried."""
    async with asyncio.timeout(seconds):
        while True:
            async for delivery in client.webhooks.deliveries(limit=1):
                if delivery.state is state and (delivery.response_status or delivery.error):
                    return delivery
            await asyncio.sleep(0.05)


async def test_the_end_of_a_job_arrives_once_and_signed(client: AsyncClient, receiver: Receiver) -> None:
    made = await client.webhooks.create(
        receiver.url, event_types=[WebhookEventType.JOB_SUCCEEDED], description="the shop"
    )
    assert made.secret is not None
    assert made.secret not in repr(made)
    receiver.secrets.append(made.secret)
    added = await client.memories.create(user_id="ann", text="Ann moved to Lyon.")
    await added.job.result(timeout=60)
    (event,) = await receiver.wait_for(1)
    delivered = await delivery_in(client, DeliveryState.SUCCEEDED)
    assert (event.body["type"], event.body["data"]["job_id"]) == ("job.succeeded", added.job.id)
    assert event.body["data"]["memory_ids"] == [added.memory.id]
    assert (delivered.event_id, delivered.endpoint_id) == (event.id, made.endpoint.id)
    assert (delivered.event_type, delivered.attempt) == (WebhookEventType.JOB_SUCCEEDED, 1)
    await asyncio.sleep(1.5)
    assert (len(receiver.received), receiver.refused) == (1, 0)

    # Asked for again, it is signed with the new secret and still with the old one.
    rotated = await client.webhooks.rotate(made.endpoint.id)
    assert rotated.secret not in {None, made.secret}
    await client.webhooks.redeliver(event.id, made.endpoint.id)
    _, again = await receiver.wait_for(2)
    assert again.id == event.id
    assert again.verified_by(made.secret)
    assert again.verified_by(rotated.secret or "")


async def test_what_can_not_be(client: AsyncClient, dev: Dev) -> None:
    with pytest.raises(NotFound) as missing:
        await client.webhooks.rotate("0199a0a0-0000-7000-8000-000000000000")
    assert missing.value.reason == "WEBHOOK_NOT_FOUND"
    with pytest.raises(InvalidArgument) as bad:
        await client.webhooks.create("ftp://hooks.example.com/")
    assert (bad.value.reason, bad.value.violations[0].field) == ("URL_NOT_ALLOWED", "url")
    # Elsewhere, where nobody has allowed it, events do not go to this machine.
    async with AsyncClient(dev.endpoint, api_key=dev.api_key) as other:
        for url in ("http://127.0.0.1:9/", "https://127.0.0.1:9/", "https://localhost/", "https://[::1]/"):
            with pytest.raises(InvalidArgument) as refused:
                await other.webhooks.create(url)
            assert refused.value.reason == "URL_NOT_ALLOWED"


async def test_from_the_command_line(hooked: Dev, client: AsyncClient, receiver: Receiver) -> None:
    def memoro(*arguments: str) -> list[dict[str, object]]:
        return [json.loads(line) for line in hooked.memoro("webhooks", *arguments, "--json").splitlines()]

    (made,) = await asyncio.to_thread(memoro, "create", receiver.url, "--event", "job_succeeded")
    endpoint = made["endpoint"]
    assert isinstance(endpoint, dict)
    receiver.secrets.append(str(made["secret"]))
    receiver.script(Answer(410))
    added = await client.memories.create(user_id="ann", text="Ann plays the cello.")
    await added.job.result(timeout=60)
    await delivery_in(client, DeliveryState.FAILED)
    (listed,) = await asyncio.to_thread(memoro, "list")
    assert (listed["id"], listed["state"]) == (endpoint["id"], "DISABLED")
    (failed,) = await asyncio.to_thread(memoro, "deliveries", "--to", str(endpoint["id"]), "--state", "failed")
    assert (failed["response_status"], failed["error"]) == (410, "answered 410")
    await asyncio.to_thread(memoro, "redeliver", str(failed["event_id"]), str(endpoint["id"]))
    await delivery_in(client, DeliveryState.SUCCEEDED)
    (enabled,) = [one async for one in client.webhooks.list()]
    assert enabled.state is WebhookEndpointState.ENABLED
    (rotated,) = await asyncio.to_thread(memoro, "rotate", str(endpoint["id"]))
    assert rotated["secret"] != made["secret"]
    table = await asyncio.to_thread(hooked.memoro, "webhooks", "deliveries")
    assert "JOB_SUCCEEDED" in table
    await asyncio.to_thread(memoro, "delete", str(endpoint["id"]))
    assert await asyncio.to_thread(memoro, "list") == []


def test_the_blocking_client_does_the_same(hooked: Dev) -> None:
    with Client(hooked.endpoint, api_key=hooked.api_key) as client:
        made = client.webhooks.create("http://127.0.0.1:9/", description="nobody")
        assert [endpoint.id for endpoint in client.webhooks.list()] == [made.endpoint.id]
        assert client.webhooks.rotate(made.endpoint.id).endpoint.previous_secret_expire_time is not None
        assert list(client.webhooks.deliveries(endpoint_id=made.endpoint.id)) == []
        client.webhooks.delete(made.endpoint.id)


@pytest.mark.slow
@pytest.mark.chaos
async def test_a_worker_that_is_killed_in_mid_delivery(hooked: Dev, client: AsyncClient, receiver: Receiver) -> None:
    made = await client.webhooks.create(receiver.url)
    receiver.secrets.append(made.secret or "")
    receiver.script(Answer(hang=8.0))
    added = await client.memories.create(user_id="ann", text="Ann lives in Rome.")
    await added.job.result(timeout=60)
    await receiver.wait_for(1)
    for process in psutil.Process(hooked.process.pid).children(recursive=True):
        if any("memoro_worker" in part for part in process.cmdline()):
            process.send_signal(signal.SIGKILL)
    first, second = await receiver.wait_for(2, seconds=60)
    assert first.id == second.id
    done = await delivery_in(client, DeliveryState.SUCCEEDED)
    assert (done.event_id, done.attempt) == (first.id, 2)
