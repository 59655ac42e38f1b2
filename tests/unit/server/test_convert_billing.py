"""Money: the contract's messages to and from the domain's objects."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from hypothesis import strategies as st

from memoro.v1 import admin_pb2, billing_pb2
from memoro.v1 import admin_service_pb2 as admin
from memoro.v1 import billing_service_pb2 as pb
from memoro_core.alerts.model import ChannelResult, Severity
from memoro_core.billing.breaker_model import BreakerStatus
from memoro_core.billing.model import (
    DEPLOYMENT,
    Balance,
    BreakerState,
    BudgetDay,
    BudgetKey,
    BudgetScope,
    Cause,
    CreditAccount,
    EntryKind,
    Grant,
    LedgerAccount,
    LedgerEntry,
    LedgerFilter,
    Price,
    Verification,
)
from memoro_core.billing.usage_model import AiCall, AiCosts, OperationCost, UsageDimension, UsageRow
from memoro_core.errors import MemoroError, Reason
from memoro_core.ids import ApiKeyId, GrantId, JobId, TenantId, UserId, new_id
from memoro_core.limits.model import NO_LIMITS
from memoro_core.llm.model import Operation
from memoro_core.tenancy.model import FREE_TIER, Principal, Scope
from memoro_server.call import Call, Method
from memoro_server.convert import billing as convert_billing
from memoro_server.convert import spending as convert_spending
from memoro_server.convert.billing import (
    from_balance,
    from_entry,
    from_postings,
    from_price,
    from_usage_row,
    to_day,
    to_dimensions,
    to_ledger_filter,
    to_tenant,
)
from memoro_server.convert.spending import (
    from_breaker,
    from_channel_result,
    from_costs,
    from_verification,
    to_budget_key,
    to_severity,
)
from memoro_server.policy import POLICIES

GET_BALANCE = "/memoro.v1.BillingService/GetBalance"
NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
OURS, THEIRS = TenantId(new_id()), TenantId(new_id())


def sent(message: Any) -> dict[str, Any]:
    return MessageToDict(message, preserving_proto_field_name=True)


@pytest.mark.parametrize(
    ("numbers", "enum"),
    [
        (convert_billing.ENTRY_KINDS, billing_pb2.LedgerEntryKind),
        (convert_billing.ACCOUNTS, billing_pb2.LedgerAccount),
        (convert_billing.OPERATIONS, billing_pb2.AiOperation),
        (convert_billing.DIMENSIONS, pb.UsageDimension),
        (convert_spending.SCOPES, billing_pb2.BudgetScope),
        (convert_spending.BREAKER_STATES, billing_pb2.BreakerState),
        (convert_spending.SEVERITIES, admin_pb2.AlertSeverity),
    ],
)
def test_every_value_of_an_enum_has_its_member(numbers: dict[Any, int], enum: Any) -> None:
    assert sorted(numbers.values()) == sorted(set(enum.values()) - {0})


# --- whose -----------------------------------------------------------------------------------------------------------


def call_of(*scopes: Scope) -> Call:
    no_context: Any = None
    call = Call(Method(GET_BALANCE, POLICIES[GET_BALANCE], None), no_context)
    call.principal = Principal(OURS, ApiKeyId(new_id()), frozenset(scopes), FREE_TIER, NO_LIMITS)
    return call


def test_everyone_may_name_his_own_tenant() -> None:
    for named in ("", str(OURS)):
        assert to_tenant(pb.GetBalanceRequest(tenant_id=named), call_of(Scope.BILLING)) == OURS


def test_only_the_scope_admin_names_another() -> None:
    request = pb.GetBalanceRequest(tenant_id=str(THEIRS))
    assert to_tenant(request, call_of(Scope.ADMIN)) == THEIRS
    with pytest.raises(MemoroError) as caught:
        to_tenant(request, call_of(*set(Scope) - {Scope.ADMIN}))
    assert (caught.value.reason, caught.value.metadata) == (Reason.SCOPE_MISSING, {"scope": "admin"})


# --- days, filters, budgets ------------------------------------------------------------------------------------------


@given(st.dates())
def test_a_day_survives(day: date) -> None:
    assert to_day(day.isoformat(), "date") == day


def test_no_day_is_none_and_a_day_that_no_calendar_has_is_refused() -> None:
    assert to_day("", "date") is None
    for text in ("2026-02-30", "2026-13-01", "0000-01-01", "2026-00-10"):
        with pytest.raises(MemoroError) as caught:
            to_day(text, "from_date")
        assert [it.field for it in caught.value.violations] == ["from_date"]


def test_a_ledger_filter() -> None:
    job_id = new_id()
    assert to_ledger_filter(pb.ListLedgerEntriesRequest()) == LedgerFilter()
    kinds = [billing_pb2.LEDGER_ENTRY_KIND_HOLD, billing_pb2.LEDGER_ENTRY_KIND_EXPIRY]
    request = pb.ListLedgerEntriesRequest(kinds=kinds, job_id=str(job_id))
    request.created_from.FromDatetime(NOW)
    asked = to_ledger_filter(request)
    assert asked == LedgerFilter((EntryKind.HOLD, EntryKind.EXPIRY), JobId(job_id), NOW)
    # UNSPECIFIED among them asks for every kind.
    assert to_ledger_filter(pb.ListLedgerEntriesRequest(kinds=[*kinds, 0])).kinds == ()  # type: ignore[list-item]


def test_dimensions_keep_their_order() -> None:
    asked = [pb.USAGE_DIMENSION_USER, pb.USAGE_DIMENSION_DAY]
    assert to_dimensions(asked) == (UsageDimension.USER, UsageDimension.DAY)


def test_a_budget_is_named_by_scope_tenant_and_user() -> None:
    reset, theirs = admin.ResetCircuitBreakerRequest, str(THEIRS)
    assert to_budget_key(reset(scope=billing_pb2.BUDGET_SCOPE_DEPLOYMENT)) == BudgetKey(BudgetScope.DEPLOYMENT)
    assert to_budget_key(reset(scope=billing_pb2.BUDGET_SCOPE_USER, tenant_id=theirs, user_id="ann")) == BudgetKey(
        BudgetScope.USER, THEIRS, UserId("ann")
    )
    sets = admin.SetBudgetRequest(scope=billing_pb2.BUDGET_SCOPE_USER, tenant_id=theirs)
    assert to_budget_key(sets) == BudgetKey(BudgetScope.USER, THEIRS)


def test_a_test_alert_is_a_warning_unless_it_says_otherwise() -> None:
    assert to_severity(admin_pb2.ALERT_SEVERITY_UNSPECIFIED) is Severity.WARNING
    assert to_severity(admin_pb2.ALERT_SEVERITY_CRITICAL) is Severity.CRITICAL


# --- answers ---------------------------------------------------------------------------------------------------------


def test_a_balance_goes_out_whole() -> None:
    account = CreditAccount(OURS, 1, 2, 21, 3, 4, 11, low_balance=5)
    grant = Grant(GrantId(new_id()), 21, 3, 7, NOW + timedelta(days=1), "invoice", NOW)
    assert sent(from_balance(Balance(account, [grant]))) == {
        "tenant_id": str(OURS),
        "available": "1",
        "held": "2",
        "granted": "21",
        "spent": "3",
        "expired": "4",
        "refunded": "11",
        "low_balance": "5",
        "grants": [
            {
                "id": str(grant.id),
                "amount": "21",
                "remaining": "3",
                "priority": 7,
                "expire_time": "2026-03-05T05:06:07Z",
                "note": "invoice",
                "create_time": "2026-03-04T05:06:07Z",
            }
        ],
    }


def test_an_entry_goes_out_whole() -> None:
    job_id, actor = JobId(new_id()), ApiKeyId(new_id())
    entry = LedgerEntry(
        tenant_id=OURS,
        seq=3,
        kind=EntryKind.SETTLEMENT,
        postings={LedgerAccount.REVENUE: 2, LedgerAccount.HELD: -5, LedgerAccount.AVAILABLE: 3, LedgerAccount.LOSS: 0},
        available_after=4,
        held_after=0,
        cause=Cause(job_id, "r", actor, "why"),
        created_at=NOW,
        hash=b"h" * 32,
    )
    told = from_entry(entry)
    assert (told.sequence, told.kind) == (3, billing_pb2.LEDGER_ENTRY_KIND_SETTLEMENT)
    assert [(it.account, it.amount) for it in told.postings] == [
        (billing_pb2.LEDGER_ACCOUNT_AVAILABLE, 3),
        (billing_pb2.LEDGER_ACCOUNT_HELD, -5),
        (billing_pb2.LEDGER_ACCOUNT_REVENUE, 2),
    ]
    assert (told.available_after, told.held_after, told.hash) == (4, 0, b"h" * 32)
    assert (told.job_id, told.request_id, told.actor, told.note) == (str(job_id), "r", str(actor), "why")


@given(st.dictionaries(st.sampled_from(LedgerAccount), st.integers(-(2**62), 2**62)))
def test_postings_come_in_the_order_of_their_numbers(amounts: dict[LedgerAccount, int]) -> None:
    told = from_postings(amounts)
    assert [it.account for it in told] == sorted(it.account for it in told)
    assert {it.account: it.amount for it in told} == {
        convert_billing.ACCOUNTS[account]: amount for account, amount in amounts.items() if amount
    }


def test_usage_tells_only_what_it_is_summed_up_by() -> None:
    whole = UsageRow(NOW.date(), Operation.EMBED, "local", "m", UserId("u"), 1, 2, 3, 4, 5_001)
    assert sent(from_usage_row(whole)) == {
        "date": "2026-03-04",
        "operation": "AI_OPERATION_EMBED",
        "provider": "local",
        "model": "m",
        "user_id": "u",
        "calls": "1",
        "input_tokens": "2",
        "output_tokens": "3",
        "items": "4",
        "cost_nano_dollars": "6",
    }
    assert sent(from_usage_row(UsageRow(None, None, "", "", None, 1, 0, 0, 0, 0))) == {"calls": "1"}


def test_a_price_goes_out_whole() -> None:
    price = Price("openai", "m", Operation.EXTRACT, 1, 2, 3, NOW)
    assert sent(from_price(price)) == {
        "provider": "openai",
        "model": "m",
        "operation": "AI_OPERATION_EXTRACT",
        "input_price": "1",
        "output_price": "2",
        "fee": "3",
        "valid_from": "2026-03-04T05:06:07Z",
    }


def a_breaker(key: BudgetKey, **fields: Any) -> BreakerStatus:
    values = {"limit": 1_000, "reserved": 150, "spent": 250, "raised": 600, **fields}
    return BreakerStatus(BudgetDay(key, NOW.date(), **values), deferred_jobs=9, day_end=NOW + timedelta(hours=1))


def test_a_breaker_tells_its_ceiling_and_how_far_it_is_used_up() -> None:
    key = BudgetKey(BudgetScope.USER, OURS, UserId("ann"))
    assert sent(from_breaker(a_breaker(key, state=BreakerState.OPEN, opened_at=NOW))) == {
        "scope": "BUDGET_SCOPE_USER",
        "tenant_id": str(OURS),
        "user_id": "ann",
        "state": "BREAKER_STATE_OPEN",
        "date": "2026-03-04",
        "limit": "1600",
        "reserved": "150",
        "spent": "250",
        "percent_used": 25.0,
        "deferred_jobs": "9",
        "open_time": "2026-03-04T05:06:07Z",
        "day_end_time": "2026-03-04T06:06:07Z",
    }


def test_the_deployments_breaker_names_nobody_and_a_budget_of_nothing_is_used_up() -> None:
    told = from_breaker(a_breaker(BudgetKey(BudgetScope.DEPLOYMENT), limit=0, raised=0, reserved=0, spent=0))
    assert (told.tenant_id, told.user_id, told.percent_used) == ("", "", 100.0)
    assert UUID(int=0) == DEPLOYMENT


def test_a_days_costs_go_out_whole() -> None:
    job_id = JobId(new_id())
    call = AiCall(OURS, job_id, 2, 3, Operation.EMBED, "openai", "m", 4, 5, 1_001, True, NOW)
    cost = OperationCost(Operation.EMBED, "openai", "m", 6, 7, 8, 2_001, for_questions=True)
    told = from_costs(AiCosts(NOW.date(), None, [cost, cost], [call], {LedgerAccount.PROVIDER_COST: 3}))
    assert (told.date, told.cost_nano_dollars, told.HasField("budget")) == ("2026-03-04", 5, False)
    assert sent(told.operations[0]) == {
        "operation": "AI_OPERATION_EMBED",
        "provider": "openai",
        "model": "m",
        "calls": "6",
        "input_tokens": "7",
        "output_tokens": "8",
        "cost_nano_dollars": "3",
        "for_questions": True,
    }
    assert sent(told.recent_calls[0]) == {
        "tenant_id": str(OURS),
        "job_id": str(job_id),
        "attempt": 2,
        "call": 3,
        "operation": "AI_OPERATION_EMBED",
        "provider": "openai",
        "model": "m",
        "input_tokens": "4",
        "output_tokens": "5",
        "cost_nano_dollars": "2",
        "presumed": True,
        "start_time": "2026-03-04T05:06:07Z",
    }
    assert [(it.account, it.amount) for it in told.house] == [(billing_pb2.LEDGER_ACCOUNT_PROVIDER_COST, 3)]


def test_what_came_of_a_check_goes_out_whole() -> None:
    found = from_verification(Verification(4, b"h" * 32, first_invalid_seq=5, problem="its hash does not fit"))
    assert (found.valid, found.entries, found.first_invalid_sequence) == (False, 4, 5)
    assert (found.problem, found.head_hash) == ("its hash does not fit", b"h" * 32)
    assert from_verification(Verification(4, b"h" * 32)).valid
    assert from_verification(Verification(4, b"h" * 32)).complete
    assert not from_verification(Verification(4, b"h" * 32, complete=False)).complete


def test_what_a_channel_did_goes_out_without_more() -> None:
    result = ChannelResult("slack", delivered=False, problem="invalid_token", failed=True)
    assert sent(from_channel_result(result)) == {"channel": "slack", "problem": "invalid_token"}
