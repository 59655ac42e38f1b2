"""What jobs are charged when they end: what was spent for them, once."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

import pytest
import pytest_asyncio
from pydantic_core import from_json

from memoro_core.billing.model import EntryKind, LedgerAccount
from memoro_core.billing.money import charge
from memoro_core.errors import ProviderError
from memoro_core.ids import ConversationId, UserId, new_id
from memoro_core.jobs.model import JobKind, JobRef, JobState
from memoro_core.llm.model import Extraction, ExtractionSource, Operation, Usage
from memoro_core.llm.ports import Admit, ExtractionProvider
from memoro_core.memory.model import NewConversation, NewMessage
from memoro_core.postgres.queue_store import PostgresQueueStore
from memoro_core.postgres.retention_store import PostgresRetentionStore
from memoro_core.settings import Settings
from memoro_core.tenancy.model import ENTERPRISE_TIER
from tests.fakes.openai_server import Fault
from tests.support.domain import Domain
from tests.support.jobs import claim, events_of, now, reap, until
from tests.support.pricing import MARGIN
from tests.support.spending import PLENTY, PRICES, Spender, open_spender

LEASE = timedelta(seconds=30)


@pytest_asyncio.fixture
async def spender(domain: Domain, settings: Settings) -> AsyncIterator[Spender]:
    async with open_spender(domain, settings) as opened:
        await opened.grant(10 * PLENTY)
        yield opened
        await opened.check()


async def came(spender: Spender, kind: str, count: int = 1) -> bool:
    """Whether so many requests have come."""
    return spender.provider.count(kind) >= count


async def kinds(spender: Spender, ref: JobRef) -> list[EntryKind]:
    """What the ledger tells of a job."""
    return [kind for kind, _ in await spender.entries(ref.job_id)]


async def test_a_job_is_charged_what_its_calls_cost_with_the_margin(spender: Spender) -> None:
    ref = await spender.job()
    await _listen(spender)
    job = await spender.execute(ref)
    charged = spender.charge()
    assert (job.state, job.usage.charged) == (JobState.SUCCEEDED, charged)
    assert charged > 0
    hold = await spender.hold(ref)
    assert (hold["state"], hold["amount"], hold["charged"]) == ("CAPTURED", PLENTY, charged)
    held, settled = await spender.entries(ref.job_id)
    assert held == (EntryKind.HOLD, {LedgerAccount.AVAILABLE: -PLENTY, LedgerAccount.HELD: PLENTY})
    kind, moved = settled
    assert kind is EntryKind.SETTLEMENT
    assert (moved[LedgerAccount.HELD], moved[LedgerAccount.AVAILABLE]) == (-PLENTY, PLENTY - charged)
    assert moved[LedgerAccount.PROVIDER_COST] == -(-spender.bill() // 10_000)
    assert LedgerAccount.LOSS not in moved
    account = (await spender.credits.balance(ref.tenant_id)).account
    assert (account.available, account.held, account.spent) == (10 * PLENTY - charged, 0, charged)
    # Watchers and receivers are told, too.
    *_, last = await events_of(spender.domain, ref)
    assert last.usage is not None
    assert last.usage.charged == charged
    (delivery,) = await spender.rows("SELECT payload FROM webhook_deliveries")
    assert from_json(delivery["payload"])["data"]["usage"]["charged"] == charged


async def _listen(spender: Spender) -> None:
    async with spender.domain.database.tenant_tx(spender.domain.tenant) as connection:
        await connection.execute(
            "INSERT INTO webhook_endpoints (tenant_id, endpoint_id, url, secret, event_types, state, description,"
            " created_at) VALUES ($1, $2, 'https://example.com', '\\x00', ARRAY['job.succeeded', 'job.cancelled'],"
            " 'ENABLED', '', $3)",
            spender.domain.tenant,
            new_id(),
            now(),
        )


async def test_failed_attempts_are_charged_once_with_the_job(spender: Spender) -> None:
    ref = await spender.job()
    spender.provider.script("chat", Fault(status=500), Fault(status=503))
    job = await spender.execute(ref)
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 3)
    assert (spender.provider.count("embeddings"), spender.provider.count("chat")) == (3, 3)
    assert job.usage.charged == spender.charge()
    calls = await spender.calls(ref)
    assert [(one["attempt"], one["operation"], one["failed"]) for one in calls] == [
        (1, "embed", False),
        (1, "extract", True),
        (2, "embed", False),
        (2, "extract", True),
        (3, "embed", False),
        (3, "extract", False),
    ]
    assert await kinds(spender, ref) == [EntryKind.HOLD, EntryKind.SETTLEMENT]


async def test_a_job_that_fails_for_good_is_charged_what_it_had_spent(spender: Spender) -> None:
    ref = await spender.job()
    spender.provider.script("embeddings", Fault(embeddings=["no vector"]))
    job = await spender.execute(ref)
    assert (job.state, job.attempt) == (JobState.FAILED, 1)
    assert job.usage.charged == spender.charge() > 0
    (call,) = await spender.calls(ref)
    assert (call["state"], call["failed"]) == ("DONE", True)


async def test_a_job_that_spent_nothing_gets_all_of_it_back(spender: Spender) -> None:
    ref = await spender.job()
    spender.provider.script("embeddings", Fault(status=401))
    job = await spender.execute(ref)
    assert (job.state, job.usage.charged) == (JobState.FAILED, 0)
    assert await kinds(spender, ref) == [EntryKind.HOLD, EntryKind.RELEASE]
    assert (await spender.credits.balance(ref.tenant_id)).account.available == 10 * PLENTY


async def test_an_answer_that_was_lost_costs_what_the_same_call_cost_when_it_was_made_again(spender: Spender) -> None:
    ref = await spender.job()
    # Both are made and billed, and nobody is there to take them any more.
    spender.provider.watch = None
    spender.provider.script("embeddings", Fault(hang=1.2))
    job = await spender.execute(ref)
    await until(lambda: _billed(spender, 3))
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 2)
    lost, again, _ = await spender.calls(ref)
    assert (lost["state"], again["state"]) == ("PRESUMED", "DONE")
    assert lost["input_tokens"] == again["input_tokens"]
    assert job.usage.charged == spender.charge()


async def _billed(spender: Spender, count: int) -> bool:
    return len(spender.provider.bills) == count


async def test_an_answer_that_was_lost_for_good_costs_the_most(spender: Spender) -> None:
    ref = await spender.job()
    spender.provider.open.clear()
    async with spender.runner() as runner:
        running = asyncio.create_task(runner.run(ref))
        await until(lambda: came(spender, "embeddings"))
        await spender.domain.job_store.cancel(ref.tenant_id, ref.job_id, now=now())
        assert await running is JobState.CANCELLED
    spender.provider.open.set()
    (call,) = await spender.calls(ref)
    bound = spender.embedder.bound(["Ann moved to Lyon."])
    assert (call["state"], call["input_tokens"]) == ("PRESUMED", bound.input_tokens)
    job = await spender.job_of(ref)
    assert job.usage.charged == charge(bound.input_tokens * 20_000, 0, margin_basis_points=MARGIN)
    await until(lambda: _billed(spender, 1))
    assert job.usage.charged >= spender.charge()


async def test_a_job_whose_last_run_timed_out_is_charged_for_what_it_may_have_used(spender: Spender) -> None:
    ref = await spender.job()
    async with spender.domain.database.tenant_tx(ref.tenant_id) as connection:
        await connection.execute("UPDATE jobs SET max_attempts = 1 WHERE job_id = $1", ref.job_id)
    spender.provider.open.clear()
    [claimed] = await spender.domain.run_store.claim(
        [ref], worker_id="w", now=now(), lease_until=now() + LEASE, limits=dict.fromkeys(JobKind, 1.0)
    )
    # Its worker lives, but a lease is never extended beyond the run's limit.
    assert await spender.domain.lease_store.extend([claimed], lease_until=now() + LEASE) == {ref: True}
    bound = spender.embedder.bound(["Ann moved to Lyon."])

    async def ask() -> None:
        async with spender.domain.money.guard.call(claimed, bound, b"asked", lambda *_: None) as call:
            await spender.embedder.embed(["Ann moved to Lyon."], admit=call.admit)

    asking = asyncio.create_task(ask())
    await until(lambda: came(spender, "embeddings"))
    [(_, event)] = await reap(spender.domain, now=now() + timedelta(seconds=2))
    assert event.error is not None
    assert (event.state, event.error.reason) == (JobState.FAILED, "JOB_TIMED_OUT")
    job = await spender.job_of(ref)
    assert job.usage.charged == charge(bound.input_tokens * 20_000, 0, margin_basis_points=MARGIN) > 0
    assert await kinds(spender, ref) == [EntryKind.HOLD, EntryKind.SETTLEMENT]
    spender.provider.open.set()
    with suppress(ProviderError):
        await asking
    # The answer came, too late to change anything.
    assert (await spender.job_of(ref)).usage.charged == job.usage.charged


async def test_a_bill_above_the_bound_is_paid_by_the_house_and_told(spender: Spender) -> None:
    spender.embedder.most = 1
    spender.extractor = Modest(spender.extractor)
    ref = await spender.job(held=1_000)
    job = await spender.execute(ref)
    assert (job.state, job.usage.charged) == (JobState.SUCCEEDED, 1_000)
    _, (kind, moved) = await spender.entries(ref.job_id)
    cost = -(-spender.bill() // 10_000)
    assert kind is EntryKind.SETTLEMENT
    assert (moved[LedgerAccount.PROVIDER_COST], moved[LedgerAccount.LOSS]) == (cost, 1_000 - cost)
    alerts = await _alerts(spender, ref)
    assert alerts == [("bill.above_bound", "CRITICAL")]


@dataclass
class Modest:
    """An extraction provider that says that it uses next to nothing."""

    inner: ExtractionProvider

    async def extract(self, source: ExtractionSource, *, admit: Admit | None = None) -> Extraction:
        return await self.inner.extract(source, admit=admit)

    def bound(self, source: ExtractionSource) -> Usage:
        return dataclasses.replace(self.inner.bound(source), input_tokens=1, output_tokens=1)


async def _alerts(spender: Spender, ref: JobRef) -> list[tuple[str, str]]:
    async with spender.domain.database.system_tx() as connection:
        rows = await connection.fetch(
            "SELECT kind, severity FROM alerts WHERE tenant_id = $1 AND details ->> 'job_id' = $2",
            ref.tenant_id,
            str(ref.job_id),
        )
    return [(row["kind"], row["severity"]) for row in rows]


async def test_a_hold_that_is_too_small_is_extended_as_far_as_it_must_be(spender: Spender) -> None:
    ref = await spender.job(held=1)
    job = await spender.execute(ref)
    assert (job.state, job.usage.charged) == (JobState.SUCCEEDED, spender.charge())
    assert await kinds(spender, ref) == [
        EntryKind.HOLD,
        EntryKind.EXTENSION,
        EntryKind.EXTENSION,
        EntryKind.SETTLEMENT,
    ]


async def test_without_credits_to_go_on_the_job_fails_and_pays_for_what_it_had(spender: Spender) -> None:
    ref = await spender.job(held=10_000)
    for amount in (9 * PLENTY, PLENTY - 10_000):
        await spender.job(held=amount)
    job = await spender.execute(ref)
    assert (job.state, job.attempt) == (JobState.FAILED, 1)
    assert job.error is not None
    assert (job.error.reason, job.error.retryable) == ("INSUFFICIENT_CREDITS", False)
    assert (spender.provider.count("embeddings"), spender.provider.count("chat")) == (1, 0)
    assert job.usage.charged == spender.charge() > 0


async def test_a_job_that_is_cancelled_while_it_waits_costs_nothing(spender: Spender) -> None:
    ref = await spender.job()
    cancelled = await spender.domain.job_store.cancel(ref.tenant_id, ref.job_id, now=now())
    assert cancelled is not None
    assert (cancelled[0].state, cancelled[0].usage.charged) == (JobState.CANCELLED, 0)
    assert await kinds(spender, ref) == [EntryKind.HOLD, EntryKind.RELEASE]


async def test_a_job_that_is_cancelled_while_it_waits_for_another_attempt_pays_for_the_first(spender: Spender) -> None:
    ref, other = await spender.job(), await spender.job()
    await _listen(spender)
    spender.provider.script("chat", Fault(status=500, headers={"retry-after": "60"}))
    async with spender.runner() as runner:
        assert await runner.run(ref) is JobState.QUEUED
    store = PostgresQueueStore(spender.domain.database, spender.domain.money.holds)
    ended = await store.cancel_all(ref.tenant_id, [ref.job_id, other.job_id], deferred=False, now=now())
    charged = {told.job_id: event.usage.charged for told, event in ended if event.usage}
    assert charged == {ref.job_id: spender.charge(), other.job_id: 0}
    *_, last = await events_of(spender.domain, ref)
    assert last.usage is not None
    assert last.usage.charged == (await spender.job_of(ref)).usage.charged == spender.charge()
    bodies = [from_json(row["payload"])["data"] for row in await spender.rows("SELECT payload FROM webhook_deliveries")]
    assert {body["job_id"]: body["usage"]["charged"] for body in bodies} == {
        str(ref.job_id): spender.charge(),
        str(other.job_id): 0,
    }


async def test_a_job_whose_workers_are_lost_is_settled_when_it_fails_for_good(spender: Spender) -> None:
    ref = await spender.job()
    at = now()
    job, bound = await spender.job_of(ref), spender.embedder.bound(["a text"])
    for attempt in range(1, job.max_attempts + 1):
        claimed = await claim(spender.domain.run_store, ref, lease=timedelta(seconds=attempt))
        call = spender.domain.money.guard.call(claimed, bound, b"a text", lambda *_: None)
        await (await call.__aenter__()).admit()
        at = max(at, now()) + timedelta(seconds=attempt + 1)
        await reap(spender.domain, now=at)
        async with spender.domain.database.tenant_tx(ref.tenant_id) as connection:
            await connection.execute("UPDATE jobs SET run_at = $2 WHERE job_id = $1", ref.job_id, now())
    job = await spender.job_of(ref)
    assert (job.state, job.error and job.error.reason) == (JobState.FAILED, "WORKER_LOST")
    most = job.max_attempts * bound.input_tokens * 20_000
    assert job.usage.charged == charge(most, 0, margin_basis_points=MARGIN)
    assert {one["state"] for one in await spender.calls(ref)} == {"PRESUMED"}
    assert (await kinds(spender, ref))[-1] is EntryKind.SETTLEMENT


async def test_the_hold_stays_when_a_job_is_given_back_or_tried_again(spender: Spender) -> None:
    ref = await spender.job()
    claimed = await claim(spender.domain.run_store, ref)
    async with spender.domain.money.guard.call(
        claimed, spender.embedder.bound(["given back"]), b"given back", lambda *_: None
    ) as call:
        await call.admit()
        call.used([spender.embedder.bound(["given back"])])
    await spender.domain.run_store.release([claimed], now=now())
    assert (await spender.hold(ref))["state"] == "PENDING"
    # The attempt that was given back has the number of the next one.
    job = await spender.execute(ref)
    assert job.attempt == 1
    calls = await spender.calls(ref)
    assert [(one["attempt"], one["call"]) for one in calls] == [(1, 1), (1, 2), (1, 3)]
    given_back = spender.embedder.bound(["given back"]).input_tokens * PRICES["embedder"][0]
    assert job.usage.charged == charge(spender.bill() + given_back, 0, margin_basis_points=MARGIN)


async def test_fees_are_paid_for_each_text_once(spender: Spender) -> None:
    for operation in Operation:
        spender.domain.money.prices.set(operation, fee=1_000)
    messages = [NewMessage("Ann moved to Lyon."), NewMessage("Bob moved to Rome.")]
    accepted = await spender.domain.memories.add_conversation(
        spender.domain.tenant, NewConversation(UserId("alice"), ConversationId("c"), messages)
    )
    assert accepted.job is not None
    spender.provider.script("chat", Fault(status=500), Fault(status=500))
    job = await spender.execute(JobRef(spender.domain.tenant, accepted.job.id))
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 2)
    assert job.usage.charged == 4 * 1_000
    assert spender.provider.count("embeddings") == 2


async def test_what_is_free_moves_no_money_and_is_known_all_the_same(spender: Spender) -> None:
    for operation in Operation:
        spender.domain.money.prices.set(operation)
    ref = await spender.job(held=0)
    spender.provider.script("chat", Fault(status=500))
    job = await spender.execute(ref)
    assert (job.state, job.attempt, job.usage.charged) == (JobState.SUCCEEDED, 2, 0)
    calls = await spender.calls(ref)
    assert [(one["attempt"], one["call"], one["operation"], one["state"], one["failed"]) for one in calls] == [
        (1, 1, "embed", "DONE", False),
        (1, 2, "extract", "DONE", True),
        (2, 1, "embed", "DONE", False),
        (2, 2, "extract", "DONE", False),
    ]
    assert [one["items"] for one in calls] == [1, 0, 1, 1]
    assert {one["cost_pico_dollars"] for one in calls} == {0}
    assert {one["user_id"] for one in calls} == {"alice"}
    assert sum(one["input_tokens"] for one in calls) == job.usage.input_tokens
    assert await spender.rows("SELECT seq FROM ledger_entries WHERE job_id IS NOT NULL") == []
    assert await spender.rows("SELECT job_id FROM credit_holds") == []


async def test_what_was_paid_is_known_when_the_job_is_long_gone(spender: Spender) -> None:
    ref = await spender.job()
    job = await spender.execute(ref)
    assert job.ended_at is not None
    store, moment = PostgresRetentionStore(spender.domain.database), timedelta(microseconds=1)
    await store.forget_jobs(
        ENTERPRISE_TIER, [job.state], ended_from=job.ended_at, ended_before=job.ended_at + moment, limit=10
    )
    assert await spender.domain.job_store.get(ref.tenant_id, ref.job_id) is None
    assert len(await spender.calls(ref)) == 2
    assert (await spender.hold(ref))["state"] == "CAPTURED"
    assert await kinds(spender, ref) == [EntryKind.HOLD, EntryKind.SETTLEMENT]


@pytest.mark.parametrize("tokens", [1, 499, 500])
async def test_half_a_thousand_tokens_at_a_tenth_of_a_thousandth_of_a_dollar(spender: Spender, tokens: int) -> None:
    """500 tokens at $0.0001 per 1,000 and a margin of 50 % are $0.000075: 7,500 micro-credits."""
    spender.domain.money.prices.set(Operation.EMBED, input_price=100_000)
    ref = await spender.job()
    claimed = await claim(spender.domain.run_store, ref)
    bound = spender.embedder.bound(["x" * tokens])
    used = dataclasses.replace(bound, input_tokens=tokens)
    async with spender.domain.money.guard.call(claimed, bound, b"x", lambda *_: None) as call:
        await call.admit()
        call.used([used])
    await spender.domain.job_store.cancel(ref.tenant_id, ref.job_id, now=now())
    await reap(spender.domain, now=now() + timedelta(seconds=60))
    assert (await spender.job_of(ref)).usage.charged == 15 * tokens
