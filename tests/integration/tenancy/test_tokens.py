"""Tokens of an issuer, beside keys: whom they let in, with a real database and keys over real HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import web

from memoro_core.clock import SystemClock
from memoro_core.errors import Code, MemoroError, Reason
from memoro_core.ids import TenantId, new_id
from memoro_core.outbound.issuer_keys import issuer_keys
from memoro_core.tenancy.authentication import Authenticator
from memoro_core.tenancy.bootstrap import Bootstrap
from memoro_core.tenancy.key_set import KeySet
from memoro_core.tenancy.model import FREE_TIER, Scope, Tenant, TenantState
from memoro_core.tenancy.service import TenancyService
from memoro_core.tenancy.tokens import TokenVerifier
from tests.support.domain import Domain, fresh_name
from tests.support.issuer import (
    ALGORITHMS,
    ED_KEY,
    POLICY,
    RSA_KEY,
    Issuer,
    claims,
    issuing,
    key_set,
    public_jwk,
    signed,
)

INTERVAL = 0.3
MakeAuthenticator = Callable[..., Authenticator]


@pytest_asyncio.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with issuing() as running:
        yield running


@pytest_asyncio.fixture
async def tenant(domain: Domain) -> Tenant:
    tenancy = TenancyService(domain.tenancy_store, SystemClock())
    return await tenancy.create_tenant(None, fresh_name(), "", FREE_TIER)


@pytest_asyncio.fixture
async def make(domain: Domain, issuer: Issuer) -> AsyncIterator[MakeAuthenticator]:
    opened: list[KeySet] = []

    def made(*, place: str = "", ttl: float = 0.05) -> Authenticator:
        keys = KeySet(issuer_keys(place or issuer.url), ALGORITHMS, min_interval=INTERVAL)
        opened.append(keys)
        clock = SystemClock()
        return Authenticator(domain.tenancy_store, clock, ttl=ttl, tokens=TokenVerifier(POLICY, keys, clock))

    yield made
    for keys in opened:
        await keys.close()


async def refused(authenticator: Authenticator, token: str, reason: Reason = Reason.CREDENTIALS_INVALID) -> MemoroError:
    with pytest.raises(MemoroError) as caught:
        await authenticator.authenticate(f"Bearer {token}")
    assert caught.value.reason is reason
    return caught.value


async def test_a_token_acts_for_its_tenant(make: MakeAuthenticator, tenant: Tenant, domain: Domain) -> None:
    authenticator = make()
    for named in (tenant.name, str(tenant.id)):
        principal = await authenticator.authenticate(f"Bearer {signed(claims(named))}")
        assert (principal.tenant_id, principal.api_key_id, principal.subject) == (tenant.id, None, "alice")
        assert (principal.scopes, principal.tier) == (frozenset({Scope.READ, Scope.WRITE}), FREE_TIER)
        assert principal.limits.limits.open_streams == 100
        assert principal.credential == {"subject": "alice"}
    assert authenticator.tier_of(tenant.id) == FREE_TIER
    key = await Bootstrap(domain.tenancy_store, SystemClock()).key(tenant, "k", (Scope.READ,))
    assert (await authenticator.authenticate(f"Bearer {key}")).subject == ""


async def test_only_operators_administer(make: MakeAuthenticator, tenant: Tenant, domain: Domain) -> None:
    authenticator = make()
    operator = await Bootstrap(domain.tenancy_store, SystemClock()).operator()
    asked = {"scope": "memoro:admin read"}
    assert (await authenticator.authenticate(f"Bearer {signed(claims(tenant.name, **asked))}")).scopes == {Scope.READ}
    admitted = await authenticator.authenticate(f"Bearer {signed(claims(operator.name, **asked))}")
    assert admitted.scopes == {Scope.READ, Scope.ADMIN}


async def test_an_unknown_tenant_is_as_bad_as_a_bad_signature(make: MakeAuthenticator, tenant: Tenant) -> None:
    authenticator = make()
    unknown = await refused(authenticator, signed(claims(fresh_name())))
    forged = await refused(authenticator, signed(claims(tenant.name))[:-8] + "AAAAAAAA")
    expired = await refused(authenticator, signed(claims(tenant.name, exp=int(time.time()) - 60)))
    for error in (forged, expired, await refused(authenticator, signed(claims(str(new_id()))))):
        assert (error.code, error.message, error.metadata) == (unknown.code, unknown.message, unknown.metadata)


async def test_a_suspended_tenant_is_refused(make: MakeAuthenticator, tenant: Tenant, domain: Domain) -> None:
    authenticator = make(ttl=60)
    token = signed(claims(tenant.name))
    await authenticator.authenticate(f"Bearer {token}")
    await TenancyService(domain.tenancy_store, SystemClock()).set_state(tenant.id, TenantState.SUSPENDED)
    authenticator.forget(tenant.id)
    await refused(authenticator, token, Reason.TENANT_SUSPENDED)


async def test_a_verdict_is_remembered_but_not_beyond_the_tokens_end(
    make: MakeAuthenticator, tenant: Tenant, issuer: Issuer, domain: Domain, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[TenantId | str] = []
    find = domain.tenancy_store.find_standing

    async def counting(named: TenantId | str) -> object:
        asked.append(named)
        return await find(named)

    monkeypatch.setattr(domain.tenancy_store, "find_standing", counting)
    authenticator = make(ttl=60)
    # It ended 28 seconds ago: what is left are two of the seconds that clocks may differ by.
    token = signed(claims(tenant.name, exp=int(time.time()) - 28))
    await asyncio.gather(*(authenticator.authenticate(f"Bearer {token}") for _ in range(100)))
    assert asked == [tenant.name]
    await asyncio.sleep(3.1)
    await refused(authenticator, token)
    assert len(asked) == 1


async def test_what_is_far_too_long_is_refused_before_anything_is_done(make: MakeAuthenticator, issuer: Issuer) -> None:
    await refused(make(), signed(claims(padding="x" * 9000)))
    assert issuer.asked == 0


async def test_without_an_issuer_no_token_is_good(domain: Domain, tenant: Tenant) -> None:
    await refused(Authenticator(domain.tenancy_store, SystemClock(), ttl=1), signed(claims(tenant.name)))


async def test_keys_are_changed_without_a_restart(make: MakeAuthenticator, tenant: Tenant, issuer: Issuer) -> None:
    authenticator = make(ttl=0.01)
    old, new = signed(claims(tenant.name)), signed(claims(tenant.name), "EdDSA", key_id="next")
    issuer.document = key_set(public_jwk(RSA_KEY, "RS256"))
    await authenticator.authenticate(f"Bearer {old}")
    await refused(authenticator, new)
    issuer.document = key_set(public_jwk(RSA_KEY, "RS256"), public_jwk(ED_KEY, "next"))
    await asyncio.sleep(INTERVAL)
    await authenticator.authenticate(f"Bearer {new}")
    await authenticator.authenticate(f"Bearer {old}")
    assert issuer.asked == 2


async def test_strangers_do_not_make_the_server_hammer_the_issuer(make: MakeAuthenticator, issuer: Issuer) -> None:
    authenticator = make()
    began = time.monotonic()
    for number in range(200):
        await refused(authenticator, signed(claims(), key_id=f"guess-{number}"))
    assert issuer.asked <= 1 + (time.monotonic() - began) / INTERVAL


async def test_while_the_issuer_is_away_known_keys_go_on(
    make: MakeAuthenticator, tenant: Tenant, issuer: Issuer
) -> None:
    authenticator = make(ttl=0.01)
    issuer.document = key_set(public_jwk(RSA_KEY, "RS256"))
    token = signed(claims(tenant.name))
    await authenticator.authenticate(f"Bearer {token}")

    async def broken(_: web.Request) -> web.Response:
        return web.Response(status=500)

    issuer.respond = broken
    await asyncio.sleep(INTERVAL)
    unknown = signed(claims(tenant.name), "EdDSA", key_id="next")
    error = await refused(authenticator, unknown, Reason.DEPENDENCY_UNAVAILABLE)
    assert (error.code, error.metadata) == (Code.UNAVAILABLE, {"dependency": "token issuer"})
    await authenticator.authenticate(f"Bearer {token}")
    issuer.respond = None
    issuer.document = key_set(public_jwk(ED_KEY, "next"))
    await asyncio.sleep(INTERVAL)
    # The verdict of a moment ago is not remembered against it.
    await authenticator.authenticate(f"Bearer {unknown}")


async def _redirect(_: web.Request) -> web.Response:
    raise web.HTTPFound("/elsewhere")


async def _huge(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    try:
        for _ in range(64):
            await response.write(b" " * 65536)
    except ConnectionError:
        pass
    return response


@pytest.mark.parametrize("respond", [_redirect, _huge])
async def test_an_answer_that_leads_astray_is_none(
    make: MakeAuthenticator, tenant: Tenant, issuer: Issuer, respond: object
) -> None:
    issuer.respond = respond
    await refused(make(), signed(claims(tenant.name)), Reason.DEPENDENCY_UNAVAILABLE)
    assert issuer.asked == 1


async def test_keys_may_be_in_a_file(make: MakeAuthenticator, tenant: Tenant, tmp_path: Path) -> None:
    place = tmp_path / "keys.json"
    authenticator = make(place=str(place), ttl=0.01)
    token = signed(claims(tenant.name))
    await refused(authenticator, token, Reason.DEPENDENCY_UNAVAILABLE)
    place.write_bytes(key_set(public_jwk(RSA_KEY, "RS256")))
    await asyncio.sleep(INTERVAL)
    await authenticator.authenticate(f"Bearer {token}")
