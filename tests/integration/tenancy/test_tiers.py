"""Tiers as data: made, replaced, counted, and what they mean for a caller."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
import pytest_asyncio

from memoro_core.clock import SystemClock
from memoro_core.errors import MemoroError, Reason
from memoro_core.idempotency import Idempotency
from memoro_core.ids import ApiKeyId, new_id
from memoro_core.limits.model import NO_LIMITS, Limits, Rate
from memoro_core.postgres.tier_store import PostgresTierStore
from memoro_core.tenancy.authentication import Authenticator
from memoro_core.tenancy.model import BUILT_IN_TIERS, FREE_TIER, Principal, Scope, Tenant, Tier, TierName
from memoro_core.tenancy.service import TenancyService
from memoro_core.tenancy.tiers import TierService
from tests.support.domain import Domain, fresh_name

LIMITS = Limits(requests=Rate(600, 120), searches=Rate(60, 20), daily_units=1000, open_streams=3)


@pytest.fixture
def store(domain: Domain) -> PostgresTierStore:
    return PostgresTierStore(domain.database)


@pytest.fixture
def tiers(store: PostgresTierStore) -> TierService:
    return TierService(store, SystemClock())


@pytest.fixture
def operator(domain: Domain) -> Principal:
    return Principal(domain.tenant, ApiKeyId(new_id()), frozenset({Scope.ADMIN}), FREE_TIER, NO_LIMITS)


@pytest_asyncio.fixture
async def fresh(domain: Domain, owner_database_url: str) -> AsyncIterator[Tier]:
    """A tier that is not there yet; at the end it is not there again."""
    name = TierName(f"t-{secrets.token_hex(6)}")
    yield Tier(name, LIMITS, False, 7, 9, 2, None, timedelta(days=3), 0, datetime(1970, 1, 1, tzinfo=UTC))
    owner = await asyncpg.connect(owner_database_url)
    await owner.execute("DELETE FROM tiers WHERE starts_with(tier, $1)", name)
    await owner.close()


async def refused(call: object, reason: Reason) -> None:
    with pytest.raises(MemoroError) as caught:
        await call  # type: ignore[misc]
    assert caught.value.reason is reason


async def test_the_first_tiers_have_limits(tiers: TierService) -> None:
    known = {tier.name: tier for tier in await tiers.list_tiers()}
    assert known.keys() >= set(BUILT_IN_TIERS)
    assert known[FREE_TIER].limits.requests == Rate(600, 120)
    assert known[FREE_TIER].limits.max_memories is not None
    assert [known[tier].weight for tier in BUILT_IN_TIERS] == [1, 4, 16]


async def test_a_tier_is_made_and_replaced_as_a_whole(tiers: TierService, operator: Principal, fresh: Tier) -> None:
    before = datetime.now(UTC)
    made = await tiers.put_tier(operator, fresh)
    assert made == replace(fresh, version=1, updated_at=made.updated_at)
    assert before <= made.updated_at <= datetime.now(UTC)
    other = replace(made, limits=Limits(max_bytes=5), shadow=True, kept_failed=None, kept_succeeded=timedelta(hours=1))
    changed = await tiers.put_tier(operator, other, version=1)
    assert changed == replace(other, version=2, updated_at=changed.updated_at)
    assert changed in await tiers.list_tiers()
    await refused(tiers.put_tier(operator, fresh, version=1), Reason.ETAG_MISMATCH)
    assert (await tiers.put_tier(operator, fresh)).version == 3


async def test_an_etag_of_a_tier_that_is_not_there_fits_nothing(
    tiers: TierService, operator: Principal, fresh: Tier
) -> None:
    await refused(tiers.put_tier(operator, fresh, version=1), Reason.TIER_NOT_FOUND)
    assert fresh.name not in {tier.name for tier in await tiers.list_tiers()}


async def test_a_repeated_request_changes_nothing(tiers: TierService, operator: Principal, fresh: Tier) -> None:
    request = Idempotency(fresh_name(), b"a" * 32)
    made = await tiers.put_tier(operator, fresh, idempotency=request)
    changed = await tiers.put_tier(operator, replace(fresh, weight=8), version=made.version)
    assert await tiers.put_tier(operator, fresh, idempotency=request) == changed
    await refused(
        tiers.put_tier(operator, fresh, idempotency=Idempotency(request.request_id, b"b" * 32)),
        Reason.REQUEST_ID_REUSED,
    )
    failed = Idempotency(fresh_name(), b"c" * 32)
    await refused(tiers.put_tier(operator, fresh, version=1, idempotency=failed), Reason.ETAG_MISMATCH)
    assert (await tiers.put_tier(operator, fresh, version=2, idempotency=failed)).version == 3


async def test_there_are_never_more_tiers_than_there_may_be(store: PostgresTierStore, fresh: Tier) -> None:
    most = len(await store.list_tiers()) + 2
    names = [TierName(f"{fresh.name}-{number}") for number in range(6)]
    outcomes = await asyncio.gather(
        *(store.put_tier(replace(fresh, name=name), version=None, most=most, request=None) for name in names),
        return_exceptions=True,
    )
    made = [outcome.name for outcome in outcomes if isinstance(outcome, Tier)]
    assert len(made) == 2
    assert {outcome.reason for outcome in outcomes if isinstance(outcome, MemoroError)} == {Reason.QUOTA_EXCEEDED}
    # What is there may be changed all the same.
    again = await store.put_tier(replace(fresh, name=made[0]), version=1, most=most, request=None)
    assert again.version == 2


async def test_a_tenants_own_limits_take_the_place_of_its_tiers(
    domain: Domain, tiers: TierService, operator: Principal, fresh: Tier
) -> None:
    tenancy = TenancyService(domain.tenancy_store, SystemClock())
    await tiers.put_tier(operator, fresh)
    tenant = await tenancy.create_tenant(None, fresh_name(), "", fresh.name)
    _, secret = await tenancy.create_api_key(None, tenant.id, "k", (), None)
    authenticator = Authenticator(domain.tenancy_store, SystemClock(), ttl=1)

    async def in_force() -> tuple[Limits, bool, str]:
        authenticator.forget_all()
        principal = await authenticator.authenticate(f"Bearer {secret}")
        assert principal.tier == fresh.name
        return principal.limits.limits, principal.limits.shadow, principal.limits.version

    first = await in_force()
    assert first[:2] == (LIMITS, False)
    assert (await tenancy.get_tenant(tenant.id)).limits == Limits()
    own = Limits(requests=Rate(6000, 400), max_bytes=9)
    changed = await tenancy.update_tenant(tenant.id, limits=own)
    assert changed.limits == (await tenancy.get_tenant(tenant.id)).limits == own
    second = await in_force()
    assert second[:2] == (replace(LIMITS, requests=Rate(6000, 400), max_bytes=9), False)
    await tiers.put_tier(operator, replace(fresh, limits=Limits(reads=Rate(1, 20)), shadow=True))
    third = await in_force()
    assert third[:2] == (replace(own, reads=Rate(1, 20)), True)
    assert len({first[2], second[2], third[2]}) == 3
    renamed = await tenancy.update_tenant(tenant.id, display_name="Other")
    assert renamed.limits == own
    assert (await tenancy.update_tenant(tenant.id, limits=Limits())).limits == Limits()
    assert (await in_force())[0] == Limits(reads=Rate(1, 20))
    await _forget(domain, tenant)


async def _forget(domain: Domain, tenant: Tenant) -> None:
    """Gives the tenant another tier, so that its own can be deleted."""
    await TenancyService(domain.tenancy_store, SystemClock()).update_tenant(tenant.id, tier=FREE_TIER)
