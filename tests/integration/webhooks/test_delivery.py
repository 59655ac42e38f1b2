"""What happens reaches its receivers: signed, at least once, and whatever some of them do."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

import pytest

from memoro_core.billing.model import BudgetKey, BudgetScope
from memoro_core.jobs.states import cancelled
from memoro_core.postgres.run_store import finish_in
from memoro_core.postgres.webhook_store import announce_in
from memoro_core.tracing import call_span
from memoro_core.webhooks.events import balance_low, spend_threshold
from memoro_core.webhooks.model import DeliveryState, WebhookEndpointState, WebhookEventType
from memoro_core.webhooks.secrets import SecretSeal
from tests.fakes.webhook_receiver import Answer, Receiver
from tests.integration.webhooks.conftest import Delivering, Webhooks
from tests.support.jobs import claim, job_of, new_job, now, succeeded, until


async def test_the_end_of_a_job_arrives_once_and_signed(
    webhooks: Webhooks, receiver: Receiver, delivering: Delivering
) -> None:
    await webhooks.endpoint(receiver)
    ref = await webhooks.ended_job()
    async with delivering():
        (event,) = await receiver.wait_for(1)
        done = await webhooks.settled(DeliveryState.SUCCEEDED)
        await asyncio.sleep(0.2)
    assert (len(receiver.received), receiver.refused) == (1, 0)
    assert event.id == str(done.event_id)
    assert event.path == "/hook?from=memoro"
    assert event.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert event.headers["content-type"] == "application/json"
    assert event.body["type"] == "job.succeeded"
    data = event.body["data"]
    assert (data["job_id"], data["state"], data["user_id"], data["attempt"]) == (
        str(ref.job_id),
        "SUCCEEDED",
        "alice",
        1,
    )
    assert data["result"]["memories"] == 1
    assert "Lyon" not in event.text
    assert (done.response_status, done.error, done.attempt) == (204, "", 1)


async def test_a_receiver_gets_the_trace_of_the_call_that_made_the_job(
    webhooks: Webhooks, receiver: Receiver, delivering: Delivering
) -> None:
    trace_parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await webhooks.endpoint(receiver)
    with call_span("Service/Method", trace_parent, {}):
        await webhooks.ended_job()
    await webhooks.ended_job()
    async with delivering():
        received = await receiver.wait_for(2)
    assert {event.headers.get("traceparent") for event in received} == {trace_parent, None}


async def test_endpoints_get_what_they_ask_for(webhooks: Webhooks, receiver: Receiver, delivering: Delivering) -> None:
    await webhooks.endpoint(receiver, WebhookEventType.JOB_CANCELLED, url=f"{receiver.url}&only=cancelled")
    await webhooks.endpoint(receiver, url=f"{receiver.url}&only=all")
    ref = await new_job(webhooks.domain)
    await webhooks.domain.job_store.cancel(ref.tenant_id, ref.job_id, now=now())
    await webhooks.ended_job()
    async with delivering():
        received = await receiver.wait_for(3)
    told = sorted((event.path.rsplit("=", 1)[-1], event.body["type"]) for event in received)
    assert told == [("all", "job.cancelled"), ("all", "job.succeeded"), ("cancelled", "job.cancelled")]
    # One event has one id, wherever it goes.
    assert len({event.id for event in received}) == 2


async def test_a_run_that_is_thrown_away_tells_nothing(webhooks: Webhooks, receiver: Receiver) -> None:
    await webhooks.endpoint(receiver)
    ref = await new_job(webhooks.domain)
    claimed = await claim(webhooks.domain.run_store, ref)

    async def finish_and_fall() -> None:
        async with webhooks.domain.database.tenant_tx(ref.tenant_id) as connection:
            await finish_in(connection, webhooks.domain.money.holds, claimed, succeeded(claimed), now=now())
            raise RuntimeError("it fell")

    with pytest.raises(RuntimeError, match="it fell"):
        await finish_and_fall()
    assert await webhooks.deliveries() == []
    finish = cancelled(stages=claimed.job.stages, usage=claimed.job.usage)
    await webhooks.domain.run_store.finish(claimed, finish, now=now())
    assert [one.event_type for one in await webhooks.deliveries()] == [WebhookEventType.JOB_CANCELLED]


async def test_another_tenants_endpoint_is_told_nothing(webhooks: Webhooks, receiver: Receiver) -> None:
    stranger = await webhooks.domain.new_tenant()
    await webhooks.service.create(stranger, receiver.url, (), "")
    await webhooks.ended_job()
    assert await webhooks.domain.count("webhook_deliveries") == 0


async def test_a_failure_is_tried_again_until_it_arrives(
    webhooks: Webhooks, receiver: Receiver, delivering: Delivering
) -> None:
    endpoint = await webhooks.endpoint(receiver)
    receiver.script(Answer(500), Answer(drop=True))
    await webhooks.ended_job()
    async with delivering():
        first = await webhooks.settled(DeliveryState.PENDING)
        assert (first.response_status, first.error) == (500, "answered 500")
        assert first.next_attempt_at is not None
        assert first.attempted_at is not None
        assert 4.5 < (first.next_attempt_at - first.attempted_at).total_seconds() < 8
        assert (await webhooks.endpoints())[endpoint.id].failing_since is not None
        webhooks.clock.ahead = timedelta(seconds=10)
        second = await webhooks.settled(DeliveryState.PENDING, attempt=2)
        assert (second.response_status, second.error) == (0, "the connection broke before an answer came")
        webhooks.clock.ahead = timedelta(seconds=60)
        await webhooks.settled(DeliveryState.SUCCEEDED, attempt=3)
    assert len({event.id for event in receiver.received}) == 1
    assert len(receiver.received) == 3
    assert (await webhooks.endpoints())[endpoint.id].failing_since is None


async def test_a_day_is_enough(webhooks: Webhooks, receiver: Receiver, delivering: Delivering) -> None:
    await webhooks.endpoint(receiver)
    receiver.always = Answer(503)
    await webhooks.ended_job()
    webhooks.clock.ahead = timedelta(days=1)
    async with delivering():
        failed = await webhooks.settled(DeliveryState.FAILED)
    assert failed.ended_at is not None
    assert failed.next_attempt_at is None


@pytest.mark.parametrize(
    ("answer", "status", "error"),
    [
        (Answer(302, {"location": "http://127.0.0.1:1/"}), 302, "answered 302; redirects are not followed"),
        (Answer(404, body=b"no such hook"), 404, "answered 404"),
        (Answer(200, {"content-length": "zero"}), 0, "the connection broke before an answer came"),
        (Answer(hang=5.0), 0, "no answer within 0.5 s"),
    ],
)
async def test_what_is_no_receipt(
    webhooks: Webhooks, receiver: Receiver, delivering: Delivering, answer: Answer, status: int, error: str
) -> None:
    await webhooks.endpoint(receiver)
    receiver.script(answer)
    await webhooks.ended_job()
    async with delivering(timeout=0.5):
        one = await webhooks.settled(DeliveryState.PENDING)
    assert (one.response_status, one.error) == (status, error)
    assert receiver.requests == 1


async def test_a_huge_answer_is_not_read_to_its_end(
    webhooks: Webhooks, receiver: Receiver, delivering: Delivering
) -> None:
    await webhooks.endpoint(receiver)
    receiver.script(Answer(200, endless=True))
    await webhooks.ended_job()
    async with delivering():
        await webhooks.settled(DeliveryState.SUCCEEDED)
    # What the sockets' buffers hold comes on top.
    assert receiver.sent < 32 * 1024 * 1024


async def test_a_connection_is_used_again(webhooks: Webhooks, receiver: Receiver, delivering: Delivering) -> None:
    await webhooks.endpoint(receiver)
    async with delivering():
        for count in range(1, 4):
            await webhooks.ended_job()
            await receiver.wait_for(count)
    assert receiver.connections == 1


async def test_nobody_listens(webhooks: Webhooks, receiver: Receiver, delivering: Delivering) -> None:
    await webhooks.endpoint(receiver, url="http://127.0.0.1:1/")
    await webhooks.ended_job()
    async with delivering():
        one = await webhooks.settled(DeliveryState.PENDING)
    assert one.error == "the host can't be reached"


async def test_an_endpoint_that_is_gone_is_disabled_and_the_others_are_told(
    webhooks: Webhooks, receiver: Receiver, delivering: Delivering
) -> None:
    async with Receiver() as dead:
        gone = await webhooks.endpoint(dead)
        dead.always = Answer(410)
        await webhooks.ended_job()
        await webhooks.ended_job()
        await webhooks.endpoint(receiver, WebhookEventType.WEBHOOK_DISABLED)
        async with delivering():
            (told,) = await receiver.wait_for(1)

            async def all_ended() -> bool:
                return all(one.state is DeliveryState.FAILED for one in await webhooks.deliveries(gone))

            await until(all_ended)
        endpoint = (await webhooks.endpoints())[gone.id]
        assert endpoint.state is WebhookEndpointState.DISABLED
        assert endpoint.disabled_at is not None
        assert (told.body["type"], told.body["data"]["endpoint_id"]) == ("webhook.disabled", str(gone.id))
        assert told.body["data"]["error"] == "answered 410"
        await webhooks.ended_job()
        assert len(await webhooks.deliveries(gone)) == 2

        # A caller mends it, and asks for one of the events: that it arrives enables the endpoint.
        dead.always = None
        failed = (await webhooks.deliveries(gone))[0]
        again = await webhooks.service.redeliver(webhooks.domain.tenant, failed.event_id, gone.id)
        assert (again.state, again.attempt) == (DeliveryState.PENDING, 0)
        async with delivering():

            async def enabled() -> bool:
                return (await webhooks.endpoints())[gone.id].state is WebhookEndpointState.ENABLED

            await until(enabled)
        assert dead.received[-1].id == str(failed.event_id)


async def test_an_endpoint_that_took_nothing_for_three_days_is_disabled(
    webhooks: Webhooks, receiver: Receiver, delivering: Delivering
) -> None:
    endpoint = await webhooks.endpoint(receiver)
    receiver.always = Answer(500)
    await webhooks.ended_job()
    async with delivering():
        await webhooks.settled(DeliveryState.PENDING)
        webhooks.clock.ahead = timedelta(days=3, minutes=1)
        await webhooks.settled(DeliveryState.FAILED, attempt=2)
    assert (await webhooks.endpoints())[endpoint.id].state is WebhookEndpointState.DISABLED


async def test_dead_endpoints_delay_nobody(webhooks: Webhooks, receiver: Receiver, delivering: Delivering) -> None:
    async with Receiver() as dead:
        dead.always = Answer(hang=30.0)
        for number in range(20):
            await webhooks.endpoint(dead, url=f"{dead.url}&number={number}")
        for _ in range(3):
            await webhooks.ended_job()
        async with delivering(timeout=3.0):
            # All of them are found out by now, and due again.
            await dead.wait_for(40)
            await asyncio.sleep(3.2)
            webhooks.clock.ahead = timedelta(seconds=20)
            await dead.wait_for(41)
            await webhooks.endpoint(receiver)
            started = time.monotonic()
            await webhooks.ended_job()
            await receiver.wait_for(1)
            assert time.monotonic() - started < 1.0


async def test_two_secrets_sign_while_receivers_change_over(
    webhooks: Webhooks, receiver: Receiver, delivering: Delivering
) -> None:
    endpoint = await webhooks.endpoint(receiver)
    (old,) = receiver.secrets
    rotated, new = await webhooks.service.rotate(webhooks.domain.tenant, endpoint.id)
    assert rotated.previous_secret_expires_at is not None
    async with delivering():
        await webhooks.ended_job()
        (both,) = await receiver.wait_for(1)
        assert both.verified_by(old)
        assert both.verified_by(new)
        webhooks.clock.ahead = timedelta(hours=24, seconds=1)
        # The receiver would find the time wrong; what counts is who signs.
        receiver.secrets = [new]
        await webhooks.ended_job()
        await until(lambda: _asked(receiver, 2))
    assert receiver.refused == 1


async def _asked(receiver: Receiver, times: int) -> bool:
    return receiver.requests >= times


async def test_a_secret_that_was_sealed_with_another_key(
    webhooks: Webhooks, receiver: Receiver, delivering: Delivering
) -> None:
    await webhooks.endpoint(receiver)
    await webhooks.ended_job()
    async with delivering(seal=SecretSeal("quite another key, of thirty-two characters")):
        one = await webhooks.settled(DeliveryState.PENDING)
    assert "another key" in one.error
    assert receiver.requests == 0


async def test_an_attempt_whose_worker_is_lost_is_made_again_and_the_first_counts_no_more(
    webhooks: Webhooks, receiver: Receiver, delivering: Delivering
) -> None:
    await webhooks.endpoint(receiver)
    receiver.script(Answer(hang=30.0))
    await webhooks.ended_job()
    async with delivering(timeout=60.0):
        # Cut off in mid-delivery.
        await receiver.wait_for(1)
    (one,) = await webhooks.deliveries()
    assert (one.state, one.attempt) == (DeliveryState.PENDING, 1)
    webhooks.clock.ahead = timedelta(seconds=31)
    async with delivering():
        await webhooks.settled(DeliveryState.SUCCEEDED, attempt=2)
    assert [event.id for event in receiver.received] == [str(one.event_id)] * 2


async def test_many_deliverers_send_each_event_once(
    webhooks: Webhooks, receiver: Receiver, delivering: Delivering
) -> None:
    await webhooks.endpoint(receiver)
    await asyncio.gather(*(webhooks.ended_job() for _ in range(40)))
    async with delivering(), delivering(), delivering():
        await receiver.wait_for(40)
        await until(lambda: _all_succeeded(webhooks))
    assert len(receiver.received) == len({event.id for event in receiver.received}) == 40


async def _all_succeeded(webhooks: Webhooks) -> bool:
    return all(one.state is DeliveryState.SUCCEEDED for one in await webhooks.deliveries())


async def test_a_deleted_endpoint_is_sent_nothing(
    webhooks: Webhooks, receiver: Receiver, delivering: Delivering
) -> None:
    endpoint = await webhooks.endpoint(receiver)
    await webhooks.ended_job()
    await webhooks.service.delete(webhooks.domain.tenant, endpoint.id)
    assert await webhooks.domain.count("webhook_deliveries") == 0
    assert (await job_of(webhooks.domain, await webhooks.ended_job())).state == "SUCCEEDED"
    async with delivering():
        await asyncio.sleep(0.3)
    assert receiver.requests == 0


async def test_what_ended_long_ago_is_forgotten(webhooks: Webhooks, receiver: Receiver, delivering: Delivering) -> None:
    await webhooks.endpoint(receiver)
    await webhooks.ended_job()
    async with delivering():
        await webhooks.settled(DeliveryState.SUCCEEDED)
    await webhooks.store.prune(ended_before=now() - timedelta(days=7), limit=100_000)
    assert await webhooks.domain.count("webhook_deliveries") == 1
    webhooks.clock.ahead = timedelta(days=7, seconds=60)
    async with delivering():
        await until(lambda: _forgotten(webhooks))


async def _forgotten(webhooks: Webhooks) -> bool:
    return await webhooks.domain.count("webhook_deliveries") == 0


async def test_what_happens_to_the_balance_and_the_budgets_goes_to_whoever_asked_for_it(
    webhooks: Webhooks, receiver: Receiver, delivering: Delivering
) -> None:
    tenant = webhooks.domain.tenant
    await webhooks.endpoint(receiver, WebhookEventType.BALANCE_LOW, url=f"{receiver.url}&only=balance")
    await webhooks.endpoint(receiver, url=f"{receiver.url}&only=all")
    budget = BudgetKey(BudgetScope.TENANT, tenant)
    async with webhooks.domain.database.tenant_tx(tenant) as connection:
        events = [
            balance_low(tenant, 5, 10, now()),
            spend_threshold(budget, 50, committed=50, limit=100, day=now().date(), now=now()),
        ]
        await announce_in(connection, tenant, events, now=now())
    async with delivering():
        received = await receiver.wait_for(3)
    told = sorted((event.path.rsplit("=", 1)[-1], event.body["type"]) for event in received)
    assert told == [("all", "balance.low"), ("all", "spend.threshold"), ("balance", "balance.low")]
