"""Balances, the ledger, usage, estimates and prices over the wire."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2

from memoro.v1 import billing_pb2, memory_pb2
from memoro.v1 import billing_service_pb2 as pb
from memoro.v1 import memory_service_pb2 as memory
from memoro_core.ids import new_id
from memoro_core.tenancy.model import Scope
from memoro_server.convert.scalars import from_time
from tests.support.deployment import Caller, Deployment
from tests.support.interception import Outcome

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


def fields_of(outcome: Outcome) -> Sequence[str]:
    """The fields that an INVALID_FIELD names."""
    assert (outcome.code, outcome.info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"), outcome
    return [it.field for it in outcome.detail(error_details_pb2.BadRequest).field_violations]


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


def add(**fields: Any) -> Message:
    return pb.AddCreditsRequest(**{"tenant_id": NOBODY, "amount": 1, **fields})


def usage(**fields: Any) -> Message:
    return pb.GetUsageRequest(**fields)


def estimate(**fields: Any) -> Message:
    made = memory.CreateMemoryRequest(**{"user_id": "ann", "text": "I live in Oslo.", **fields})
    return pb.EstimateCostRequest(create_memory=made)


def estimated_batch(*items: memory.CreateMemoryRequest) -> Message:
    return pb.EstimateCostRequest(batch_create_memories=memory.BatchCreateMemoriesRequest(requests=items))


GOOD_ITEM = memory.CreateMemoryRequest(user_id="ann", text="one")


@pytest.mark.parametrize(
    ("method", "request_", "field"),
    [
        (ADD, pb.AddCreditsRequest(amount=1), "tenant_id"),
        (ADD, add(tenant_id="acme"), "tenant_id"),
        (ADD, add(amount=0), "amount"),
        (ADD, add(amount=-5), "amount"),
        (ADD, add(amount=10**15 + 1), "amount"),
        (ADD, add(priority=101), "priority"),
        (ADD, add(priority=-1), "priority"),
        (ADD, add(expire_time=Timestamp(seconds=1)), "expire_time"),
        (ADD, add(expire_time=Timestamp(seconds=253_402_300_800)), "expire_time"),
        (ADD, add(note="n" * 257), "note"),
        (ADD, add(note="a\0b"), "note"),
        (ADD, add(request_id="a b"), "request_id"),
        (SET, pb.SetBalanceRequest(tenant_id=NOBODY), "available"),
        (SET, pb.SetBalanceRequest(tenant_id=NOBODY, available=-1), "available"),
        (SET, pb.SetBalanceRequest(tenant_id=NOBODY, low_balance=10**15 + 1), "low_balance"),
        (BALANCE, pb.GetBalanceRequest(tenant_id="acme"), "tenant_id"),
        (LEDGER, pb.ListLedgerEntriesRequest(kinds=[99]), "kinds[0]"),  # type: ignore[list-item]
        (LEDGER, pb.ListLedgerEntriesRequest(job_id="x"), "job_id"),
        (LEDGER, pb.ListLedgerEntriesRequest(page_size=-1), "page_size"),
        (LEDGER, pb.ListLedgerEntriesRequest(created_from=Timestamp(nanos=-1)), "created_from"),
        (USAGE, usage(from_date="yesterday"), "from_date"),
        (USAGE, usage(from_date="2026-02-30"), "from_date"),
        (USAGE, usage(to_date="0000-01-01"), "to_date"),
        (USAGE, usage(to_date="9999-12-31"), "to_date"),
        (USAGE, usage(from_date="2026-01-02", to_date="2026-01-01"), "from_date"),
        (USAGE, usage(from_date="2025-01-01", to_date="2026-01-03"), "from_date"),
        (USAGE, usage(from_date="0001-01-01"), "from_date"),
        (USAGE, usage(user_id="a\0b"), "user_id"),
        (USAGE, usage(user_id="u" * 129), "user_id"),
        (USAGE, usage(group_by=[0]), "group_by[0]"),
        (USAGE, usage(group_by=[1, 1]), "group_by"),
        (USAGE, usage(page_size=-1), "page_size"),
        (ESTIMATE, pb.EstimateCostRequest(), "request"),
        (ESTIMATE, estimate(text=""), "create_memory.text"),
        (ESTIMATE, estimate(text="x" * 65_537), "create_memory.text"),
        (ESTIMATE, estimate(user_id=""), "create_memory.user_id"),
        (ESTIMATE, estimate(metadata={"k": "x" * 16_384}), "create_memory.metadata"),
        (
            ESTIMATE,
            pb.EstimateCostRequest(
                add_conversation=memory.AddConversationRequest(
                    user_id="ann", conversation_id="c", messages=[memory.Message(text="hi"), memory.Message(text="\0")]
                )
            ),
            "add_conversation.messages[1].text",
        ),
        (ESTIMATE, estimated_batch(), "batch_create_memories.requests"),
        (ESTIMATE, estimated_batch(*[GOOD_ITEM] * 101), "batch_create_memories.requests"),
        (
            ESTIMATE,
            estimated_batch(GOOD_ITEM, memory.CreateMemoryRequest(user_id="ann")),
            "batch_create_memories.requests[1].text",
        ),
        (PRICES, pb.ListPricesRequest(provider="a\0b"), "provider"),
        (PRICES, pb.ListPricesRequest(model="m" * 129), "model"),
        (PRICES, pb.ListPricesRequest(page_size=-1), "page_size"),
    ],
)
async def test_a_bad_field_is_named(deployment: Deployment, method: str, request_: Message, field: str) -> None:
    # Every scope that such a call may need.
    tenant = await deployment.bootstrap.operator()
    operator = await deployment.caller_of(tenant, (Scope.ADMIN, Scope.READ))
    assert field in fields_of(await operator.call(method, request_))


@pytest.mark.parametrize("method", [LEDGER, USAGE, PRICES])
async def test_a_made_up_page_token_is_refused(deployment: Deployment, method: str) -> None:
    caller = await deployment.caller()
    request_class: Any = {LEDGER: pb.ListLedgerEntriesRequest, USAGE: pb.GetUsageRequest, PRICES: pb.ListPricesRequest}
    outcome = await caller.call(method, request_class[method](page_token="bm90aGluZw"))
    assert (outcome.code, outcome.info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID")


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        (ADD, add()),
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
        assert (await caller.ask("MemoryService/CreateMemory", request)).memory.status == memory_pb2.MEMORY_STATUS_READY
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
        (estimate(), 1),
        (pb.EstimateCostRequest(add_conversation=TALK), 2),
        (estimated_batch(GOOD_ITEM, GOOD_ITEM, GOOD_ITEM), 3),
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
