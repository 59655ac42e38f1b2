"""The demonstration's money: it finds what is not as it should be."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest

from memoro import Client
from memoro.cli.demo_billing import CREDITS, Paying
from memoro.cli.output import Output
from memoro.v1 import admin_service_pb2, billing_pb2, jobs_pb2, jobs_service_pb2, memory_service_pb2
from memoro.v1 import billing_service_pb2 as service
from tests.support.scripted_server import Failure, ScriptedServer, scripted_server

BOUND, CHARGED = 2_500, 2_000


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with scripted_server() as running:
        yield running


@pytest.fixture
def client(server: ScriptedServer) -> Iterator[Client]:
    with Client(server.endpoint, api_key="mk_demo") as connected:
        yield connected


@pytest.fixture
def paying(client: Client) -> Paying:
    return Paying(client, client, Output(as_json=False), "ann")


def stands(server: ScriptedServer, *, available: int = 0, held: int = 0, spent: int = 0) -> None:
    balance = billing_pb2.Balance(tenant_id="t1", granted=CREDITS, available=available, held=held, spent=spent)
    server.script("GetBalance", service.GetBalanceResponse(balance=balance))


def job_of(server: ScriptedServer, charged: int) -> None:
    job = jobs_pb2.Job(
        id="j1",
        state=jobs_pb2.JOB_STATE_SUCCEEDED,
        cost_bound=BOUND,
        usage=jobs_pb2.JobUsage(charged=charged),
    )
    server.script("GetJob", jobs_service_pb2.GetJobResponse(job=job))


@pytest.mark.parametrize(("held", "missing"), [(BOUND, 0), (BOUND - 1, 1), (0, 1)])
def test_what_is_held_is_the_bound(
    server: ScriptedServer, client: Client, paying: Paying, held: int, missing: int
) -> None:
    job_of(server, 0)
    handle = client.jobs.handle("j1")
    handle.refresh()
    stands(server, held=held, available=CREDITS - held)
    server.script("ResumeQueue", admin_service_pb2.ResumeQueueResponse())
    assert len(paying.hold(handle)) == missing
    assert server.requests("ResumeQueue")


@pytest.mark.parametrize(
    ("sums", "valid", "missing"),
    [
        ({"available": CREDITS - CHARGED, "spent": CHARGED}, True, []),
        ({"available": CREDITS - CHARGED, "spent": CHARGED}, False, ["a sound ledger"]),
        ({"available": CREDITS - BOUND, "spent": CHARGED, "held": BOUND - CHARGED}, True, ["the rest"]),
        ({"available": CREDITS, "spent": 0}, True, ["a charge", "the rest"]),
    ],
)
def test_what_was_taken_is_what_it_has_cost(
    server: ScriptedServer, client: Client, paying: Paying, sums: dict[str, int], valid: bool, missing: list[str]
) -> None:
    job_of(server, CHARGED)
    handle = client.jobs.handle("j1")
    handle.refresh()
    stands(server, **sums)
    server.script("ListLedgerEntries", service.ListLedgerEntriesResponse())
    server.script("VerifyLedger", admin_service_pb2.VerifyLedgerResponse(valid=valid, complete=True))
    found = paying.settle(handle)
    assert len(found) == len(missing)
    assert all(one.startswith(start) for one, start in zip(found, missing, strict=True))


def test_elsewhere_it_sets_no_prices_and_gives_no_credits(
    server: ScriptedServer, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    guest = Paying(client, None, Output(as_json=False), "ann")
    price = billing_pb2.Price(
        provider="openai", model="m", operation=billing_pb2.AI_OPERATION_EMBED, input_price=20_000
    )
    other = billing_pb2.Price(provider="openai", model="other", operation=billing_pb2.AI_OPERATION_EMBED)
    line = service.EstimateLine(provider="openai", model="m", operation=billing_pb2.AI_OPERATION_EMBED)
    server.script("EstimateCost", service.EstimateCostResponse(amount=BOUND, lines=[line]))
    server.script("ListPrices", service.ListPricesResponse(prices=[price, other]))
    server.script("GetBalance", Failure(grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING"))
    handle = client.jobs.handle("j1")
    assert guest.prepare("a text") == guest.hold(handle) == guest.settle(handle) == []
    guest.close()
    told = capsys.readouterr().out
    assert "$0.02" in told
    assert "other" not in told
    assert "costs at most 0.0025 credits" in told
    assert "may not see the balance" in told
    assert {call.method for call in server.calls} == {"EstimateCost", "ListPrices", "GetBalance"}


def test_a_deployment_that_asks_for_nothing_is_found_out(server: ScriptedServer, paying: Paying) -> None:
    line = service.EstimateLine(provider="local", model="m", operation=billing_pb2.AI_OPERATION_EMBED)
    server.script("PauseQueue", admin_service_pb2.PauseQueueResponse())
    server.script("SetPrice", admin_service_pb2.SetPriceResponse())
    server.script("EstimateCost", service.EstimateCostResponse(amount=BOUND, lines=[line]))
    server.script("ListPrices", service.ListPricesResponse())
    server.script("CreateMemory", memory_service_pb2.CreateMemoryResponse())
    stands(server)
    added = service.AddCreditsResponse(balance=billing_pb2.Balance(available=CREDITS))
    server.script("AddCredits", added)
    assert paying.prepare("a text") == ["a refusal of what can't be paid"]
    [price] = server.requests("SetPrice")
    assert (price.provider, price.model, price.fee) == ("local", "m", 1_000)
