"""Raising alerts within the transactions that they tell of."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import asyncpg
import pytest

from memoro_core.postgres.alert_store import raise_alert_in
from tests.support.alerts import clear_alerts, make_alert, stored_alerts
from tests.support.domain import Domain


@pytest.fixture(autouse=True)
async def _none_before(domain: Domain) -> None:
    await clear_alerts(domain.database)


async def test_a_tenants_transaction_raises_its_own_alerts_and_the_deployments(domain: Domain) -> None:
    own, common = make_alert(tenant=domain.tenant), make_alert(details={"limit": 100, "nested": {"percent": 75}})
    async with domain.database.tenant_tx(domain.tenant) as connection:
        assert await raise_alert_in(connection, own)
        assert await raise_alert_in(connection, common)

    first, second = await stored_alerts(domain.database)
    assert (first["alert_id"], first["tenant_id"], first["state"]) == (own.id, domain.tenant, "PENDING")
    assert (second["tenant_id"], second["details"]) == (common.tenant_id, common.details)
    assert second["next_attempt_at"] == common.created_at


async def test_an_alert_is_raised_once_whoever_raises_it(domain: Domain) -> None:
    async with domain.database.tenant_tx(domain.tenant) as connection:
        assert await raise_alert_in(connection, make_alert(key="budget/50"))
        assert not await raise_alert_in(connection, make_alert(key="budget/50"))
    async with domain.database.tenant_tx(await domain.new_tenant()) as connection:
        assert not await raise_alert_in(connection, make_alert(key="budget/50"))
    async with domain.database.system_tx() as connection:
        assert not await raise_alert_in(connection, make_alert(key="budget/50"))
        assert await raise_alert_in(connection, make_alert(key="budget/75"))
    assert len(await stored_alerts(domain.database)) == 2


async def test_of_alerts_raised_at_the_same_time_one_stays(domain: Domain) -> None:
    async def raise_one() -> bool:
        async with domain.database.tenant_tx(domain.tenant) as connection:
            return await raise_alert_in(connection, make_alert(key="budget/100"))

    assert sum(await asyncio.gather(*(raise_one() for _ in range(20)))) == 1


async def test_an_alert_goes_with_its_transaction(domain: Domain) -> None:
    with suppress(ZeroDivisionError):
        async with domain.database.tenant_tx(domain.tenant) as connection:
            assert await raise_alert_in(connection, make_alert(key="lost"))
            raise ZeroDivisionError
    async with domain.database.tenant_tx(domain.tenant) as connection:
        assert await raise_alert_in(connection, make_alert(key="lost"))


async def test_a_tenant_raises_no_alert_of_another(domain: Domain) -> None:
    other = await domain.new_tenant()
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
        async with domain.database.tenant_tx(domain.tenant) as connection:
            await raise_alert_in(connection, make_alert(tenant=other))


@pytest.mark.parametrize(
    "statement",
    ["SELECT title FROM alerts", "UPDATE alerts SET state = 'DELIVERED'", "DELETE FROM alerts", "SELECT * FROM alerts"],
)
async def test_a_tenants_transaction_does_no_more_than_raise(domain: Domain, statement: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with domain.database.tenant_tx(domain.tenant) as connection:
            await connection.execute(statement)
