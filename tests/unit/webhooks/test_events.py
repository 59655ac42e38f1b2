"""Bodies of events: what receivers read, word for word."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from uuid import UUID

from memoro_core.billing.model import BudgetKey, BudgetScope
from memoro_core.ids import TenantId, UserId
from memoro_core.webhooks.events import balance_low, spend_threshold

TENANT = TenantId(UUID("0199a0a0-0000-7000-8000-000000000001"))
NOW = datetime(2025, 3, 4, 12, 0, 0, 123456, UTC)


def test_a_low_balance_tells_what_is_left_and_what_was_wanted() -> None:
    event = balance_low(TENANT, 900_000, 1_000_000, NOW)
    assert event.type == "balance.low"
    assert json.loads(event.payload) == {
        "type": "balance.low",
        "timestamp": "2025-03-04T12:00:00.123Z",
        "data": {"tenant_id": str(TENANT), "available": 900_000, "low_balance": 1_000_000},
    }


def test_a_spend_threshold_tells_whose_budget_and_on_which_day() -> None:
    key = BudgetKey(BudgetScope.USER, TENANT, UserId("ann"))
    event = spend_threshold(key, 75, committed=80, limit=100, day=date(2025, 3, 4), now=NOW)
    assert event.type == "spend.threshold"
    assert json.loads(event.payload)["data"] == {
        "tenant_id": str(TENANT),
        "scope": "USER",
        "user_id": "ann",
        "day": "2025-03-04",
        "percent": 75,
        "committed": 80,
        "limit": 100,
    }


def test_the_budget_of_a_whole_tenant_names_no_user() -> None:
    event = spend_threshold(
        BudgetKey(BudgetScope.TENANT, TENANT), 50, committed=1, limit=2, day=date(2025, 3, 4), now=NOW
    )
    assert json.loads(event.payload)["data"]["user_id"] == ""


def test_no_two_events_share_an_id() -> None:
    assert balance_low(TENANT, 1, 2, NOW).id != balance_low(TENANT, 1, 2, NOW).id
