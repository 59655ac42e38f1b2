"""Balances, the ledger, usage, estimates and prices over the wire."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from memoro.v1 import billing_pb2, memory_pb2
from memoro.v1 import billing_service_pb2 as pb
from memoro.v1 import memory_service_pb2 as memory
from memoro_core.ids import new_id
from memoro_core.tenancy.model import Scope
from memoro_server.convert.scalars import from_time
from tests.support.deployment import LOADING, Caller, Deployment

ADD, SET = "BillingService/AddCredits", "BillingService/SetBalance"
BALANCE, LEDGER = "BillingService/GetBalance", "BillingService/ListLedgerEntries"
USAGE, ESTIMATE, PRICES = "BillingService/GetUsage", "BillingService/EstimateCost", "BillingService/ListPrices"
NOBODY = "01a2012f-a9df-728a-a291-38569757a412"
GRANT, ADJUSTMENT = billing_pb2.LEDGER_ENTRY_KIND_GRANT, billing_pb2.LEDGER_ENTRY_KIND_ADJUSTMENT
AVAILABLE, GRANTED = billing_pb2.LEDGER_ACCOUNT_AVAILABLE, billing_pb2.LEDGER_ACCOUNT_GRANTED
REFUNDED = billing_pb2.LEDGER_ACCOUNT_REFUNDED


async def balance_of(caller: Caller) -> Any:
    return (await caller.ask(BALANCE, pb.GetBalanceRequest())).balance


async def entries_of(caller: Caller, **fields: Any) -> Any:
    return (await caller.ask(LEDGER, pb.ListLedgerEntriesRequest(**fields))).entries


async def test_credits_are_given_once_and_told(deployment: Deployment) -> None:
    operator, caller = await deployment.operator(), await deployment.caller()
    tenant_id = str(caller.tenant_id)
    assert await balance_of(caller) == billing_pb2.Balance(tenant_id=tenant_id)
    expiry = from_time(datetime.now(UTC).replace(microsecond=0) + timedelta(days=30))
    give = pb.AddCreditsRequest(
        request_id=f"invoice-{tenant_id}",
        tenant_id=tenant_id,
        amount=7_500,
        priority=3,
        expire_time=expiry,
        note="invoice 17",
    )
    given = await operator.ask(ADD, give)
    grant = given.grant
    assert (grant.amount, grant.remaining, grant.priority, grant.note) == (7_500, 7_500, 3, "invoice 17")
    assert grant.expire_time == expiry
    assert given.balance == await balance_of(caller)
    assert (given.balance.available, given.balance.granted, list(given.balance.grants)) == (7_500, 7_500, [grant])

    again = await operator.ask(ADD, give)
    assert (again.grant, again.balance) == (grant, given.balance)
    give.amount += 1
    reused = await operator.call(ADD, give)
    assert (reused.code, reused.info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED")
    assert (await balance_of(caller)).available == 7_500

    (entry,) = await entries_of(caller)
    assert (entry.sequence, entry.kind, entry.available_after, entry.held_after) == (1, GRANT, 7_500, 0)
    assert {it.account: it.amount for it in entry.postings} == {AVAILABLE: 7_500, GRANTED: -7_500}
    assert (entry.request_id, entry.note, entry.job_id) == (give.request_id, "invoice 17", "")
    assert entry.actor
    assert len(entry.hash) == 32


async def test_grants_are_told_in_the_order_in_which_they_are_used_up(deployment: Deployment) -> None:
    operator, caller = await deployment.operator(), await deployment.caller()
    soon, later = (from_time(datetime.now(UTC) + timedelta(days=days)) for days in (1, 2))
    for note, priority, expiry in (("d", 5, None), ("c", 5, later), ("b", 5, soon), ("a", 0, None)):
        await operator.ask(
            ADD,
            pb.AddCreditsRequest(
                tenant_id=str(caller.tenant_id), amount=1, priority=priority, expire_time=expiry, note=note
            ),
        )
    assert [grant.note for grant in (await balance_of(caller)).grants] == ["a", "b", "c", "d"]


async def test_a_balance_is_set_by_entries(deployment: Deployment) -> None:
    operator, caller = await deployment.operator(), await deployment.caller()
    tenant_id = str(caller.tenant_id)
    up = pb.SetBalanceRequest(request_id=f"up-{tenant_id}", tenant_id=tenant_id, available=1_000, note="a gift")
    assert (await operator.ask(SET, up)).balance.available == 1_000
    down = await operator.ask(SET, pb.SetBalanceRequest(tenant_id=tenant_id, available=400, low_balance=500))
    assert (down.balance.available, down.balance.refunded, down.balance.low_balance) == (400, 600, 500)
    # A repeated request sets nothing again; it tells how things now stand.
    assert (await operator.ask(SET, up)).balance.available == 400
    kept = await operator.ask(SET, pb.SetBalanceRequest(tenant_id=tenant_id, low_balance=0))
    assert (kept.balance.available, kept.balance.low_balance) == (400, 0)
    assert await balance_of(caller) == kept.balance

    lower, raised = await entries_of(caller)
    assert (raised.kind, raised.note) == (ADJUSTMENT, "a gift")
    assert {it.account: it.amount for it in raised.postings} == {AVAILABLE: 1_000, GRANTED: -1_000}
    assert {it.account: it.amount for it in lower.postings} == {AVAILABLE: -600, REFUNDED: 600}


def usage(**fields: Any) -> pb.GetUsageRequest:
    return pb.GetUsageRequest(**fields)


def estimated_batch(*items: memory.CreateMemoryRequest) -> pb.EstimateCostRequest:
    return pb.EstimateCostRequest(batch_create_memories=memory.BatchCreateMemoriesRequest(requests=items))


ITEM = memory.CreateMemoryRequest(user_id="ann", text="I live in Oslo.")


@pytest.mark.parametrize("method", [LEDGER, USAGE, PRICES])
async def test_a_made_up_page_token_is_refused(deployment: Deployment, method: str) -> None:
    caller = await deployment.caller()
    request_class: Any = {LEDGER: pb.ListLedgerEntriesRequest, USAGE: pb.GetUsageRequest, PRICES: pb.ListPricesRequest}
    outcome = await caller.call(method, request_class[method](page_token="bm90aGluZw"))
    assert (outcome.code, outcome.info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID")


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        (ADD, pb.AddCreditsRequest(tenant_id=NOBODY, amount=1)),
        (SET, pb.SetBalanceRequest(tenant_id=NOBODY, available=1)),
        (SET, pb.SetBalanceRequest(tenant_id=NOBODY, low_balance=1)),
        (BALANCE, pb.GetBalanceRequest(tenant_id=NOBODY)),
    ],
)
async def test_nobody_has_no_money(deployment: Deployment, method: str, request_: Message) -> None:
    outcome = await (await deployment.operator()).call(method, request_)
    assert (outcome.code, outcome.info.reason) == (grpc.StatusCode.NOT_FOUND, "TENANT_NOT_FOUND")


async def test_the_ledger_goes_page_by_page_newest_first(deployment: Deployment) -> None:
    operator, caller = await deployment.operator(), await deployment.caller()
    tenant_id = str(caller.tenant_id)
    for amount in range(1, 6):
        await operator.ask(ADD, pb.AddCreditsRequest(tenant_id=tenant_id, amount=amount))
    await operator.ask(SET, pb.SetBalanceRequest(tenant_id=tenant_id, available=0))
    request = pb.ListLedgerEntriesRequest(page_size=4)
    first = await caller.ask(LEDGER, request)
    request.page_token = first.next_page_token
    second = await caller.ask(LEDGER, request)
    assert second.next_page_token == ""
    assert [it.sequence for it in (*first.entries, *second.entries)] == [6, 5, 4, 3, 2, 1]

    request.kinds.append(GRANT)
    assert (await caller.call(LEDGER, request)).info.reason == "PAGE_TOKEN_INVALID"
    assert [it.sequence for it in await entries_of(caller, kinds=[ADJUSTMENT])] == [6]
    assert len(await entries_of(caller, kinds=[billing_pb2.LEDGER_ENTRY_KIND_UNSPECIFIED])) == 6
    middle = first.entries[3].create_time
    assert [it.sequence for it in await entries_of(caller, created_from=middle)] == [6, 5, 4, 3]
    assert [it.sequence for it in await entries_of(caller, created_until=middle)] == [2, 1]
    assert not await entries_of(caller, job_id=str(new_id()))


async def test_what_was_used_is_summed_up_as_asked(deployment: Deployment) -> None:
    caller = await deployment.caller()
    for user in ("ann", "bob"):
        request = memory.CreateMemoryRequest(
            user_id=user, text=f"{user} lives in Oslo.", processing_mode=memory_pb2.PROCESSING_MODE_SYNC
        )
        made = await caller.ask("MemoryService/CreateMemory", request, timeout=LOADING)
        assert made.memory.status == memory_pb2.MEMORY_STATUS_READY
    today = datetime.now(UTC).date().isoformat()
    usual = (await caller.ask(USAGE, usage())).rows
    assert {(row.date, row.user_id) for row in usual} == {(today, "")}
    assert {(row.operation, row.provider, row.calls) for row in usual} == {
        (billing_pb2.AI_OPERATION_EMBED, "local", 2),
        (billing_pb2.AI_OPERATION_EXTRACT, "local", 2),
    }
    by_user = await caller.ask(USAGE, usage(group_by=[pb.USAGE_DIMENSION_USER], page_size=1))
    (ann,) = by_user.rows
    assert (ann.user_id, ann.date, ann.operation, ann.model, ann.calls) == ("ann", "", 0, "", 2)
    rest = usage(group_by=[pb.USAGE_DIMENSION_USER], page_size=1, page_token=by_user.next_page_token)
    assert [row.user_id for row in (await caller.ask(USAGE, rest)).rows] == ["bob"]
    assert {row.calls for row in (await caller.ask(USAGE, usage(user_id="bob"))).rows} == {1}
    past = await caller.ask(USAGE, usage(from_date="2020-01-01", to_date="2021-01-01"))
    assert (len(past.rows), past.charged) == (0, 0)


async def test_prices_are_listed_page_by_page(deployment: Deployment) -> None:
    caller = await deployment.caller()
    request, prices = pb.ListPricesRequest(page_size=5), []
    while True:
        page = await caller.ask(PRICES, request)
        prices += page.prices
        request.page_token = page.next_page_token
        if not request.page_token:
            break
    assert page.margin_basis_points == deployment.container.settings.margin_basis_points
    keys = [(price.provider, price.model, price.operation) for price in prices]
    assert keys == sorted(set(keys))
    (large,) = [price for price in prices if price.model == "text-embedding-3-large"]
    assert (large.operation, large.input_price, large.output_price) == (billing_pb2.AI_OPERATION_EMBED, 130_000, 0)
    narrow = pb.ListPricesRequest(provider="openai", model="text-embedding-3-large")
    assert list((await caller.ask(PRICES, narrow)).prices) == [large]
    assert not (await caller.ask(PRICES, pb.ListPricesRequest(provider="local", model=large.model))).prices


TALK = memory.AddConversationRequest(
    user_id="ann", conversation_id="c", messages=[memory.Message(text="Hello!"), memory.Message(text="And you?")]
)


@pytest.mark.parametrize(
    ("request_", "texts"),
    [
        (pb.EstimateCostRequest(create_memory=ITEM), 1),
        (pb.EstimateCostRequest(add_conversation=TALK), 2),
        (estimated_batch(ITEM, ITEM, ITEM), 3),
    ],
)
async def test_an_estimate_tells_what_would_be_done_and_stores_nothing(
    deployment: Deployment, request_: Message, texts: int
) -> None:
    caller = await deployment.caller((Scope.READ,))
    told = await caller.ask(ESTIMATE, request_)
    assert (told.amount, told.available) == (0, 0)
    assert told.margin_basis_points == deployment.container.settings.margin_basis_points
    lines = {line.operation: line for line in told.lines}
    embed = lines[billing_pb2.AI_OPERATION_EMBED]
    assert (embed.provider, embed.items, embed.cost_nano_dollars) == ("local", texts, 0)
    assert embed.input_tokens > 0
    assert not any((await deployment.rows(caller.tenant_id)).values())
