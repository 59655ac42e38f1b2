"""`memoro billing` against a whole deployment whose models cost something."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from memoro import Client
from tests.support.dev import Dev

pytestmark = pytest.mark.e2e

TEXT = "Anna Keller works at TechCorp."


def lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def tenant(priced_dev: Dev) -> Iterator[tuple[str, str]]:
    """The id and the key of a tenant of its own, without credits."""
    with Client(priced_dev.endpoint, api_key=priced_dev.admin_key) as operator:
        made = operator.admin.tenants.create(f"t-{uuid.uuid4().hex[:12]}", tier="enterprise")
        created = operator.admin.keys.create(made.id)
        assert created.secret is not None
        yield made.id, created.secret


def test_a_text_is_paid_for(priced_dev: Dev, tenant: tuple[str, str]) -> None:
    tenant_id, key = tenant

    def memoro(*arguments: str, code: int = 0) -> str:
        return priced_dev.memoro(*arguments, code=code, api_key=key)

    def operate(*arguments: str, code: int = 0) -> str:
        return priced_dev.memoro("billing", *arguments, code=code, api_key=priced_dev.admin_key)

    [estimate] = lines(memoro("billing", "estimate", TEXT, "--json"))
    refused = memoro("add", TEXT, "--user", "ann", code=1)
    assert "and 0 credits ($0.00) are available: have credits added" in refused
    assert "INSUFFICIENT_CREDITS" in refused

    assert "gave 12.5 credits ($0.125)" in operate("add", tenant_id, "--credits", "12.5", "--note", "invoice 7")
    [added] = lines(memoro("add", TEXT, "--user", "ann", "--wait", "--json"))
    job = added["job"]
    assert job["cost_bound"] == estimate["amount"]
    charged = job["usage"]["charged"]
    [balance] = lines(memoro("billing", "balance", "--json"))
    assert (balance["available"], balance["held"]) == (12_500_000 - charged, 0)
    assert lines(operate("balance", "--tenant", tenant_id, "--json")) == [balance]
    assert "invoice 7" in memoro("billing", "balance")

    entries = lines(memoro("billing", "ledger", "--json"))
    assert [entry["kind"] for entry in entries] == ["SETTLEMENT", "HOLD", "GRANT"]
    assert job["id"] in memoro("billing", "ledger", "--kind", "hold")
    assert memoro("billing", "ledger", "--until", "2020-01-01") == "no entries\n"
    [usage] = lines(memoro("billing", "usage", "--by", "model", "--json"))
    assert usage["charged"] == charged
    assert f"; {charged / 1_000_000:.6f}".rstrip("0") in memoro("jobs", "get", job["id"])
    [proof] = lines(operate("verify", tenant_id, "--json"))
    assert (proof["valid"], proof["entries"], proof["head_hash"]) == (True, 3, entries[0]["hash"])
    assert tenant_id in {line["tenant_id"] for line in lines(operate("verify", "--all", "--json"))}
    assert "the providers charge $" in operate("costs", "--tenant", tenant_id)
    assert lines(operate("set", tenant_id, "--credits", "0", "--json"))[0]["available"] == 0
    for arguments in (("add", tenant_id, "--credits", "1"), ("breaker",), ("verify", tenant_id)):
        assert "SCOPE_MISSING" in memoro("billing", *arguments, code=1)


def test_prices_and_budgets(priced_dev: Dev, tenant: tuple[str, str]) -> None:
    tenant_id, _ = tenant

    def operate(*arguments: str, code: int = 0) -> str:
        return priced_dev.memoro("billing", *arguments, code=code, api_key=priced_dev.admin_key)

    model = f"model-{uuid.uuid4().hex[:8]}"
    operate("price", "openai", model, "extract", "--input", "0.15", "--output", "0.6", "--fee-micro-credits", "7")
    [listed] = lines(operate("prices", "--model", model, "--json"))
    [price] = listed["prices"]
    assert (price["input_price"], price["output_price"], price["fee"]) == (150_000, 600_000, 7)
    assert "$0.15" in operate("prices")

    [budget] = lines(operate("budget", "--tenant", tenant_id, "--credits", "5", "--json"))
    assert (budget["scope"], budget["limit"]) == ("TENANT", 5_000_000)
    [reset] = lines(operate("breaker", "--tenant", tenant_id, "--reset", "--json"))
    assert reset["limit"] == 10_000_000
    assert tenant_id in operate("breaker", "--tenant", tenant_id)
    assert operate("budget", "--tenant", tenant_id, "--none") == "no daily budget\n"
    assert "BUDGET_NOT_FOUND" in operate("breaker", "--tenant", tenant_id, "--reset", code=1)
    assert "log" in priced_dev.memoro("admin", "test-alert", api_key=priced_dev.admin_key)
