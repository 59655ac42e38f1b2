"""What one process changes, another that has remembered it learns at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from memoro_core.clock import SystemClock
from memoro_core.errors import MemoroError, Reason
from memoro_core.ids import TenantId
from memoro_core.limits.model import Limits
from memoro_core.postgres.policy_changes import PolicyChanges
from memoro_core.postgres.tier_store import PostgresTierStore
from memoro_core.settings import Settings
from memoro_core.tasks import end_task
from memoro_core.tenancy.authentication import Authenticator
from memoro_core.tenancy.model import ENTERPRISE_TIER, FREE_TIER, Scope, TenantState, TierName
from memoro_core.tenancy.ports import Credential
from memoro_core.tenancy.service import TenancyService
from tests.support.domain import Domain

LONG = 60.0
SOON = 0.25
TOUCH = "UPDATE tenants SET state = 'ACTIVE' WHERE tenant_id = $1"


@dataclass
class Heard:
    """A `PolicyCache` that notes what it is told."""

    told: list[object] = field(default_factory=list)

    def forget(self, tenant_id: TenantId) -> None:
        self.told.append(tenant_id)

    def forget_tier(self, tier: TierName) -> None:
        self.told.append(tier)

    def forget_all(self) -> None:
        self.told.append("all")

    async def hears(self, what: object, *, within: float = SOON) -> float:
        """After how many seconds it was told that."""
        start = time.monotonic()
        async with asyncio.timeout(within):
            while what not in self.told:
                await asyncio.sleep(0.001)
        return time.monotonic() - start


@pytest.fixture
def tenancy(domain: Domain) -> TenancyService:
    return TenancyService(domain.tenancy_store, SystemClock())


@asynccontextmanager
async def listening(settings: Settings, cache: Any) -> AsyncIterator[PolicyChanges]:
    changes = PolicyChanges(settings, cache)
    task = asyncio.create_task(changes.run())
    try:
        async with asyncio.timeout(10):
            while not changes.listening:
                await asyncio.sleep(0.01)
        yield changes
    finally:
        await end_task(task)


@pytest_asyncio.fixture
async def heard(settings: Settings) -> AsyncIterator[Heard]:
    cache = Heard()
    async with listening(settings, cache):
        assert cache.told == ["all"]
        cache.told.clear()
        yield cache


async def test_every_change_of_what_callers_may_do_is_told(
    domain: Domain, tenancy: TenancyService, heard: Heard
) -> None:
    tenant = domain.tenant
    key, _ = await tenancy.create_api_key(None, tenant, "k", (), None)
    tiers = PostgresTierStore(domain.database)
    [enterprise] = [tier for tier in await tiers.list_tiers() if tier.name == ENTERPRISE_TIER]

    async def expire() -> None:
        async with domain.database.system_tx() as connection:
            await connection.execute("UPDATE api_keys SET expires_at = now() WHERE api_key_id = $1", key.id)

    changes: list[tuple[Callable[[], Awaitable[Any]], object]] = [
        (lambda: tenancy.update_tenant(tenant, limits=Limits(open_streams=1)), tenant),
        (lambda: tenancy.update_tenant(tenant, tier=FREE_TIER), tenant),
        (lambda: tenancy.set_state(tenant, TenantState.SUSPENDED), tenant),
        (lambda: tenancy.set_state(tenant, TenantState.ACTIVE), tenant),
        (expire, tenant),
        (lambda: tenancy.revoke_api_key(tenant, key.id), tenant),
        (lambda: tiers.put_tier(enterprise, version=None, most=100, request=None), ENTERPRISE_TIER),
    ]
    for change, about in changes:
        heard.told.clear()
        await change()
        await heard.hears(about)
        assert set(heard.told) == {about}


async def test_what_is_not_committed_is_not_told(domain: Domain, heard: Heard) -> None:
    with pytest.raises(ZeroDivisionError):
        await _touch(domain, 0)
    async with domain.database.system_tx() as connection:
        await connection.execute(TOUCH, domain.tenant)
        await asyncio.sleep(0.1)
        assert heard.told == []
    await heard.hears(domain.tenant)
    assert heard.told == [domain.tenant]


@pytest.mark.parametrize("payload", ["", "gold", "tenant_id", "tenant_id x", "planet earth"])
async def test_what_it_does_not_understand_may_be_about_anything(domain: Domain, heard: Heard, payload: str) -> None:
    async with domain.database.system_tx() as connection:
        await connection.execute("SELECT pg_notify('memoro_policies', $1)", payload)
    await heard.hears("all")


async def test_a_lost_connection_is_made_again_and_everything_forgotten(
    domain: Domain, tenancy: TenancyService, settings: Settings, owner_database_url: str
) -> None:
    cache = Heard()
    async with listening(settings, cache) as changes:
        for _ in range(3):
            cache.told.clear()
            assert await _end_connections(owner_database_url) >= 1
            await cache.hears("all", within=5)
            assert changes.listening
            await tenancy.update_tenant(domain.tenant, limits=Limits(open_streams=1))
            await cache.hears(domain.tenant)


async def test_a_server_that_can_not_be_reached_is_tried_for_ever(settings: Settings) -> None:
    nowhere = settings.model_copy(update={"database_url": "postgresql://nobody@127.0.0.1:1/none"})
    changes = PolicyChanges(nowhere, Heard())
    task = asyncio.create_task(changes.run())
    await asyncio.sleep(1)
    assert not task.done()
    assert not changes.listening
    await end_task(task)


async def test_its_connection_ends_with_it(settings: Settings, owner_database_url: str) -> None:
    owner = await asyncpg.connect(owner_database_url)
    count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'memoro policies'"
    before = await owner.fetchval(count)
    async with listening(settings, Heard()):
        assert await owner.fetchval(count) == before + 1
    async with asyncio.timeout(5):
        while await owner.fetchval(count) != before:
            await asyncio.sleep(0.01)
    await owner.close()


async def _touch(domain: Domain, divisor: int) -> float:
    async with domain.database.system_tx() as connection:
        await connection.execute(TOUCH, domain.tenant)
        return 1 / divisor


async def _end_connections(owner_url: str) -> int:
    owner = await asyncpg.connect(owner_url)
    try:
        ended: int = await owner.fetchval(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'memoro policies'"
        )
    finally:
        await owner.close()
    return ended


class Gate:
    """The store of credentials, whose answers wait until they are let go."""

    def __init__(self, domain: Domain) -> None:
        self._store = domain.tenancy_store
        self.read = asyncio.Event()
        self.let_go = asyncio.Event()
        self.look_ups = 0

    async def find_credential(self, prefix: str) -> Credential | None:
        self.look_ups += 1
        credential = await self._store.find_credential(prefix)
        self.read.set()
        await self.let_go.wait()
        return credential


@pytest.mark.parametrize("forget", ["tenant", "tier", "all"])
async def test_what_was_read_before_a_change_is_not_remembered_after_it(
    domain: Domain, tenancy: TenancyService, forget: str
) -> None:
    key, secret = await tenancy.create_api_key(None, domain.tenant, "k", (), None)
    gate = Gate(domain)
    authenticator = Authenticator(gate, SystemClock(), ttl=LONG)  # type: ignore[arg-type]
    under_way = asyncio.create_task(authenticator.authenticate(f"Bearer {secret}"))
    await gate.read.wait()
    await tenancy.revoke_api_key(domain.tenant, key.id)
    _forget(authenticator, forget, domain.tenant)
    gate.let_go.set()
    # It had begun before the change; what comes after it knows.
    await under_way
    with pytest.raises(MemoroError) as caught:
        await authenticator.authenticate(f"Bearer {secret}")
    assert caught.value.reason is Reason.CREDENTIALS_INVALID


@pytest.mark.parametrize("forget", ["tenant", "tier", "all"])
async def test_a_refusal_is_forgotten_too(domain: Domain, tenancy: TenancyService, forget: str) -> None:
    _, secret = await tenancy.create_api_key(None, domain.tenant, "k", (), None)
    authenticator = Authenticator(domain.tenancy_store, SystemClock(), ttl=LONG)
    await tenancy.set_state(domain.tenant, TenantState.SUSPENDED)
    with pytest.raises(MemoroError):
        await authenticator.authenticate(f"Bearer {secret}")
    await tenancy.set_state(domain.tenant, TenantState.ACTIVE)
    with pytest.raises(MemoroError):
        await authenticator.authenticate(f"Bearer {secret}")
    _forget(authenticator, forget, domain.tenant)
    assert (await authenticator.authenticate(f"Bearer {secret}")).tenant_id == domain.tenant


async def test_only_those_are_forgotten_whom_it_concerns(domain: Domain, tenancy: TenancyService) -> None:
    gate = Gate(domain)
    gate.let_go.set()
    authenticator = Authenticator(gate, SystemClock(), ttl=LONG)  # type: ignore[arg-type]
    other = await domain.new_tenant()
    await tenancy.update_tenant(other, tier=FREE_TIER)
    ours, theirs = [
        (await tenancy.create_api_key(None, one, "k", (Scope.READ,), None))[1] for one in (domain.tenant, other)
    ]

    async def look_ups() -> int:
        before = gate.look_ups
        for secret in (ours, theirs):
            await authenticator.authenticate(f"Bearer {secret}")
        return gate.look_ups - before

    assert [await look_ups() for _ in range(2)] == [2, 0]
    authenticator.forget(other)
    assert await look_ups() == 1
    authenticator.forget_tier(ENTERPRISE_TIER)
    assert await look_ups() == 1
    authenticator.forget_tier(TierName("startup"))
    assert await look_ups() == 0
    authenticator.forget_all()
    assert await look_ups() == 2


def _forget(authenticator: Authenticator, what: str, tenant: TenantId) -> None:
    match what:
        case "tenant":
            authenticator.forget(tenant)
        case "tier":
            authenticator.forget_tier(ENTERPRISE_TIER)
        case _:
            authenticator.forget_all()
