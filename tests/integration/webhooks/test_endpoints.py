"""Endpoints, as callers make and change them."""

from __future__ import annotations

import pytest

from memoro_core.errors import MemoroError
from memoro_core.idempotency import Idempotency
from memoro_core.ids import EventId, WebhookEndpointId, new_id
from memoro_core.webhooks.model import MAX_ENDPOINTS, DeliveryFilter, DeliveryState, WebhookEndpointState
from tests.fakes.webhook_receiver import Receiver
from tests.integration.webhooks.conftest import SEAL, Delivering, Webhooks
from tests.support.jobs import now

URL = "https://hooks.invalid/"


def request(name: str, payload: bytes = b"p") -> Idempotency:
    return Idempotency(name, payload.ljust(32))


async def test_a_request_that_comes_again_makes_nothing_and_tells_no_secret(webhooks: Webhooks) -> None:
    tenant = webhooks.domain.tenant
    made, secret = await webhooks.service.create(tenant, URL, (), "d", idempotency=request("a"))
    assert secret.startswith("whsec_")
    assert await webhooks.service.create(tenant, URL, (), "d", idempotency=request("a")) == (made, "")
    with pytest.raises(MemoroError) as caught:
        await webhooks.service.create(tenant, URL, (), "other", idempotency=request("a", b"q"))
    assert caught.value.reason == "REQUEST_ID_REUSED"
    assert list(await webhooks.endpoints()) == [made.id]

    rotated, new = await webhooks.service.rotate(tenant, made.id, idempotency=request("b"))
    assert new not in {"", secret}
    assert await webhooks.service.rotate(tenant, made.id, idempotency=request("b")) == (rotated, "")

    for _ in range(2):
        await webhooks.service.delete(tenant, made.id, idempotency=request("c"))
    assert not await webhooks.endpoints()
    with pytest.raises(MemoroError) as caught:
        await webhooks.service.create(tenant, URL, (), "d", idempotency=request("a"))
    assert caught.value.reason == "WEBHOOK_NOT_FOUND"


async def test_a_request_that_failed_may_come_again(webhooks: Webhooks) -> None:
    missing = WebhookEndpointId(new_id())
    for _ in range(2):
        with pytest.raises(MemoroError) as caught:
            await webhooks.service.rotate(webhooks.domain.tenant, missing, idempotency=request("a"))
        assert caught.value.reason == "WEBHOOK_NOT_FOUND"


async def test_the_secret_is_not_in_the_database_in_the_clear(webhooks: Webhooks) -> None:
    made, secret = await webhooks.service.create(webhooks.domain.tenant, URL, (), "")
    async with webhooks.domain.database.tenant_tx(webhooks.domain.tenant) as connection:
        stored = await connection.fetchval("SELECT secret FROM webhook_endpoints")
    assert secret.encode() not in stored
    assert SEAL.open(webhooks.domain.tenant, made.id, stored) == secret


async def test_there_is_a_limit(webhooks: Webhooks) -> None:
    tenant = webhooks.domain.tenant
    made = [(await webhooks.service.create(tenant, URL, (), ""))[0] for _ in range(MAX_ENDPOINTS)]
    with pytest.raises(MemoroError) as caught:
        await webhooks.service.create(tenant, URL, (), "", idempotency=request("a"))
    assert (caught.value.reason, caught.value.metadata) == ("WEBHOOK_LIMIT_REACHED", {"limit": "50"})
    await webhooks.service.delete(tenant, made[-1].id)
    await webhooks.service.create(tenant, URL, (), "", idempotency=request("a"))


async def test_lists_go_on_from_page_to_page(webhooks: Webhooks) -> None:
    tenant = webhooks.domain.tenant
    made = [(await webhooks.service.create(tenant, URL, (), ""))[0].id for _ in range(3)]
    for _ in range(2):
        await webhooks.ended_job()
    first = await webhooks.service.list_endpoints(tenant, size=2, position=None)
    second = await webhooks.service.list_endpoints(tenant, size=2, position=first.next_position)
    assert [endpoint.id for endpoint in (*first.items, *second.items)] == made[::-1]
    assert second.next_position is None

    found, position = [], None
    while True:
        page = await webhooks.service.list_deliveries(tenant, DeliveryFilter(), size=4, position=position)
        found += [(one.event_id, one.endpoint_id) for one in page.items]
        if (position := page.next_position) is None:
            break
    assert found == sorted(found, reverse=True)
    assert len(set(found)) == 6


async def test_deliveries_by_endpoint_state_and_time(
    webhooks: Webhooks, receiver: Receiver, delivering: Delivering
) -> None:
    begin = now()
    endpoint = await webhooks.endpoint(receiver)
    await webhooks.ended_job()
    async with delivering():
        await webhooks.settled(DeliveryState.SUCCEEDED)
    middle = now()
    other, _ = await webhooks.service.create(webhooks.domain.tenant, "http://127.0.0.1:1/", (), "")
    await webhooks.ended_job()

    async def count(**conditions: object) -> int:
        wanted = DeliveryFilter(**conditions)  # type: ignore[arg-type]
        page = await webhooks.service.list_deliveries(webhooks.domain.tenant, wanted, size=10, position=None)
        return len(page.items)

    assert await count() == 3
    assert await count(endpoint_id=endpoint.id) == 2
    assert await count(endpoint_id=other.id) == 1
    assert await count(states=(DeliveryState.SUCCEEDED,)) == 1
    assert await count(states=(DeliveryState.SUCCEEDED, DeliveryState.PENDING)) == 3
    assert await count(created_from=begin, created_until=middle) == 1
    assert await count(created_from=middle) == 2


async def test_an_event_is_sent_anew_as_often_as_asked(
    webhooks: Webhooks, receiver: Receiver, delivering: Delivering
) -> None:
    endpoint = await webhooks.endpoint(receiver)
    await webhooks.ended_job()
    async with delivering():
        done = await webhooks.settled(DeliveryState.SUCCEEDED)
        for name in ("a", "b", "b"):
            again = await webhooks.service.redeliver(
                webhooks.domain.tenant, done.event_id, endpoint.id, idempotency=request(name)
            )
            assert again.event_id == done.event_id
            await webhooks.settled(DeliveryState.SUCCEEDED)
    assert [event.id for event in receiver.received] == [str(done.event_id)] * 3
    assert (await webhooks.endpoints())[endpoint.id].state is WebhookEndpointState.ENABLED
    for event, to in ((EventId(new_id()), endpoint.id), (done.event_id, WebhookEndpointId(new_id()))):
        with pytest.raises(MemoroError) as caught:
            await webhooks.service.redeliver(webhooks.domain.tenant, event, to)
        assert caught.value.reason == "DELIVERY_NOT_FOUND"
