"""`memoro billing`, and what other commands say of money."""

from __future__ import annotations

import json
from pathlib import Path

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from memoro.v1 import (
    admin_pb2,
    admin_service_pb2,
    billing_pb2,
    jobs_pb2,
    jobs_service_pb2,
    memory_pb2,
    memory_service_pb2,
)
from memoro.v1 import billing_service_pb2 as service
from tests.support.scripted_server import Failure

from .conftest import CommandLine

NOON = Timestamp(seconds=1741089600)
GRANT = billing_pb2.Grant(id="g1", amount=12_500_000, remaining=7_500, priority=3, note="[invoice] 7")
BALANCE = billing_pb2.Balance(
    tenant_id="t1", available=12_000_000, held=300, granted=12_500_000, low_balance=1_000_000, grants=[GRANT]
)
BREAKER = billing_pb2.SpendBreaker(
    scope=billing_pb2.BUDGET_SCOPE_TENANT,
    tenant_id="t1",
    state=billing_pb2.BREAKER_STATE_OPEN,
    date="2025-03-04",
    limit=100_000_000,
    reserved=60_000_000,
    spent=40_000_000,
    percent_used=100.0,
    deferred_jobs=3,
)


def test_balance(memoro: CommandLine) -> None:
    memoro.server.script("GetBalance", service.GetBalanceResponse(balance=BALANCE))
    told = [line.split() for line in memoro("billing", "balance").stdout.splitlines()]
    assert ["available", "12", "$0.12"] in told
    assert ["held", "0.0003", "$0.000003"] in told
    assert ["low", "below", "1", "$0.01"] in told
    assert ["g1", "0.0075", "12.5", "3", "[invoice]", "7"] in told
    [line] = memoro.json("billing", "balance", "--tenant", "t1")
    assert (line["available"], line["grants"][0]["remaining"]) == (12_000_000, 7_500)
    assert [request.tenant_id for request in memoro.server.requests("GetBalance")] == ["", "t1"]


def test_credits_are_entered_exactly(memoro: CommandLine) -> None:
    memoro.server.script("AddCredits", service.AddCreditsResponse(grant=GRANT, balance=BALANCE))
    told = memoro(
        *("billing", "add", "t1", "--credits", "9007199254.740993", "--priority", "3"),
        *("--expires", "2025-03-04T12:00", "--note", "[invoice] 7", "--request-id", "r1"),
    )
    assert told.stdout == "gave 12.5 credits ($0.125); 12 credits ($0.12) are available now\n"
    assert memoro.server.requests("AddCredits") == [
        service.AddCreditsRequest(
            request_id="r1",
            tenant_id="t1",
            amount=9_007_199_254_740_993,
            priority=3,
            expire_time=NOON,
            note="[invoice] 7",
        )
    ]
    [line] = memoro.json("billing", "add", "t1", "--micro-credits", "7")
    assert line["grant"]["id"] == "g1"
    assert memoro.server.requests("AddCredits")[1].amount == 7


def test_a_balance_is_set(memoro: CommandLine) -> None:
    memoro.server.script("SetBalance", service.SetBalanceResponse(balance=BALANCE))
    assert "12.5" in memoro("billing", "set", "t1", "--credits", "0", "--note", "refund").stdout
    memoro("billing", "set", "t1", "--low-credits", "1.5")
    assert memoro.json("billing", "set", "t1", "--low-micro-credits", "0", "--micro-credits", "5")[0]["held"] == 300
    first, second, third = memoro.server.requests("SetBalance")
    assert (first.HasField("available"), first.available, first.HasField("low_balance")) == (True, 0, False)
    assert (second.HasField("available"), second.low_balance) == (False, 1_500_000)
    assert (third.HasField("low_balance"), third.low_balance, third.available) == (True, 0, 5)


def test_ledger(memoro: CommandLine) -> None:
    entry = billing_pb2.LedgerEntry(
        sequence=7,
        kind=billing_pb2.LEDGER_ENTRY_KIND_SETTLEMENT,
        postings=[
            billing_pb2.Posting(account=billing_pb2.LEDGER_ACCOUNT_HELD, amount=-500),
            billing_pb2.Posting(account=billing_pb2.LEDGER_ACCOUNT_AVAILABLE, amount=380),
            billing_pb2.Posting(account=billing_pb2.LEDGER_ACCOUNT_REVENUE, amount=120),
        ],
        available_after=900,
        job_id="j1",
        create_time=NOON,
        hash=b"\xab" * 32,
    )
    memoro.server.script("ListLedgerEntries", service.ListLedgerEntriesResponse(entries=[entry]))
    told = memoro(
        *("billing", "ledger", "--kind", "settlement", "--kind", "hold", "--job", "j1"),
        *("--since", "2025-03-04T12:00", "-n", "5"),
    ).stdout
    assert all(part in told.split() for part in ("7", "SETTLEMENT", "+0.00038", "-0.0005", "0.0009", "j1"))
    [request] = memoro.server.requests("ListLedgerEntries")
    assert list(request.kinds) == [billing_pb2.LEDGER_ENTRY_KIND_SETTLEMENT, billing_pb2.LEDGER_ENTRY_KIND_HOLD]
    assert (request.job_id, request.created_from, request.page_size) == ("j1", NOON, 5)
    [line] = memoro.json("billing", "ledger")
    assert line["postings"] == {"HELD": -500, "AVAILABLE": 380, "REVENUE": 120}
    assert line["hash"] == "ab" * 32


def test_usage(memoro: CommandLine) -> None:
    row = service.UsageRow(
        date="2025-03-04", operation=billing_pb2.AI_OPERATION_EMBED, model="m", calls=2, cost_nano_dollars=50_000
    )
    memoro.server.script("GetUsage", service.GetUsageResponse(rows=[row], charged=7_500))
    told = memoro(
        *("billing", "usage", "--from", "2025-03-01", "--to", "2025-03-04", "-u", "ann", "--by", "day", "--by", "user")
    ).stdout
    assert all(part in told for part in ("2025-03-04", "EMBED", "$0.00005", "charged: 0.0075 credits ($0.000075)"))
    [request] = memoro.server.requests("GetUsage")
    assert (request.from_date, request.to_date, request.user_id) == ("2025-03-01", "2025-03-04", "ann")
    assert list(request.group_by) == [service.USAGE_DIMENSION_DAY, service.USAGE_DIMENSION_USER]
    [line] = memoro.json("billing", "usage")
    assert (line["charged"], line["rows"][0]["day"]) == (7_500, "2025-03-04")
    memoro.server.script("GetUsage", service.GetUsageResponse())
    assert memoro("billing", "usage").stdout.startswith("nothing was used\n")


def test_estimate(memoro: CommandLine, tmp_path: Path) -> None:
    line = service.EstimateLine(operation=billing_pb2.AI_OPERATION_EXTRACT, model="m", items=1, output_tokens=4096)
    answer = service.EstimateCostResponse(amount=7_500, lines=[line], margin_basis_points=5000, available=1_200)
    memoro.server.script("EstimateCost", answer)
    told = memoro("billing", "estimate", "-", stdin="from a pipe").stdout
    assert "4096" in told
    assert told.splitlines()[-1] == (
        "at most 0.0075 credits ($0.000075), margin and fees included; "
        "0.0012 credits ($0.000012) are available, which is too little"
    )
    file = tmp_path / "talk.json"
    file.write_text(json.dumps({"conversation_id": "talk", "messages": [{"text": "hi"}, {"text": "ho"}]}))
    assert memoro.json("billing", "estimate", "--conversation", str(file))[0]["amount"] == 7_500
    text, talk = memoro.server.requests("EstimateCost")
    assert text.create_memory.text == "from a pipe"
    assert len(talk.add_conversation.messages) == 2


def test_prices(memoro: CommandLine) -> None:
    price = billing_pb2.Price(
        provider="openai", model="m", operation=billing_pb2.AI_OPERATION_EMBED, input_price=150_000, fee=1_000
    )
    listed = service.ListPricesResponse(prices=[price], margin_basis_points=4_950)
    memoro.server.script("ListPrices", listed)
    told = memoro("billing", "prices", "--provider", "openai", "--all").stdout
    assert all(part in told for part in ("EMBED", "$0.15", "$0.00", "0.001", "charge: 49.5 %"))
    [request] = memoro.server.requests("ListPrices")
    assert (request.provider, request.all_times) == ("openai", True)
    assert memoro.json("billing", "prices")[0]["margin_basis_points"] == 4_950

    memoro.server.script("SetPrice", admin_service_pb2.SetPriceResponse(price=price))
    shown = memoro(
        *("billing", "price", "openai", "m", "Embed", "--input", "0.15", "--output", "0", "--fee", "0.001"),
        *("--from", "2025-03-04T12:00"),
    ).stdout
    assert "$0.15" in shown
    [line] = memoro.json("billing", "price", "local", "m", "extract", "--input", "0", "--output", "0.000001")
    assert line["fee"] == 1_000
    first, second = memoro.server.requests("SetPrice")
    assert (first.input_price, first.output_price, first.fee, first.valid_from) == (150_000, 0, 1_000, NOON)
    assert first.operation == billing_pb2.AI_OPERATION_EMBED
    assert (second.output_price, second.fee, second.HasField("valid_from")) == (1, 0, False)


def test_budgets_and_breakers(memoro: CommandLine) -> None:
    memoro.server.script("GetCircuitBreaker", admin_service_pb2.GetCircuitBreakerResponse(breakers=[BREAKER]))
    told = memoro("billing", "breaker", "--tenant", "t1").stdout
    assert all(part in told for part in ("TENANT", "t1", "OPEN", "100.0 %"))
    assert memoro.json("billing", "breaker")[0]["deferred_jobs"] == 3
    memoro.server.script("ResetCircuitBreaker", admin_service_pb2.ResetCircuitBreakerResponse(breaker=BREAKER))
    for arguments, scope in (
        ((), billing_pb2.BUDGET_SCOPE_DEPLOYMENT),
        (("--tenant", "t1"), billing_pb2.BUDGET_SCOPE_TENANT),
        (("--tenant", "t1", "--user", "ann"), billing_pb2.BUDGET_SCOPE_USER),
    ):
        assert "OPEN" in memoro("billing", "breaker", "--reset", *arguments).stdout
        assert memoro.server.requests("ResetCircuitBreaker")[-1].scope == scope
    assert memoro.server.requests("ResetCircuitBreaker")[-1].user_id == "ann"

    memoro.server.script("SetBudget", admin_service_pb2.SetBudgetResponse(breaker=BREAKER))
    assert memoro.json("billing", "budget", "--tenant", "t1", "--credits", "100")[0]["limit"] == 100_000_000
    memoro("billing", "budget", "--tenant", "t1", "--each-user", "--micro-credits", "0")
    memoro.server.script("SetBudget", admin_service_pb2.SetBudgetResponse())
    assert memoro("billing", "budget", "--none").stdout == "no daily budget\n"
    tenant, users, deployment = memoro.server.requests("SetBudget")
    assert (tenant.scope, tenant.limit) == (billing_pb2.BUDGET_SCOPE_TENANT, 100_000_000)
    assert (users.scope, users.HasField("limit"), users.limit) == (billing_pb2.BUDGET_SCOPE_USER, True, 0)
    assert (deployment.scope, deployment.HasField("limit")) == (billing_pb2.BUDGET_SCOPE_DEPLOYMENT, False)


def test_costs(memoro: CommandLine) -> None:
    costs = admin_service_pb2.GetAiCostsResponse(
        date="2025-03-04",
        cost_nano_dollars=50_000,
        budget=BREAKER,
        operations=[admin_service_pb2.OperationCost(operation=billing_pb2.AI_OPERATION_EMBED, calls=2)],
        recent_calls=[admin_service_pb2.AiCall(job_id="j1", attempt=2, call=1, presumed=True, start_time=NOON)],
        house=[billing_pb2.Posting(account=billing_pb2.LEDGER_ACCOUNT_REVENUE, amount=2_500)],
    )
    memoro.server.script("GetAiCosts", costs)
    told = memoro("billing", "costs", "2025-03-04", "--tenant", "t1", "--recent", "5").stdout
    assert told.startswith("2025-03-04: the providers charge $0.00005\n")
    assert all(part in told for part in ("the budget", "EMBED", "j1", "yes", "revenue", "0.0025"))
    [line] = memoro.json("billing", "costs")
    assert line["house"] == {"REVENUE": 2_500}
    first, second = memoro.server.requests("GetAiCosts")
    assert (first.date, first.tenant_id, first.recent, second.date) == ("2025-03-04", "t1", 5, "")
    memoro.server.script("GetAiCosts", admin_service_pb2.GetAiCostsResponse(date="2025-03-05"))
    assert memoro("billing", "costs").stdout == "2025-03-05: the providers charge $0.00\n"


def test_verify_fails_for_a_ledger_that_is_wrong(memoro: CommandLine) -> None:
    sound = admin_service_pb2.VerifyLedgerResponse(valid=True, entries=9, head_hash=b"\xab" * 32, complete=True)
    memoro.server.script("VerifyLedger", sound)
    told = memoro("billing", "verify", "t1").stdout
    assert told == f"9 entries are as they were made, and so is the balance; the last one's hash is {'ab' * 32}\n"
    assert memoro.json("billing", "verify", "t1")[0]["head_hash"] == "ab" * 32
    broken = admin_service_pb2.VerifyLedgerResponse(entries=9, first_invalid_sequence=4, problem="its hash\nis not")
    memoro.server.script("VerifyLedger", broken)
    assert memoro("billing", "verify", "t1", code=1).stderr == "error: entry 4 is wrong: its hash is not\n"
    assert memoro.json("billing", "verify", "t1", code=1)[0]["valid"] is False
    memoro.server.script("VerifyLedger", admin_service_pb2.VerifyLedgerResponse(entries=9, problem="5 are missing"))
    assert memoro("billing", "verify", "t1", code=1).stderr == "error: the balance is wrong: 5 are missing\n"
    memoro.server.script("VerifyLedger", admin_service_pb2.VerifyLedgerResponse(valid=True, entries=9))
    assert "there was time for 9 entries only" in memoro("billing", "verify", "t1", code=1).stderr


def test_verify_takes_all_ledgers_and_counts_those_that_are_wrong(memoro: CommandLine) -> None:
    tenants = [admin_pb2.Tenant(id=f"t{number}", name=f"[team] {number}") for number in range(3)]
    memoro.server.script("ListTenants", admin_service_pb2.ListTenantsResponse(tenants=tenants))
    sound = admin_service_pb2.VerifyLedgerResponse(valid=True, entries=9, complete=True)
    broken = admin_service_pb2.VerifyLedgerResponse(entries=9, first_invalid_sequence=4, problem="its hash is not")
    memoro.server.script("VerifyLedger", sound, broken, sound)
    told = memoro("billing", "verify", "--all", code=1)
    assert told.stderr == "error: 1 of 3 ledgers is not as it should be\n"
    assert [line for line in told.stdout.splitlines() if "team" in line or "error" in line] == [
        "t0 [team] 0",
        "t1 [team] 1",
        "  error: entry 4 is wrong: its hash is not",
        "t2 [team] 2",
    ]
    memoro.server.script("VerifyLedger", sound)
    assert [line["tenant_id"] for line in memoro.json("billing", "verify", "--all")] == ["t0", "t1", "t2"]
    for arguments in ((), ("t1", "--all")):
        assert "give a TENANT_ID or --all" in memoro("billing", "verify", *arguments, code=2).stderr


def test_what_sets_something_takes_a_request_id(memoro: CommandLine) -> None:
    memoro.server.script("SetBudget", admin_service_pb2.SetBudgetResponse(breaker=BREAKER))
    memoro.server.script("SetPrice", admin_service_pb2.SetPriceResponse())
    memoro.server.script("ResetCircuitBreaker", admin_service_pb2.ResetCircuitBreakerResponse(breaker=BREAKER))
    again = ("--request-id", "r1")
    memoro("billing", "budget", "--tenant", "t1", "--credits", "5", *again)
    memoro("billing", "price", "openai", "m", "embed", "--input", "1", "--output", "0", *again)
    memoro("billing", "breaker", "--tenant", "t1", "--reset", *again)
    for method in ("SetBudget", "SetPrice", "ResetCircuitBreaker"):
        assert [request.request_id for request in memoro.server.requests(method)] == ["r1"]
    assert "goes with --reset" in memoro("billing", "breaker", *again, code=2).stderr


def test_a_test_alert_tells_what_each_channel_did(memoro: CommandLine) -> None:
    log = admin_service_pb2.AlertChannelResult(channel="log", delivered=True)
    email = admin_service_pb2.AlertChannelResult(channel="email", problem="no answer")
    memoro.server.script("SendTestAlert", admin_service_pb2.SendTestAlertResponse(results=[log, email]))
    told = memoro("admin", "test-alert", "--severity", "critical", "-m", "hello").stdout
    assert [line.split() for line in told.splitlines()[1:]] == [["log", "yes"], ["email", "no", "answer"]]
    assert [line["delivered"] for line in memoro.json("admin", "test-alert")] == [True, False]
    first, second = memoro.server.requests("SendTestAlert")
    assert (first.severity, first.message) == (admin_pb2.ALERT_SEVERITY_CRITICAL, "hello")
    assert second.severity == admin_pb2.ALERT_SEVERITY_UNSPECIFIED
    memoro.server.script("SendTestAlert", admin_service_pb2.SendTestAlertResponse(results=[email]))
    assert memoro("admin", "test-alert", code=1).stderr == "error: no channel took the alert\n"


def test_add_says_what_is_missing_and_what_to_do(memoro: CommandLine) -> None:
    lacking = Failure(
        grpc.StatusCode.FAILED_PRECONDITION,
        "INSUFFICIENT_CREDITS",
        "needs 7500 micro-credits, has 1200: add credits",
        metadata={"need": "7500", "have": "1200"},
    )
    memoro.server.script("CreateMemory", lacking)
    assert memoro("add", "a text", "-u", "ann", code=1).stderr == (
        "error: it may cost up to 0.0075 credits ($0.000075), and 0.0012 credits ($0.000012) are available: "
        "have credits added, by an operator with memoro billing add (INSUFFICIENT_CREDITS)\n"
    )


def test_add_says_when_a_job_is_put_off(memoro: CommandLine) -> None:
    deferred = jobs_pb2.Job(id="j1", state=jobs_pb2.JOB_STATE_DEFERRED, cost_bound=500)
    answer = memory_service_pb2.CreateMemoryResponse(memory=memory_pb2.Memory(id="m1"), job=deferred)
    memoro.server.script("CreateMemory", answer)
    assert memoro("add", "a text", "-u", "ann").stdout.splitlines() == [
        "stored memory m1, job j1",
        "job j1 DEFERRED; up to 0.0005 credits; runs when it is triggered",
    ]


def test_jobs_show_what_they_cost(memoro: CommandLine) -> None:
    waiting = jobs_pb2.Job(id="j1", state=jobs_pb2.JOB_STATE_QUEUED, cost_bound=500)
    ended = jobs_pb2.Job(
        id="j2", state=jobs_pb2.JOB_STATE_SUCCEEDED, cost_bound=500, usage=jobs_pb2.JobUsage(charged=120)
    )
    free = jobs_pb2.Job(id="j3", state=jobs_pb2.JOB_STATE_SUCCEEDED)
    memoro.server.script("ListJobs", jobs_service_pb2.ListJobsResponse(jobs=[waiting, ended, free]))
    lines = memoro("jobs", "list").stdout.splitlines()[1:]
    assert "up to 0.0005" in lines[0]
    assert "0.00012" in lines[1]
    assert "0.0" not in lines[2]
    assert [line["usage"]["charged"] for line in memoro.json("jobs", "list")] == [0, 120, 0]
    for job, told in ((waiting, "job j1 QUEUED; up to 0.0005 credits"), (ended, "job j2 SUCCEEDED; 0.00012 credits")):
        memoro.server.script("GetJob", jobs_service_pb2.GetJobResponse(job=job))
        assert memoro("jobs", "get", job.id).stdout.startswith(f"{told}\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("add", "t1"),
        ("add", "t1", "--credits", "1", "--micro-credits", "1"),
        ("add", "t1", "--credits", "1e3"),
        ("add", "t1", "--credits", "-1"),
        ("add", "t1", "--credits", "0.0000001"),
        ("add", "t1", "--micro-credits", "-1"),
        ("add", "t1", "--micro-credits", "1.5"),
        ("add", "t1", "--credits", "1", "--priority", "101"),
        ("add", "t1", "--credits", "1", "--expires", "soon"),
        ("set", "t1"),
        ("set", "t1", "--low-credits", "1", "--low-micro-credits", "1"),
        ("ledger", "--kind", "theft"),
        ("ledger", "--since", "yesterday"),
        ("usage", "--from", "2025-13-01"),
        ("usage", "--by", "moon"),
        ("estimate",),
        ("estimate", "x", "--conversation", __file__),
        ("costs", "yesterday"),
        ("breaker", "--user", "ann"),
        ("breaker", "--tenant", "t1", "--user", "ann"),
        ("budget",),
        ("budget", "--none", "--credits", "1"),
        ("budget", "--each-user", "--credits", "1"),
        ("price", "local", "m", "embed"),
        ("price", "local", "m", "sing", "--input", "0", "--output", "0"),
        ("price", "local", "m", "embed", "--input", "0.0000001", "--output", "0"),
        ("price", "local", "m", "embed", "--input", "0", "--output", "0", "--fee", "1", "--fee-micro-credits", "1"),
    ],
)
def test_mistakes_are_refused_before_any_call(memoro: CommandLine, arguments: tuple[str, ...]) -> None:
    assert memoro("billing", *arguments, code=2).stderr
    assert not memoro.server.calls
