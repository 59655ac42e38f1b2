"""What calls about money answer to bad input: the field is named, and nothing goes wrong that nobody has thought of."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2

from memoro.v1 import admin_service_pb2 as admin
from memoro.v1 import billing_service_pb2 as pb
from memoro.v1 import memory_service_pb2 as memory
from memoro_core.embedded.stack import Stack
from memoro_core.errors import MemoroError
from memoro_core.settings import Settings
from memoro_core.tenancy.model import Scope
from memoro_server.rules import Rules
from tests.e2e.server.test_billing import ADD, BALANCE, ESTIMATE, LEDGER, NOBODY, PRICES, SET, USAGE
from tests.e2e.server.test_spending import (
    ALERT,
    BREAKERS,
    BUDGET,
    COSTS,
    DEPLOYMENT,
    PRICE,
    RESET,
    USER,
    VERIFY,
    budget,
    price,
    reset,
)
from tests.support.deployment import METHODS, Caller, deployed, path_of
from tests.support.domain import fresh_name

pytestmark = pytest.mark.asyncio(loop_scope="module")

EXPECTED = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
}
"""How a call may end that an operator makes, whatever is in it."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def operator(stack: Stack) -> AsyncIterator[Caller]:
    """With every scope that these calls need."""
    settings = Settings.model_validate(
        {"database_url": stack.database_url, "redis_url": stack.redis_url, "grpc_port": 0}
    )
    async with deployed(settings) as deployment:
        yield await deployment.caller_of(await deployment.bootstrap.operator(), (Scope.ADMIN, Scope.READ))


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
        (PRICE, price(provider=""), "provider"),
        (PRICE, price(provider="Open AI"), "provider"),
        (PRICE, price(model=""), "model"),
        (PRICE, price(model="a b"), "model"),
        (PRICE, price(operation=0), "operation"),
        (PRICE, price(operation=99), "operation"),
        (PRICE, price(input_price=-1), "input_price"),
        (PRICE, price(output_price=10**10 + 1), "output_price"),
        (PRICE, price(fee=-1), "fee"),
        (PRICE, price(valid_from=Timestamp(seconds=1)), "valid_from"),
        (PRICE, price(valid_from=Timestamp(nanos=-1)), "valid_from"),
        (BUDGET, budget(scope=0), "scope"),
        (BUDGET, budget(scope=99), "scope"),
        (BUDGET, budget(tenant_id=""), "tenant_id"),
        (BUDGET, budget(tenant_id="acme"), "tenant_id"),
        (BUDGET, budget(scope=USER, tenant_id=""), "tenant_id"),
        (BUDGET, budget(scope=DEPLOYMENT), "tenant_id"),
        (BUDGET, budget(limit=-1), "limit"),
        (BUDGET, budget(limit=10**15 + 1), "limit"),
        (RESET, reset(scope=0), "scope"),
        (RESET, reset(tenant_id=""), "tenant_id"),
        (RESET, reset(user_id="ann"), "user_id"),
        (RESET, reset(scope=USER), "user_id"),
        (RESET, reset(scope=USER, user_id="a\0b"), "user_id"),
        (RESET, reset(scope=DEPLOYMENT), "tenant_id"),
        (BREAKERS, admin.GetCircuitBreakerRequest(tenant_id="acme"), "tenant_id"),
        (COSTS, admin.GetAiCostsRequest(date="today"), "date"),
        (COSTS, admin.GetAiCostsRequest(date="2026-02-30"), "date"),
        (COSTS, admin.GetAiCostsRequest(date="9999-12-31"), "date"),
        (COSTS, admin.GetAiCostsRequest(tenant_id="acme"), "tenant_id"),
        (COSTS, admin.GetAiCostsRequest(recent=-1), "recent"),
        (VERIFY, admin.VerifyLedgerRequest(), "tenant_id"),
        (VERIFY, admin.VerifyLedgerRequest(tenant_id=NOBODY, after_sequence=-1), "after_sequence"),
        (VERIFY, admin.VerifyLedgerRequest(tenant_id=NOBODY, after_hash=b"h"), "after_hash"),
        (VERIFY, admin.VerifyLedgerRequest(tenant_id=NOBODY, after_sequence=1), "after_hash"),
        (ALERT, admin.SendTestAlertRequest(severity=99), "severity"),  # type: ignore[arg-type]
        (ALERT, admin.SendTestAlertRequest(message="a\nb"), "message"),
        (ALERT, admin.SendTestAlertRequest(message="m" * 257), "message"),
        (ALERT, admin.SendTestAlertRequest(request_id="a b"), "request_id"),
    ],
)
async def test_a_bad_field_is_named(operator: Caller, method: str, request_: Message, field: str) -> None:
    outcome = await operator.call(method, request_)
    assert (outcome.code, outcome.info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"), outcome
    assert field in [it.field for it in outcome.detail(error_details_pb2.BadRequest).field_violations]


async def test_credits_can_not_expire_in_the_past(operator: Caller) -> None:
    past = add(tenant_id=str(operator.tenant_id), expire_time=Timestamp(seconds=1))
    outcome = await operator.call(ADD, past)
    assert outcome.info.reason == "INVALID_FIELD"
    (violation,) = outcome.detail(error_details_pb2.BadRequest).field_violations
    assert (violation.field, violation.description.partition(";")[0]) == ("expire_time", "must be in the future")


STRINGS = ("", "", "ann", "openai", "x" * 128, "x" * 70_000, "\0", "\u202eabc", "é" * 128, "9999-12-30", "0001-01-01")
NUMBERS = (0, 1, 1, 2, -1, 100, 10**15, 10**15 + 1, 2**31 - 1, 2**63 - 1, -(2**63), -(2**31))
SECONDS = (0, -62_135_510_400, 253_402_300_799, 2**62)


def odd_value(draw: random.Random, field: Any, ids: tuple[str, ...]) -> Any:
    """Something that fits the type of a field, and perhaps nothing else."""
    match field.type:
        case FieldDescriptor.TYPE_STRING:
            return draw.choice(ids if field.name.endswith("_id") and draw.random() < 0.8 else STRINGS)
        case FieldDescriptor.TYPE_BOOL:
            return True
        case FieldDescriptor.TYPE_ENUM:
            return draw.choice((0, 1, 2, 3, 99, -1))
        case FieldDescriptor.TYPE_BYTES:
            return draw.choice((b"", b"x", b"\xff" * 32))
        case FieldDescriptor.TYPE_INT64:
            return draw.choice(SECONDS if field.name == "seconds" else NUMBERS)
        case _:
            return draw.choice([it for it in NUMBERS if -(2**31) <= it < 2**31])


def odd_message(draw: random.Random, message: Any, ids: tuple[str, ...], depth: int = 3) -> Any:
    """A message with some of its fields set to whatever."""
    for field in message.DESCRIPTOR.fields:
        if draw.random() < 0.4:
            continue
        for _ in range(draw.choice((1, 2)) if field.is_repeated else 1):
            if field.message_type is None:
                value = odd_value(draw, field, ids)
                getattr(message, field.name).append(value) if field.is_repeated else setattr(message, field.name, value)
            elif depth and not field.message_type.GetOptions().map_entry:
                inner = getattr(message, field.name)
                inner = inner.add() if field.is_repeated else inner
                inner.SetInParent()
                odd_message(draw, inner, ids, depth - 1)
    return message


def odd_requests(method: str, ids: tuple[str, ...], count: int) -> Iterator[Message]:
    """So many requests that break a rule of the contract, and so many that break none."""
    draw, rules = random.Random(method), Rules()
    request_class: Any = GetMessageClass(METHODS[path_of(method)].input_type)
    good = bad = 0
    for _ in range(20_000):
        request = odd_message(draw, request_class(), ids)
        # What the whole deployment may spend is the other tests' too.
        if getattr(request, "scope", None) == DEPLOYMENT:
            continue
        try:
            rules.check(request)
        except MemoroError:
            bad += 1
            if bad <= count:
                yield request
        else:
            good += 1
            yield request
            if good == count:
                return
    raise AssertionError(f"only {good} requests of {method} that keep the rules")


@pytest.mark.parametrize(
    "method", [ADD, SET, BALANCE, LEDGER, USAGE, ESTIMATE, PRICES, PRICE, BUDGET, RESET, BREAKERS, COSTS, VERIFY, ALERT]
)
async def test_nothing_that_is_sent_is_an_internal_error(operator: Caller, method: str) -> None:
    ids = (str(operator.tenant_id), NOBODY, fresh_name())
    for request in odd_requests(method, ids, 25):
        outcome = await operator.call(method, request)
        assert outcome.code in EXPECTED, (request, outcome)
