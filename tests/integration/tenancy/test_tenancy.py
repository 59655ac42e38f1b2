"""Tenants, keys, and who a caller is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from memoro_core.clock import SystemClock
from memoro_core.errors import MemoroError, Reason
from memoro_core.idempotency import Idempotency
from memoro_core.ids import ApiKeyId, TenantId, new_id
from memoro_core.limits.model import NO_LIMITS
from memoro_core.postgres.tenancy_store import PostgresTenancyStore
from memoro_core.tenancy.authentication import Authenticator
from memoro_core.tenancy.bootstrap import Bootstrap
from memoro_core.tenancy.keys import new_key
from memoro_core.tenancy.model import (
    DEFAULT_SCOPES,
    ENTERPRISE_TIER,
    FREE_TIER,
    PRO_TIER,
    Principal,
    Scope,
    TenantState,
    TierName,
)
from memoro_core.tenancy.service import TenancyService
from tests.support.domain import Domain, fresh_name


@pytest.fixture
def tenancy(domain: Domain) -> TenancyService:
    return TenancyService(domain.tenancy_store, SystemClock())


@pytest.fixture
def authenticator(domain: Domain) -> Authenticator:
    return Authenticator(domain.tenancy_store, SystemClock(), ttl=0.05)


def _operator(domain: Domain) -> Principal:
    return Principal(domain.tenant, ApiKeyId(new_id()), frozenset({Scope.ADMIN}), FREE_TIER, NO_LIMITS)


async def refused(call: object, reason: Reason) -> None:
    with pytest.raises(MemoroError) as caught:
        await call  # type: ignore[misc]
    assert caught.value.reason is reason


async def test_a_tenant_is_created_read_changed_and_listed(tenancy: TenancyService) -> None:
    name = fresh_name()
    made = await tenancy.create_tenant(None, name, "", FREE_TIER)
    assert (made.display_name, made.tier, made.state, made.version) == (name, FREE_TIER, TenantState.ACTIVE, 1)
    assert await tenancy.get_tenant(made.id) == made
    changed = await tenancy.update_tenant(made.id, tier=PRO_TIER, version=1)
    assert (changed.tier, changed.display_name, changed.version) == (PRO_TIER, name, 2)
    await refused(tenancy.update_tenant(made.id, display_name="x", version=1), Reason.ETAG_MISMATCH)
    await refused(tenancy.update_tenant(TenantId(new_id()), display_name="x"), Reason.TENANT_NOT_FOUND)
    await refused(tenancy.create_tenant(None, name, "", FREE_TIER), Reason.TENANT_EXISTS)
    names: list[str] = []
    position: tuple[str, ...] | None = None
    while True:
        page = await tenancy.list_tenants(size=2, position=position)
        names += [tenant.name for tenant in page.items]
        if (position := page.next_position) is None:
            break
    assert name in names
    assert names == sorted(names)


async def test_there_is_no_tenant_of_an_unknown_tier(tenancy: TenancyService) -> None:
    name = fresh_name()
    gold = TierName("gold-nobody-made")
    await refused(tenancy.create_tenant(None, name, "", gold), Reason.TIER_NOT_FOUND)
    made = await tenancy.create_tenant(None, name, "", FREE_TIER)
    await refused(tenancy.update_tenant(made.id, tier=gold, version=1), Reason.TIER_NOT_FOUND)
    assert await tenancy.get_tenant(made.id) == made
    await refused(tenancy.update_tenant(TenantId(new_id()), tier=gold), Reason.TENANT_NOT_FOUND)


async def test_a_repeated_request_makes_one_tenant_one_change_one_key(domain: Domain, tenancy: TenancyService) -> None:
    operator = _operator(domain)
    name = fresh_name()
    request = Idempotency("make", b"a" * 32)
    first, second = [await tenancy.create_tenant(operator, name, "", FREE_TIER, idempotency=request) for _ in range(2)]
    assert first.id == second.id
    await refused(
        tenancy.create_tenant(operator, name, "x", FREE_TIER, idempotency=Idempotency("make", b"b" * 32)),
        Reason.REQUEST_ID_REUSED,
    )
    change = Idempotency("change", b"d" * 32)
    changed, repeated = [
        await tenancy.update_tenant(first.id, tier=PRO_TIER, version=1, principal=operator, idempotency=change)
        for _ in range(2)
    ]
    assert (changed.tier, changed.version) == (PRO_TIER, 2)
    assert repeated == changed
    failed = Idempotency("failed", b"e" * 32)
    for _ in range(2):
        await refused(
            tenancy.update_tenant(first.id, tier=FREE_TIER, version=1, principal=operator, idempotency=failed),
            Reason.ETAG_MISMATCH,
        )
    key_request = Idempotency("key", b"c" * 32)
    key, secret = await tenancy.create_api_key(operator, first.id, "k", (), None, idempotency=key_request)
    again, nothing = await tenancy.create_api_key(operator, first.id, "k", (), None, idempotency=key_request)
    assert (again, nothing) == (key, "")
    assert secret
    assert len((await tenancy.list_api_keys(first.id, size=10, position=None)).items) == 1


async def test_a_key_names_its_tenant_until_it_is_revoked(
    domain: Domain, tenancy: TenancyService, authenticator: Authenticator
) -> None:
    key, secret = await tenancy.create_api_key(None, domain.tenant, "k", (), None)
    principal = await authenticator.authenticate(f"Bearer {secret}")
    assert (principal.tenant_id, principal.api_key_id) == (domain.tenant, key.id)
    assert principal.scopes == frozenset(DEFAULT_SCOPES)
    assert (principal.tier, principal.limits.limits.open_streams, principal.jobs_kept) == (ENTERPRISE_TIER, 5000, None)
    revoked = await tenancy.revoke_api_key(domain.tenant, key.id)
    assert revoked.revoked_at is not None
    assert (await tenancy.revoke_api_key(domain.tenant, key.id)).revoked_at == revoked.revoked_at
    await asyncio.sleep(0.06)
    await refused(authenticator.authenticate(f"Bearer {secret}"), Reason.CREDENTIALS_INVALID)


async def test_what_is_no_good_key_is_refused(
    domain: Domain, tenancy: TenancyService, authenticator: Authenticator
) -> None:
    _, secret = await tenancy.create_api_key(None, domain.tenant, "k", (), None)
    await refused(authenticator.authenticate(None), Reason.CREDENTIALS_MISSING)
    await refused(authenticator.authenticate(""), Reason.CREDENTIALS_MISSING)
    for text in (secret, f"Basic {secret}", f"Bearer {secret}x", f"Bearer {secret[:-1]}0", "Bearer ", "Bearer é"):
        if text != f"Bearer {secret}":
            await refused(authenticator.authenticate(text), Reason.CREDENTIALS_INVALID)


async def test_an_expired_key_and_a_suspended_tenant_are_refused(
    domain: Domain, tenancy: TenancyService, authenticator: Authenticator
) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=0.3)
    _, short = await tenancy.create_api_key(None, domain.tenant, "short", (), soon)
    _, lasting = await tenancy.create_api_key(None, domain.tenant, "lasting", (), None)
    await authenticator.authenticate(f"Bearer {short}")
    await asyncio.sleep(0.4)
    await refused(authenticator.authenticate(f"Bearer {short}"), Reason.CREDENTIALS_INVALID)
    await tenancy.set_state(domain.tenant, TenantState.SUSPENDED)
    await refused(authenticator.authenticate(f"Bearer {lasting}"), Reason.TENANT_SUSPENDED)
    await tenancy.set_state(domain.tenant, TenantState.ACTIVE)
    await asyncio.sleep(0.06)
    await authenticator.authenticate(f"Bearer {lasting}")


async def test_many_calls_with_one_key_share_a_look_up(domain: Domain, tenancy: TenancyService) -> None:
    _, secret = await tenancy.create_api_key(None, domain.tenant, "k", (), None)
    look_ups = 0
    find = domain.tenancy_store.find_credential

    class Counting:
        async def find_credential(self, prefix: str) -> object:
            nonlocal look_ups
            look_ups += 1
            return await find(prefix)

    authenticator = Authenticator(Counting(), SystemClock(), ttl=1)  # type: ignore[arg-type]
    await asyncio.gather(*(authenticator.authenticate(f"Bearer {secret}") for _ in range(100)))
    assert look_ups == 1


async def test_who_guesses_at_keys_takes_few_connections_and_transactions(
    domain: Domain, tenancy: TenancyService, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, secret = await tenancy.create_api_key(None, domain.tenant, "k", (), None)
    authenticator = Authenticator(PostgresTenancyStore(domain.database), SystemClock(), ttl=1)
    begin, begun, under_way, most = domain.database.system_tx, 0, 0, 0

    @asynccontextmanager
    async def counting() -> AsyncIterator[object]:
        nonlocal begun, under_way, most
        begun, under_way = begun + 1, under_way + 1
        most = max(most, under_way)
        try:
            async with begin() as connection:
                yield connection
        finally:
            under_way -= 1

    monkeypatch.setattr(domain.database, "system_tx", counting)
    guesses = [f"Bearer {new_key()}" for _ in range(500)]
    answers = await asyncio.gather(
        *(authenticator.authenticate(shown) for shown in (*guesses, f"Bearer {secret}")), return_exceptions=True
    )
    assert [getattr(it, "reason", None) for it in answers[:-1]] == [Reason.CREDENTIALS_INVALID] * 500
    assert getattr(answers[-1], "tenant_id", None) == domain.tenant
    assert begun <= 8
    assert most <= 2


async def test_only_operators_keys_can_have_the_admin_scope(domain: Domain, tenancy: TenancyService) -> None:
    await refused(tenancy.create_api_key(None, domain.tenant, "k", (Scope.ADMIN,), None), Reason.INVALID_FIELD)
    past = datetime(2020, 1, 1, tzinfo=UTC)
    await refused(tenancy.create_api_key(None, domain.tenant, "k", (), past), Reason.INVALID_FIELD)
    await refused(tenancy.create_api_key(None, TenantId(new_id()), "k", (), None), Reason.TENANT_NOT_FOUND)
    await refused(tenancy.revoke_api_key(domain.tenant, ApiKeyId(new_id())), Reason.API_KEY_NOT_FOUND)


async def test_a_rotated_key_goes_on_beside_its_successor_and_then_ends(
    domain: Domain, tenancy: TenancyService, authenticator: Authenticator
) -> None:
    old, old_secret = await tenancy.create_api_key(None, domain.tenant, "shop", (Scope.READ,), None)
    began = datetime.now(UTC)
    rotated = await tenancy.rotate_api_key(_operator(domain), domain.tenant, old.id, overlap=timedelta(seconds=0.5))
    assert (rotated.key.display_name, rotated.key.scopes, rotated.key.expires_at) == ("shop", [Scope.READ], None)
    assert (rotated.replaced.id, rotated.replaced.revoked_at) == (old.id, None)
    assert rotated.replaced.expires_at is not None
    assert timedelta(seconds=0.5) <= rotated.replaced.expires_at - began < timedelta(seconds=5)
    assert rotated.secret not in repr(rotated)
    assert (await authenticator.authenticate(f"Bearer {old_secret}")).api_key_id == old.id
    assert (await authenticator.authenticate(f"Bearer {rotated.secret}")).api_key_id == rotated.key.id
    await asyncio.sleep(0.6)
    await refused(authenticator.authenticate(f"Bearer {old_secret}"), Reason.CREDENTIALS_INVALID)
    assert (await authenticator.authenticate(f"Bearer {rotated.secret}")).scopes == {Scope.READ}


async def test_a_rotated_key_never_lives_longer_for_it(domain: Domain, tenancy: TenancyService) -> None:
    soon = datetime.now(UTC) + timedelta(minutes=5)
    old, _ = await tenancy.create_api_key(None, domain.tenant, "k", (), soon)
    later = soon + timedelta(days=1)
    rotated = await tenancy.rotate_api_key(_operator(domain), domain.tenant, old.id, expires_at=later)
    assert (rotated.replaced.expires_at, rotated.key.expires_at) == (soon, later)
    lasting, _ = await tenancy.create_api_key(None, domain.tenant, "k", (), None)
    by_default = (await tenancy.rotate_api_key(_operator(domain), domain.tenant, lasting.id)).replaced.expires_at
    assert by_default is not None
    assert abs(by_default - datetime.now(UTC) - timedelta(hours=1)) < timedelta(seconds=30)


async def test_a_repeated_rotation_makes_one_key_and_does_not_tell_its_secret_again(
    domain: Domain, tenancy: TenancyService
) -> None:
    old, _ = await tenancy.create_api_key(None, domain.tenant, "k", (), None)
    request = Idempotency("rotate", b"a" * 32)
    first, second = [
        await tenancy.rotate_api_key(_operator(domain), domain.tenant, old.id, idempotency=request) for _ in range(2)
    ]
    assert (second.key, second.replaced, second.secret) == (first.key, first.replaced, "")
    assert len((await tenancy.list_api_keys(domain.tenant, size=10, position=None)).items) == 2
    other = Idempotency("rotate", b"b" * 32)
    await refused(
        tenancy.rotate_api_key(_operator(domain), domain.tenant, old.id, idempotency=other), Reason.REQUEST_ID_REUSED
    )


async def test_what_has_ended_is_not_rotated_and_its_request_id_stays_free(
    domain: Domain, tenancy: TenancyService
) -> None:
    operator, request = _operator(domain), Idempotency("rotate", b"a" * 32)
    revoked, _ = await tenancy.create_api_key(None, domain.tenant, "k", (), None)
    await tenancy.revoke_api_key(domain.tenant, revoked.id)
    ended, _ = await tenancy.create_api_key(None, domain.tenant, "k", (), None)
    await tenancy.rotate_api_key(operator, domain.tenant, ended.id, overlap=timedelta())
    for gone in (revoked.id, ended.id, ApiKeyId(new_id())):
        await refused(
            tenancy.rotate_api_key(operator, domain.tenant, gone, idempotency=request), Reason.API_KEY_NOT_FOUND
        )
    lasting, _ = await tenancy.create_api_key(None, domain.tenant, "k", (), None)
    await refused(
        tenancy.rotate_api_key(operator, TenantId(new_id()), lasting.id, idempotency=request), Reason.API_KEY_NOT_FOUND
    )
    past = datetime(2020, 1, 1, tzinfo=UTC)
    await refused(tenancy.rotate_api_key(operator, domain.tenant, lasting.id, expires_at=past), Reason.INVALID_FIELD)
    assert (await tenancy.rotate_api_key(operator, domain.tenant, lasting.id, idempotency=request)).secret


async def test_bootstrapping_again_changes_nothing(domain: Domain) -> None:
    bootstrap = Bootstrap(domain.tenancy_store, SystemClock())
    operators = await asyncio.gather(*(bootstrap.operator() for _ in range(5)))
    assert len({tenant.id for tenant in operators}) == 1
    assert operators[0].is_operator
    key = await bootstrap.key(operators[0], "admin", (Scope.ADMIN,))
    assert await bootstrap.key(operators[0], "admin", (Scope.ADMIN,), known=key) == key
    assert await bootstrap.key(operators[0], "admin", (Scope.ADMIN,), known="memoro_x_y") != key


async def test_a_key_from_before_there_was_a_scope_stays_as_it_is(domain: Domain, tenancy: TenancyService) -> None:
    bootstrap = Bootstrap(domain.tenancy_store, SystemClock())
    tenant = await bootstrap.tenant(fresh_name(), "")
    older = (Scope.READ, Scope.WRITE, Scope.JOBS)
    key = await bootstrap.key(tenant, "dev", older)
    assert await bootstrap.key(tenant, "dev", DEFAULT_SCOPES, known=key) == key
    [kept] = (await tenancy.list_api_keys(tenant.id, size=10, position=None)).items
    assert set(kept.scopes) == set(older)


async def test_a_known_key_that_has_ended_is_replaced(domain: Domain, tenancy: TenancyService) -> None:
    bootstrap = Bootstrap(domain.tenancy_store, SystemClock())
    tenant = await bootstrap.tenant(fresh_name(), "")
    known = await bootstrap.key(tenant, "dev", DEFAULT_SCOPES)
    [key] = (await tenancy.list_api_keys(tenant.id, size=10, position=None)).items
    await tenancy.rotate_api_key(_operator(domain), tenant.id, key.id, overlap=timedelta(minutes=1))
    assert await bootstrap.key(tenant, "dev", DEFAULT_SCOPES, known=known) == known
    await tenancy.rotate_api_key(_operator(domain), tenant.id, key.id, overlap=timedelta())
    assert await bootstrap.key(tenant, "dev", DEFAULT_SCOPES, known=known) != known


async def test_the_row_of_a_key_makes_nobody_an_operator(domain: Domain, tenancy: TenancyService) -> None:
    _, secret = await tenancy.create_api_key(None, domain.tenant, "k", (Scope.READ,), None)
    find = domain.tenancy_store.find_credential

    class Tampered:
        """Rows in which somebody has written a scope that no call gives."""

        async def find_credential(self, prefix: str) -> object:
            credential = await find(prefix)
            assert credential is not None
            return replace(credential, scopes=credential.scopes | {Scope.ADMIN})

    tampered = Authenticator(Tampered(), SystemClock(), ttl=1)  # type: ignore[arg-type]
    assert (await tampered.authenticate(f"Bearer {secret}")).scopes == {Scope.READ}


async def test_secrets_are_not_stored(domain: Domain, tenancy: TenancyService) -> None:
    key, secret = await tenancy.create_api_key(None, domain.tenant, "k", (), None)
    async with domain.database.system_tx() as connection:
        row = await connection.fetchrow("SELECT t::text FROM api_keys AS t WHERE api_key_id = $1", key.id)
    assert row is not None
    assert secret.rsplit("_", 1)[1] not in row[0]
