"""From the transaction that sets credits aside to the tenant's receiver."""

from __future__ import annotations

from memoro_core.billing.model import BudgetKey, BudgetScope, Cause, HoldRequest
from memoro_core.ids import GrantId, JobId, UserId, new_id
from memoro_core.postgres.budget_store import PostgresBudgetStore
from memoro_core.postgres.credit_store import PostgresCreditStore
from tests.fakes.webhook_receiver import Receiver
from tests.integration.webhooks.conftest import Delivering, Webhooks
from tests.support.jobs import now


async def test_a_hold_that_uses_up_budget_and_balance_is_told_to_the_tenant_signed(
    webhooks: Webhooks, receiver: Receiver, delivering: Delivering
) -> None:
    database, tenant, money = webhooks.domain.database, webhooks.domain.tenant, webhooks.domain.money
    await webhooks.endpoint(receiver)
    await money.give(tenant, 1_000)
    await PostgresCreditStore(database).set_balance(tenant, GrantId(new_id()), None, 500, Cause(), None, now=now())
    budget = BudgetKey(BudgetScope.TENANT, tenant)
    await PostgresBudgetStore(database).set_limit(budget, 1_000, now().date(), None, now=now())
    request = HoldRequest(JobId(new_id()), UserId("alice"), 600)
    async with database.tenant_tx(tenant) as connection:
        await money.holds.hold_in(connection, tenant, [request], now=now())
    async with delivering():
        received = await receiver.wait_for(2)
    assert all(event.verified_by(receiver.secrets[0]) for event in received)
    told = {event.body["type"]: event.body["data"] for event in received}
    assert (told["balance.low"]["available"], told["balance.low"]["low_balance"]) == (400, 500)
    crossed = told["spend.threshold"]
    assert (crossed["scope"], crossed["percent"], crossed["committed"], crossed["limit"]) == ("TENANT", 50, 600, 1_000)
