"""The fence before what costs: nothing is asked that is not covered and written down."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta

import pytest
import pytest_asyncio

from memoro_core.billing.guard import CallAbandoned
from memoro_core.billing.model import EntryKind, LedgerAccount
from memoro_core.errors import MemoroError, ProviderError
from memoro_core.jobs.model import Claim, JobState
from memoro_core.jobs.run_ports import LeaseLost
from memoro_core.llm.model import ExtractionSource, Operation, Usage
from memoro_core.settings import Settings
from tests.fakes.openai_server import Fault, Moment, Request
from tests.support.domain import Domain
from tests.support.jobs import claim, job_of, now, reap, until
from tests.support.pricing import MARGIN
from tests.support.spending import EMBEDDER, PLENTY, Spender, open_spender

ASKED = Usage("openai", EMBEDDER, Operation.EMBED, 1_000, items=2)
MOST = 3_000
"""What these tokens cost with the margin, in micro-credits: 1,000 for 20,000 pico-dollars each."""


@pytest_asyncio.fixture
async def spender(domain: Domain, settings: Settings) -> AsyncIterator[Spender]:
    async with open_spender(domain, settings) as opened:
        await opened.grant(10 * PLENTY)
        yield opened


async def test_a_call_is_written_down_before_it_is_made_and_again_after(spender: Spender) -> None:
    ref = await spender.job()
    claimed = await claim(spender.domain.run_store, ref)
    async with spender.domain.money.guard.call(claimed, ASKED, b"asked", lambda *_: None) as call:
        assert await spender.calls(ref) == []
        await call.admit()
        await call.admit()
        (opened,) = await spender.calls(ref)
        assert (opened["state"], opened["attempt"], opened["call"]) == ("OPEN", 1, 1)
        assert (opened["input_tokens"], opened["items"], opened["cost_pico_dollars"]) == (1_000, 2, 20_000_000)
        assert (opened["user_id"], opened["provider"], opened["model"]) == ("alice", "openai", EMBEDDER)
        call.used([Usage("openai", EMBEDDER, Operation.EMBED, 7), Usage("openai", EMBEDDER, Operation.EMBED, 5)])
    (closed,) = await spender.calls(ref)
    assert (closed["state"], closed["input_tokens"], closed["failed"]) == ("DONE", 12, False)
    assert closed["ended_at"] is not None


async def test_many_calls_at_once_are_numbered_and_covered_together(spender: Spender) -> None:
    refs = [await spender.job(held=MOST * 10) for _ in range(3)]
    claims = [await claim(spender.domain.run_store, ref) for ref in refs]

    async def ask(claimed: Claim, number: int) -> None:
        async with spender.domain.money.guard.call(claimed, ASKED, bytes([number]), lambda *_: None) as call:
            await call.admit()
            call.used([ASKED])

    await asyncio.gather(*(ask(claimed, number) for claimed in claims for number in range(12)))
    for ref in refs:
        calls = await spender.calls(ref)
        assert [one["call"] for one in calls] == list(range(1, 13))
        assert {one["state"] for one in calls} == {"DONE"}
        assert len({one["request_hash"] for one in calls}) == 12
        # Ten are covered by what was set aside; for the others more was.
        assert (await spender.hold(ref))["amount"] == MOST * 12


async def test_the_hold_is_extended_by_what_is_missing_and_by_no_more(spender: Spender) -> None:
    ref = await spender.job(held=MOST - 1)
    claimed = await claim(spender.domain.run_store, ref)
    async with spender.domain.money.guard.call(claimed, ASKED, b"asked", lambda *_: None) as call:
        await call.admit()
        call.used([ASKED])
    assert await spender.entries(ref.job_id) == [
        (EntryKind.HOLD, {LedgerAccount.AVAILABLE: 1 - MOST, LedgerAccount.HELD: MOST - 1}),
        (EntryKind.EXTENSION, {LedgerAccount.AVAILABLE: -1, LedgerAccount.HELD: 1}),
    ]


async def test_budgets_of_several_days_are_locked_in_their_order(spender: Spender) -> None:
    """The settlement of several days' jobs locks them so: around midnight the two must not wait for each other."""
    database, tenant = spender.domain.database, spender.domain.tenant
    async with database.system_tx() as connection:
        await connection.execute("INSERT INTO budgets VALUES ($1, 'TENANT', $2)", tenant, 100 * PLENTY)
    refs = [await spender.job(held=1) for _ in range(2)]
    claims = [await claim(spender.domain.run_store, ref) for ref in refs]
    async with database.tenant_tx(tenant) as connection:
        # The one that was made first counts for the later day.
        await connection.execute("UPDATE credit_holds SET day = day + 1 WHERE job_id = $1", refs[0].job_id)
        await connection.execute("UPDATE budget_days SET reserved = 1 WHERE tenant_id = $1", tenant)
        await connection.execute(
            "INSERT INTO budget_days SELECT tenant_id, scope, user_id, day + 1, state, reserved FROM budget_days"
            " WHERE tenant_id = $1",
            tenant,
        )

    async def ask(claimed: Claim) -> None:
        async with spender.domain.money.guard.call(claimed, ASKED, b"asked", lambda *_: None) as call:
            await call.admit()
            call.used([ASKED])

    lock = "SELECT FROM budget_days WHERE tenant_id = $1 ORDER BY day {} LIMIT 1 FOR UPDATE"
    async with database.system_tx() as holding:
        await holding.execute(lock.format("ASC"), tenant)
        asking = asyncio.gather(*(ask(claimed) for claimed in claims))
        await until(lambda: waits_for_a_lock(spender))
        async with database.system_tx() as other:
            assert await other.fetch(lock.format("DESC") + " NOWAIT", tenant)
    await asking
    assert [(await spender.hold(ref))["amount"] for ref in refs] == [MOST, MOST]


async def waits_for_a_lock(spender: Spender) -> bool:
    """Whether some transaction waits for a row that another holds."""
    async with spender.domain.database.system_tx() as connection:
        return bool(await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))


async def test_what_was_spent_before_counts_and_open_calls_count_at_their_most(spender: Spender) -> None:
    ref = await spender.job(held=MOST * 2)
    claimed = await claim(spender.domain.run_store, ref)
    with suppress(ZeroDivisionError):
        async with spender.domain.money.guard.call(claimed, ASKED, b"lost", lambda *_: None) as call:
            await call.admit()
            raise ZeroDivisionError
    async with spender.domain.money.guard.call(claimed, ASKED, b"asked", lambda *_: None) as call:
        await call.admit()
        call.used([Usage("openai", EMBEDDER, Operation.EMBED, 500)])
    assert (await spender.hold(ref))["amount"] == MOST * 2
    async with spender.domain.money.guard.call(claimed, ASKED, b"more", lambda *_: None) as call:
        await call.admit()
        call.used([ASKED])
    assert (await spender.hold(ref))["amount"] == MOST * 5 // 2
    assert [one["state"] for one in await spender.calls(ref)] == ["OPEN", "DONE", "DONE"]


async def test_without_credits_for_more_nothing_is_asked_and_nothing_written(spender: Spender) -> None:
    ref = await spender.job(held=MOST)
    await spender.job(held=9 * PLENTY)
    await spender.job(held=PLENTY - MOST - 10)
    claimed = await claim(spender.domain.run_store, ref)
    async with spender.domain.money.guard.call(claimed, ASKED, b"first", lambda *_: None) as call:
        await call.admit()
        call.used([ASKED])
    with pytest.raises(MemoroError) as refused:
        async with spender.domain.money.guard.call(claimed, ASKED, b"second", lambda *_: None) as call:
            await call.admit()
    assert refused.value.reason == "INSUFFICIENT_CREDITS"
    assert (refused.value.metadata["need"], refused.value.metadata["have"]) == (str(MOST), "10")
    assert len(await spender.calls(ref)) == 1
    await spender.check()


async def test_who_has_lost_the_lease_asks_nothing(spender: Spender) -> None:
    ref = await spender.job()
    stale = await claim(spender.domain.run_store, ref, lease=timedelta(seconds=1))
    later = now() + timedelta(seconds=2)
    await reap(spender.domain, now=later)
    with pytest.raises(LeaseLost):
        async with spender.domain.money.guard.call(stale, ASKED, b"asked", lambda *_: None) as call:
            await call.admit()
    assert await spender.calls(ref) == []


async def test_a_worker_that_was_thought_dead_sends_nothing_to_the_provider(spender: Spender) -> None:
    ref = await spender.job()
    async with spender.runner() as runner:
        # Between the answer of the first call and the second the job becomes another's.
        spender.provider.open.clear()
        run = asyncio.create_task(runner.run(ref))
        await until(lambda: asked(spender, 1))
        async with spender.domain.database.tenant_tx(ref.tenant_id) as connection:
            await connection.execute("UPDATE jobs SET run_lease = run_lease + 1 WHERE job_id = $1", ref.job_id)
        spender.provider.open.set()
        assert await run is None
    assert spender.provider.count("chat") == 0
    (call,) = await spender.calls(ref)
    assert (call["state"], call["input_tokens"] > 0) == ("DONE", True)


async def asked(spender: Spender, count: int) -> bool:
    """Whether so many requests have come."""
    return len(spender.provider.requests) >= count


async def test_an_answer_that_comes_after_the_settlement_changes_nothing(spender: Spender) -> None:
    ref = await spender.job()
    claimed = await claim(spender.domain.run_store, ref, lease=timedelta(seconds=1))
    async with spender.domain.money.guard.call(claimed, ASKED, b"asked", lambda *_: None) as call:
        await call.admit()
        await spender.domain.job_store.cancel(ref.tenant_id, ref.job_id, now=now())
        await reap(spender.domain, now=now() + timedelta(seconds=2))
        call.used([Usage("openai", EMBEDDER, Operation.EMBED, 1)])
    (lost,) = await spender.calls(ref)
    assert (lost["state"], lost["input_tokens"]) == ("PRESUMED", 1_000)
    job = await job_of(spender.domain, ref)
    assert (job.state, job.usage.charged) == (JobState.CANCELLED, MOST)
    await spender.check()


async def test_a_call_that_is_given_up_before_it_is_made_costs_nothing(spender: Spender) -> None:
    ref = await spender.job()
    claimed = await claim(spender.domain.run_store, ref)
    entered = asyncio.Event()

    async def wait_for_a_slot() -> None:
        async with spender.domain.money.guard.call(claimed, ASKED, b"asked", lambda *_: None):
            entered.set()
            await asyncio.sleep(3600)

    waiting = asyncio.create_task(wait_for_a_slot())
    await entered.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await spender.calls(ref) == []


async def test_a_call_that_is_given_up_while_it_is_written_down_is_known_not_to_have_been_made(
    spender: Spender,
) -> None:
    ref = await spender.job()
    claimed = await claim(spender.domain.run_store, ref)
    made = False

    async def ask() -> None:
        nonlocal made
        async with spender.domain.money.guard.call(claimed, ASKED, b"asked", lambda *_: None) as call:
            await call.admit()
            made = True

    # Whoever holds the job keeps the fence waiting.
    async with spender.domain.database.tenant_tx(ref.tenant_id) as connection:
        await connection.execute("SELECT FROM jobs WHERE job_id = $1 FOR UPDATE", ref.job_id)
        asking = asyncio.create_task(ask())
        await asyncio.sleep(0.2)
        asking.cancel()
        await asyncio.sleep(0.1)
        assert not asking.done()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert not made
    (call,) = await spender.calls(ref)
    assert (call["state"], call["cost_pico_dollars"], call["failed"]) == ("DONE", 0, True)


async def test_a_shared_request_goes_without_those_who_were_not_admitted(spender: Spender) -> None:
    stale_ref, fresh_ref = await spender.job(), await spender.job()
    stale = await claim(spender.domain.run_store, stale_ref, lease=timedelta(seconds=1))
    await reap(spender.domain, now=now() + timedelta(seconds=2))
    fresh = await claim(spender.domain.run_store, fresh_ref)

    async def embed(claimed: Claim, text: str) -> int:
        bound = spender.embedder.bound([text])
        async with spender.domain.money.guard.call(claimed, bound, text.encode(), lambda *_: None) as call:
            embeddings = await spender.embedder.embed([text], admit=call.admit)
            call.used(embeddings.usage)
        return len(embeddings.vectors)

    results = await asyncio.gather(embed(stale, "stale"), embed(fresh, "fresh"), return_exceptions=True)
    assert isinstance(results[0], LeaseLost)
    assert results[1] == 1
    assert [request.body["input"] for request in spender.provider.requests] == [["fresh"]]


async def test_who_leaves_after_being_admitted_is_not_let_in_again(spender: Spender) -> None:
    claimed = await claim(spender.domain.run_store, await spender.job())
    async with spender.domain.money.guard.call(claimed, ASKED, b"asked", lambda *_: None) as call:
        pass
    with pytest.raises(CallAbandoned):
        await call.admit()


@pytest.mark.parametrize(
    ("fault", "state"),
    [
        (Fault(status=500), "DONE"),
        (Fault(status=429), "DONE"),
        (Fault(hang=30.0), "OPEN"),
        (Fault(drop=True), "OPEN"),
        (Fault(body="this is no JSON"), "OPEN"),
    ],
    ids=str,
)
async def test_what_a_failed_call_leaves(spender: Spender, fault: Fault, state: str) -> None:
    ref = await spender.job()
    claimed = await claim(spender.domain.run_store, ref)
    spender.provider.script("embeddings", fault)
    with pytest.raises(ProviderError):
        async with spender.domain.money.guard.call(claimed, ASKED, b"asked", lambda *_: None) as call:
            await spender.embedder.embed(["a text"], admit=call.admit)
    (call_row,) = await spender.calls(ref)
    assert call_row["state"] == state
    assert call_row["cost_pico_dollars"] == (0 if state == "DONE" else 20_000_000)


async def test_a_provider_that_can_not_be_reached_was_not_asked(spender: Spender) -> None:
    ref = await spender.job()
    claimed = await claim(spender.domain.run_store, ref)
    await spender.provider.__aexit__(None, None, None)
    with pytest.raises(ProviderError) as failed:
        async with spender.domain.money.guard.call(claimed, ASKED, b"asked", lambda *_: None) as call:
            await spender.embedder.embed(["a text"], admit=call.admit)
    assert not failed.value.unaccounted
    (call_row,) = await spender.calls(ref)
    assert (call_row["state"], call_row["failed"], call_row["cost_pico_dollars"]) == ("DONE", True, 0)
    await spender.provider.__aenter__()


async def test_an_answer_without_a_bill_is_taken_for_the_most(spender: Spender) -> None:
    ref = await spender.job()
    claimed = await claim(spender.domain.run_store, ref)
    async with spender.domain.money.guard.call(claimed, ASKED, b"asked", lambda *_: None) as call:
        await call.admit()
        call.used([Usage("openai", EMBEDDER, Operation.EMBED, 0)])
    (call_row,) = await spender.calls(ref)
    assert call_row["state"] == "OPEN"


@pytest.mark.parametrize("usage", [{}, {"prompt_tokens": 50}, {"completion_tokens": 9}, None], ids=str)
@pytest.mark.parametrize("repaired", [False, True])
async def test_an_answer_that_tells_a_part_of_its_bill_is_taken_for_the_most(
    spender: Spender, usage: dict[str, int] | None, repaired: bool
) -> None:
    """Also when another request of the same call has told all of it."""
    ref = await spender.job()
    claimed = await claim(spender.domain.run_store, ref)
    message = {"role": "assistant", "content": '{"entities": [], "relationships": []}'}
    silent = {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}
    if repaired:
        spender.provider.script("chat", Fault(content="no JSON"))
    spender.provider.script("chat", Fault(body=json.dumps(silent)))
    source = ExtractionSource("Ann moved to Lyon.")
    bound = spender.extractor.bound(source)
    async with spender.domain.money.guard.call(claimed, bound, b"asked", lambda *_: None) as call:
        extraction = await spender.extractor.extract(source, admit=call.admit)
        call.used(extraction.usage)
    assert len(extraction.usage) == 1 + repaired
    (call_row,) = await spender.calls(ref)
    assert (call_row["state"], call_row["output_tokens"]) == ("OPEN", bound.output_tokens)


async def test_who_has_lost_the_lease_does_not_ask_again(spender: Spender) -> None:
    ref = await spender.job()
    claimed = await claim(spender.domain.run_store, ref, lease=timedelta(seconds=1))
    spender.provider.script("chat", Fault(content="no JSON"))

    async def lose(moment: Moment, request: Request) -> None:
        if moment is Moment.ANSWERED:
            await reap(spender.domain, now=now() + timedelta(seconds=2))

    spender.provider.watch = lose
    source = ExtractionSource("Ann moved to Lyon.")
    with pytest.raises(LeaseLost):
        async with spender.domain.money.guard.call(
            claimed, spender.extractor.bound(source), b"asked", lambda *_: None
        ) as call:
            await spender.extractor.extract(source, admit=call.admit)
    assert spender.provider.count("chat") == 1


@pytest.mark.parametrize("used", [{"prompt_tokens": 10**6}, {"completion_tokens": 4_097}], ids=str)
async def test_who_has_used_more_than_its_part_is_not_asked_again(spender: Spender, used: dict[str, int]) -> None:
    message = {"role": "assistant", "content": '{"entities": [{"name": "Ann", "type": "PERSON"}]}'}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, **used}
    dear = {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}
    spender.provider.script("chat", Fault(body=json.dumps(dear)), Fault(body=json.dumps(dear).replace("Ann", "")))
    extraction = await spender.extractor.extract(ExtractionSource("Ann moved to Lyon."))
    assert ([entity.name for entity in extraction.entities], extraction.partial) == (["Ann"], True)
    with pytest.raises(ProviderError, match="used more than it may"):
        await spender.extractor.extract(ExtractionSource("Ann moved to Lyon."))
    assert spender.provider.count("chat") == 2


async def test_a_provider_that_does_not_ask_for_leave_is_found_out(spender: Spender) -> None:
    claimed = await claim(spender.domain.run_store, await spender.job())
    with pytest.raises(RuntimeError, match="without being admitted"):
        async with spender.domain.money.guard.call(claimed, ASKED, b"asked", lambda *_: None) as call:
            call.used([ASKED])


async def test_without_a_price_nothing_is_asked(spender: Spender) -> None:
    ref = await spender.job()
    del spender.domain.money.prices.prices[Operation.EMBED]
    job = await spender.execute(ref)
    assert (job.state, job.attempt) == (JobState.FAILED, 1)
    assert job.error is not None
    assert job.error.reason == "PRICE_UNKNOWN"
    assert spender.provider.requests == []
    assert (await spender.hold(ref))["state"] == "RELEASED"


async def test_what_has_a_price_only_since_the_job_was_accepted_is_paid_for(spender: Spender) -> None:
    ref = await spender.job(held=0)
    job = await spender.execute(ref)
    assert (job.state, job.usage.charged) == (JobState.SUCCEEDED, spender.charge())
    assert job.cost_bound > 0
    hold = await spender.hold(ref)
    assert (hold["state"], hold["margin_basis_points"]) == ("CAPTURED", MARGIN)
    await spender.check()
