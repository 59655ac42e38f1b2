"""Accepting calls that cost something: held in the transaction that stores them, put off, or refused."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from memoro_core.billing.model import DeferralReason
from memoro_core.errors import Code, MemoroError, Reason
from memoro_core.idempotency import Idempotency
from memoro_core.ids import ConversationId, UserId
from memoro_core.jobs.model import JobState
from memoro_core.llm.model import Operation
from memoro_core.memory.model import (
    Accepted,
    MemoryPatch,
    NewConversation,
    NewMemory,
    NewMessage,
    ProcessingMode,
)
from memoro_core.memory.ports import Draft, Replay, Stored
from memoro_core.settings import Settings
from tests.support.domain import Domain, open_domain
from tests.support.job_drafts import draft

ALICE, BOB = UserId("alice"), UserId("bob")
FEE = 1_000
WRITTEN = ("memories", "jobs", "job_events", "idempotency_records", "conversations", "credit_holds")
"""What an accepting call may leave behind, besides entries."""


def request(name: str, payload: str = "payload") -> Idempotency:
    return Idempotency(name, hashlib.sha256(payload.encode()).digest())


@pytest.fixture
def priced(domain: Domain) -> Domain:
    """A domain in which each text costs a fee."""
    domain.money.prices.set(Operation.EMBED, fee=FEE)
    return domain


async def left(domain: Domain) -> dict[str, int]:
    return {table: await domain.count(table) for table in WRITTEN}


async def entries(domain: Domain) -> list[tuple[str, int]]:
    async with domain.database.tenant_tx(domain.tenant) as connection:
        rows = await connection.fetch("SELECT kind, held FROM ledger_entries ORDER BY seq")
    return [(row["kind"], row["held"]) for row in rows]


async def refused(call: Awaitable[object], *, need: int, have: int) -> None:
    with pytest.raises(MemoroError) as caught:
        await call
    error = caught.value
    assert (error.code, error.reason) == (Code.FAILED_PRECONDITION, Reason.INSUFFICIENT_CREDITS)
    assert (error.metadata["need"], error.metadata["have"]) == (str(need), str(have))


def text(words: str = "I moved to Lyon.", user: UserId = ALICE) -> NewMemory:
    return NewMemory(user, words)


def talk(*words: str) -> NewConversation:
    return NewConversation(ALICE, ConversationId("talk"), [NewMessage(one) for one in words])


async def test_what_is_accepted_is_held_with_it(priced: Domain) -> None:
    await priced.money.give(priced.tenant, 10 * FEE)
    added = await priced.memories.create(priced.tenant, text(), idempotency=request("a"))
    told = await priced.memories.add_conversation(priced.tenant, talk("one", "two"), idempotency=request("b"))
    changed = await priced.memories.update(priced.tenant, added.memory.id, MemoryPatch(text="other"))
    jobs = [job_of(one) for one in (added, told, changed)]
    assert [job.cost_bound for job in jobs] == [FEE, 2 * FEE, FEE]
    assert await priced.money.holds_of(priced.tenant) == {job.id: job.cost_bound for job in jobs}
    assert await entries(priced) == [("GRANT", 0), ("HOLD", FEE), ("HOLD", 2 * FEE), ("HOLD", FEE)]
    account = await priced.money.account(priced.tenant)
    assert (account.available, account.held) == (6 * FEE, 4 * FEE)
    for job in jobs:
        assert await priced.job_store.get(priced.tenant, job.id) == job
    assert [ref.job_id for ref in priced.hinted] == [job.id for job in jobs]


def job_of(accepted: Accepted) -> Any:
    assert accepted.job is not None
    return accepted.job


Call = Callable[[Domain, Idempotency | None], Awaitable[Accepted]]


async def create(domain: Domain, idempotency: Idempotency | None) -> Accepted:
    return await domain.memories.create(domain.tenant, text(), idempotency=idempotency)


async def create_now(domain: Domain, idempotency: Idempotency | None) -> Accepted:
    return await domain.memories.create(domain.tenant, text(), idempotency=idempotency, processing=ProcessingMode.SYNC)


async def converse(domain: Domain, idempotency: Idempotency | None) -> Accepted:
    return await domain.memories.add_conversation(domain.tenant, talk("one"), idempotency=idempotency)


@pytest.mark.parametrize("call", [create, create_now, converse])
@pytest.mark.parametrize("credits", [0, FEE - 1])
async def test_what_can_not_be_paid_leaves_nothing_and_can_be_tried_again(
    priced: Domain, call: Call, credits: int
) -> None:
    if credits:
        await priced.money.give(priced.tenant, credits)
    before = await entries(priced)
    for idempotency in (request("r"), request("r"), None):
        await refused(call(priced, idempotency), need=FEE, have=credits)
    assert set((await left(priced)).values()) == {0}
    assert await entries(priced) == before
    assert not priced.hinted
    await priced.money.give(priced.tenant, FEE)
    if call is create_now:
        with pytest.raises(NotImplementedError):  # no worker runs here
            await call(priced, request("r"))
    else:
        await call(priced, request("r"))
    assert await priced.count("memories") == await priced.count("jobs") == 1
    assert list((await priced.money.holds_of(priced.tenant)).values()) == [FEE]


async def test_an_update_that_can_not_be_paid_changes_nothing(priced: Domain) -> None:
    await priced.money.give(priced.tenant, FEE)
    made = await priced.memories.create(priced.tenant, text())
    before = await left(priced)
    patch = MemoryPatch(text="other words", metadata={"k": 1})
    await refused(
        priced.memories.update(priced.tenant, made.memory.id, patch, idempotency=request("u")), need=FEE, have=0
    )
    assert await left(priced) == before
    assert await priced.memories.get(priced.tenant, made.memory.id) == made.memory
    # Metadata cost nothing.
    await priced.memories.update(priced.tenant, made.memory.id, MemoryPatch(metadata={"k": 1}))
    await priced.money.give(priced.tenant, FEE)
    changed = await priced.memories.update(
        priced.tenant, made.memory.id, MemoryPatch(text="other words"), idempotency=request("u")
    )
    assert changed.memory.text == "other words"


@pytest.mark.parametrize("call", [create, converse])
async def test_a_repeated_request_is_answered_without_another_hold_or_any_credits(priced: Domain, call: Call) -> None:
    await priced.money.give(priced.tenant, FEE)
    first = await call(priced, request("r"))
    again = await call(priced, request("r"))
    assert job_of(again).id == job_of(first).id
    assert await entries(priced) == [("GRANT", 0), ("HOLD", FEE)]
    with pytest.raises(MemoroError) as caught:
        await call(priced, request("r", "else"))
    assert caught.value.reason is Reason.REQUEST_ID_REUSED


async def accept(domain: Domain, drafts: Sequence[Draft]) -> list[str]:
    """What becomes of drafts that come together, in a word each."""
    words = []
    for verdict in await domain.memory_store.accept(domain.tenant, drafts):
        if isinstance(verdict, Stored):
            words.append("hinted" if verdict.in_flight else str(verdict.job and verdict.job.state))
        elif isinstance(verdict, Replay):
            words.append("replay")
        else:
            assert isinstance(verdict, MemoroError)
            words.append(verdict.reason)
    return words


async def test_of_those_that_come_together_each_is_judged_for_itself_in_order(priced: Domain) -> None:
    await priced.money.give(priced.tenant, 10)
    drafts = [draft(ALICE, cost_bound=bound) for bound in (4, 7, 0, 5, 2, 1)]
    assert await accept(priced, drafts) == [
        "hinted",
        Reason.INSUFFICIENT_CREDITS,
        "hinted",
        "hinted",
        Reason.INSUFFICIENT_CREDITS,
        "hinted",
    ]
    kept = [drafts[place] for place in (0, 2, 3, 5)]
    assert await priced.money.holds_of(priced.tenant) == {
        one.job.id: one.job.cost_bound for one in kept if one.job.cost_bound
    }
    assert await priced.count("jobs") == await priced.count("memories") == await priced.count("job_events") == 4


async def test_one_id_twice_in_a_batch_is_one_request(priced: Domain) -> None:
    await priced.money.give(priced.tenant, 5)
    same = [draft(ALICE, cost_bound=5, idempotency=request("r")) for _ in range(3)]
    other = draft(ALICE, cost_bound=5, idempotency=request("r", "else"))
    assert await accept(priced, [*same, other]) == ["hinted", "replay", "replay", Reason.REQUEST_ID_REUSED]
    assert await priced.money.holds_of(priced.tenant) == {same[0].job.id: 5}


async def test_what_comes_with_the_id_of_a_refused_one_is_judged_for_itself(priced: Domain) -> None:
    await priced.money.give(priced.tenant, 5)
    dear = draft(ALICE, cost_bound=6, idempotency=request("r", "dear"))
    cheap = [draft(ALICE, cost_bound=5, idempotency=request("r", "cheap")) for _ in range(2)]
    assert await accept(priced, [dear, *cheap]) == [Reason.INSUFFICIENT_CREDITS, "hinted", "replay"]
    assert await priced.money.holds_of(priced.tenant) == {cheap[0].job.id: 5}
    assert await priced.count("idempotency_records") == await priced.count("jobs") == 1


async def test_what_costs_nothing_asks_for_no_credits(domain: Domain) -> None:
    await create(domain, request("r"))
    assert await domain.count("jobs") == 1
    assert await domain.count("credit_holds") == await domain.count("ledger_entries") == 0


async def test_what_has_no_price_is_refused_and_leaves_nothing(domain: Domain) -> None:
    del domain.money.prices.prices[Operation.EXTRACT]
    await domain.money.give(domain.tenant, 10 * FEE)
    for call in (create, converse):
        with pytest.raises(MemoroError) as caught:
            await call(domain, request("r"))
        assert (caught.value.code, caught.value.reason) == (Code.FAILED_PRECONDITION, Reason.PRICE_UNKNOWN)
        assert caught.value.metadata["operation"] == "extract"
    assert set((await left(domain)).values()) == {0}


@pytest.mark.parametrize("scope", ["TENANT", "USER"])
async def test_beyond_a_daily_budget_jobs_are_stored_for_the_next_day(priced: Domain, scope: str) -> None:
    await priced.money.give(priced.tenant, 100 * FEE)
    await priced.money.limit(priced.tenant, scope, FEE)
    first = await create(priced, request("1"))
    late = [await create(priced, request("2")), await create_now(priced, None), await converse(priced, request("3"))]
    late.append(await priced.memories.update(priced.tenant, first.memory.id, MemoryPatch(text="other words")))
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    for accepted in late:
        job = job_of(accepted)
        assert (job.state, job.run_at, job.deferral_reason, job.cost_bound) == (
            JobState.DEFERRED,
            tomorrow,
            DeferralReason(scope),
            FEE,
        )
        assert await priced.job_store.get(priced.tenant, job.id) == job
        (event,) = await priced.job_store.events_after(priced.tenant, job.id, 0, limit=10)
        assert (event.seq, event.state, event.run_at) == (1, JobState.DEFERRED, tomorrow)
        assert await priced.memories.get(priced.tenant, accepted.memory.id) == accepted.memory
    assert [ref.job_id for ref in priced.hinted] == [job_of(first).id]
    assert await priced.money.holds_of(priced.tenant) == {job_of(first).id: FEE}
    async with priced.database.tenant_tx(priced.tenant) as connection:
        rows = await connection.fetch(
            "SELECT in_flight, deferred_at = created_at AS since FROM jobs WHERE state = 'DEFERRED'"
        )
    assert [(row["in_flight"], row["since"]) for row in rows] == [(False, True)] * 4
    again = await create(priced, request("2"))
    assert job_of(again) == job_of(late[0])


async def test_credits_are_looked_at_before_budgets(priced: Domain) -> None:
    await priced.money.limit(priced.tenant, "TENANT", 0)
    await refused(create(priced, None), need=FEE, have=0)
    assert await priced.count("jobs") == 0


async def test_what_is_put_off_takes_no_room_of_others(priced: Domain) -> None:
    await priced.money.give(priced.tenant, 100)
    await priced.money.limit(priced.tenant, "USER", 5)
    drafts = [draft(ALICE, cost_bound=5), draft(ALICE, cost_bound=5), draft(BOB, cost_bound=5)]
    assert await accept(priced, drafts) == ["hinted", "DEFERRED", "hinted"]


async def test_racing_requests_of_two_processes_are_done_once_and_as_far_as_credits_go(
    priced: Domain, settings: Settings
) -> None:
    """Twenty requests, each from three sides at once, with credits for seven."""
    await priced.money.give(priced.tenant, 7 * FEE + FEE // 2)
    async with open_domain(settings) as other:
        other.money.prices.set(Operation.EMBED, fee=FEE)

        async def ask(domain: Domain, number: int) -> object:
            try:
                new = text(f"fact {number}")
                made = await domain.memories.create(priced.tenant, new, idempotency=request(f"r{number}"))
            except MemoroError as error:
                if error.reason is not Reason.INSUFFICIENT_CREDITS:
                    raise
                return None
            return job_of(made).id

        answers = await asyncio.gather(
            *(ask(domain, number) for number in range(20) for domain in (priced, other, priced))
        )
    jobs = {answer for answer in answers if answer is not None}
    assert len(jobs) == 7
    for number in range(20):
        # A request may be refused to one side and done for another that came when credits were there: never done twice.
        assert len({answer for answer in answers[3 * number : 3 * number + 3] if answer}) <= 1
    assert set(await priced.money.holds_of(priced.tenant)) == jobs
    assert {table: count for table, count in (await left(priced)).items() if table != "conversations"} == dict.fromkeys(
        ("memories", "jobs", "job_events", "idempotency_records", "credit_holds"), 7
    )
    account = await priced.money.account(priced.tenant)
    assert (account.available, account.held) == (FEE // 2, 7 * FEE)


async def test_racing_calls_of_all_kinds_never_spend_a_credit_twice(priced: Domain, settings: Settings) -> None:
    await priced.money.give(priced.tenant, 20 * FEE)
    made = [await priced.memories.create(priced.tenant, text(f"old {number}")) for number in range(5)]
    async with open_domain(settings) as other:
        other.money.prices.set(Operation.EMBED, fee=FEE)
        sides = (priced, other)

        async def ask(number: int) -> int:
            side, kind = sides[number % 2], number % 3
            try:
                if kind == 0:
                    accepted = await side.memories.create(priced.tenant, text(f"new {number}"))
                elif kind == 1:
                    accepted = await side.memories.add_conversation(priced.tenant, talk("one", "two"))
                else:
                    old = made[number % 5].memory.id
                    accepted = await side.memories.update(priced.tenant, old, MemoryPatch(text=f"changed {number}"))
            except MemoroError as error:
                if error.reason is not Reason.INSUFFICIENT_CREDITS:
                    raise
                return 0
            bound: int = job_of(accepted).cost_bound
            return bound

        spent = sum(await asyncio.gather(*map(ask, range(60))))
    account = await priced.money.account(priced.tenant)
    assert account.available == 15 * FEE - spent
    assert account.held == 5 * FEE + spent == sum((await priced.money.holds_of(priced.tenant)).values())
    # What is left is less than what the smallest would have needed, or just nothing.
    assert account.available < 2 * FEE
    assert await priced.count("jobs") == await priced.count("credit_holds")
