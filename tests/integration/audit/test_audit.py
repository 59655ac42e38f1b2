"""The audit log in the database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from memoro_core.audit.model import AuditEvent, AuditFilter
from memoro_core.audit.service import AuditService
from memoro_core.clock import SystemClock
from memoro_core.ids import ApiKeyId, AuditEventId, TenantId, new_id
from memoro_core.postgres.audit_store import PostgresAuditStore
from memoro_core.tenancy.model import FREE_TIER, Principal, Scope
from tests.support.domain import Domain

WHO = Principal(TenantId(new_id()), ApiKeyId(new_id()), frozenset({Scope.ADMIN}), FREE_TIER)
BY_TOKEN = Principal(TenantId(new_id()), None, frozenset({Scope.ADMIN}), FREE_TIER, subject="alice")


@pytest_asyncio.fixture
async def audit(domain: Domain) -> AsyncIterator[AuditService]:
    service = AuditService(PostgresAuditStore(domain.database), SystemClock())
    yield service
    await service.close()


async def record(audit: AuditService, domain: Domain, method: str = "AdminService/PutTier", **changes: Any) -> None:
    what: dict[str, Any] = {
        "code": "OK",
        "reason": "",
        "tenant_id": domain.tenant,
        "request": "{}",
        "request_id": "x-1",
        "principal": WHO,
    } | changes
    await audit.record(what.pop("principal"), method, **what)


async def listed(audit: AuditService, size: int = 100, **which: Any) -> Sequence[AuditEvent]:
    return (await audit.list(AuditFilter(**which), size=size, position=None)).items


async def test_an_event_says_who_did_what_to_whom(audit: AuditService, domain: Domain) -> None:
    before = datetime.now(UTC)
    await record(audit, domain, code="NOT_FOUND", reason="API_KEY_NOT_FOUND", request='{"a": 1}')
    await record(audit, domain, principal=BY_TOKEN)
    by_token, by_key = await listed(audit, tenant_id=domain.tenant)
    assert (by_key.method, by_key.code, by_key.reason) == ("AdminService/PutTier", "NOT_FOUND", "API_KEY_NOT_FOUND")
    assert (by_key.actor_tenant_id, by_key.actor_api_key_id, by_key.actor_subject) == (
        WHO.tenant_id,
        WHO.api_key_id,
        "",
    )
    assert (by_key.request, by_key.request_id, by_key.tenant_id) == ('{"a": 1}', "x-1", domain.tenant)
    assert before <= by_key.at <= by_token.at <= datetime.now(UTC)
    assert (by_token.actor_api_key_id, by_token.actor_subject) == (None, "alice")


async def test_a_long_request_is_cut_between_two_characters(audit: AuditService, domain: Domain) -> None:
    await record(audit, domain, request="é" * 5000)
    await record(audit, domain, request="x" + "é" * 5000)
    odd, even = await listed(audit, tenant_id=domain.tenant)
    assert even.request == "é" * 2048
    assert odd.request == "x" + "é" * 2047


async def test_events_are_found_by_tenant_method_and_time(audit: AuditService, domain: Domain) -> None:
    await record(audit, domain, "AdminService/SuspendTenant")
    await asyncio.sleep(0.01)
    between = datetime.now(UTC)
    await asyncio.sleep(0.01)
    await record(audit, domain, "AdminService/ResumeTenant")
    await record(audit, domain, "AdminService/PauseQueue", tenant_id=None)

    def methods(events: Sequence[AuditEvent]) -> list[str]:
        return [event.method.removeprefix("AdminService/") for event in events]

    of_it: dict[str, Any] = {"tenant_id": domain.tenant}
    assert methods(await listed(audit, **of_it)) == ["ResumeTenant", "SuspendTenant"]
    assert methods(await listed(audit, **of_it, at_from=between)) == ["ResumeTenant"]
    assert methods(await listed(audit, **of_it, until=between)) == ["SuspendTenant"]
    assert methods(await listed(audit, **of_it, method="AdminService/SuspendTenant")) == ["SuspendTenant"]
    assert methods(await listed(audit, **of_it, method="AdminService/PutTier")) == []
    [pause] = await listed(audit, method="AdminService/PauseQueue", at_from=between)
    assert pause.tenant_id is None
    for far in (datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)):
        assert await listed(audit, **of_it, at_from=far, until=far) == []
        assert len([*await listed(audit, **of_it, at_from=far), *await listed(audit, **of_it, until=far)]) == 2


async def test_pages_hold_every_event_once(audit: AuditService, domain: Domain) -> None:
    for number in range(7):
        await record(audit, domain, request=str(number))
    seen: list[str] = []
    position = None
    while True:
        page = await audit.list(AuditFilter(tenant_id=domain.tenant), size=3, position=position)
        seen += [event.request for event in page.items]
        if (position := page.next_position) is None:
            break
    assert seen == ["6", "5", "4", "3", "2", "1", "0"]


async def test_an_event_is_written_though_its_caller_goes_away(domain: Domain) -> None:
    store = PostgresAuditStore(domain.database)
    entered, go = asyncio.Event(), asyncio.Event()

    class Slow:
        async def add(self, event: AuditEvent) -> None:
            entered.set()
            await go.wait()
            await store.add(event)

    audit = AuditService(Slow(), SystemClock())  # type: ignore[arg-type]
    call = asyncio.create_task(record(audit, domain))
    await entered.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    go.set()
    await audit.close()
    assert len(await listed(AuditService(store, SystemClock()), tenant_id=domain.tenant)) == 1


async def test_what_is_old_is_forgotten_the_oldest_first(domain: Domain, audit: AuditService) -> None:
    store = PostgresAuditStore(domain.database)
    long_ago = datetime(2001, 1, 1, tzinfo=UTC)
    for day in range(4):
        at = long_ago + timedelta(days=day)
        event = AuditEvent(
            AuditEventId(new_id()), at, "m", "OK", "", WHO.tenant_id, None, "", domain.tenant, str(day), ""
        )
        await store.add(event)
    assert await store.forget(before=long_ago + timedelta(days=3), limit=2) == 2
    assert [event.request for event in await listed(audit, tenant_id=domain.tenant)] == ["3", "2"]
    assert await store.forget(before=long_ago + timedelta(days=3), limit=2) == 1
    assert [event.request for event in await listed(audit, tenant_id=domain.tenant)] == ["3"]


async def test_nobody_changes_what_is_written(domain: Domain, audit: AuditService) -> None:
    await record(audit, domain)
    for statement in (
        "UPDATE audit_events SET code = 'OK'",
        "TRUNCATE audit_events",
        "INSERT INTO audit_events SELECT * FROM audit_events ON CONFLICT (event_id) DO UPDATE SET code = 'x'",
        "SELECT * FROM audit_events FOR UPDATE",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with domain.database.system_tx() as connection:
                await connection.execute(statement)
    for statement in ("SELECT FROM audit_events", "DELETE FROM audit_events"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with domain.database.tenant_tx(domain.tenant) as connection:
                await connection.execute(statement)
