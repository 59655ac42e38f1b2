"""Who may call: keys, and the tokens of the issuer that the settings name."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Final

import structlog

from memoro_core.clock import Clock
from memoro_core.container.ground import Ground
from memoro_core.errors import Code, MemoroError, Reason
from memoro_core.outbound.issuer_keys import issuer_keys
from memoro_core.settings import Settings
from memoro_core.tenancy.authentication import Authenticator
from memoro_core.tenancy.key_set import KeySet
from memoro_core.tenancy.ports import TenancyStore
from memoro_core.tenancy.tokens import TokenPolicy, TokenVerifier

_log: Final = structlog.get_logger(__name__)


async def open_authenticator(
    ground: Ground, tenants: TenancyStore, stack: AsyncExitStack, *, takes_calls: bool
) -> Authenticator:
    """What knows callers; the stack closes it.

    A process that takes calls reads the issuer's keys at once, and raises FAILED_PRECONDITION when they are to be in a
    file and are not. A URL may be away.
    """
    settings = ground.settings
    tokens = await _open_tokens(settings, ground.clock, stack, takes_calls=takes_calls)
    return Authenticator(tenants, ground.clock, ttl=settings.auth_cache_ttl, tokens=tokens)


async def _open_tokens(
    settings: Settings, clock: Clock, stack: AsyncExitStack, *, takes_calls: bool
) -> TokenVerifier | None:
    if settings.jwt_issuer is None or settings.jwt_audience is None or settings.jwt_jwks is None:
        return None
    keys = KeySet(issuer_keys(settings.jwt_jwks), settings.jwt_algorithms)
    stack.push_async_callback(keys.close)
    if takes_calls:
        await _load(keys, settings.jwt_jwks)
    policy = TokenPolicy(
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        tenant_claim=settings.jwt_tenant_claim,
        scope_claim=settings.jwt_scope_claim,
        algorithms=settings.jwt_algorithms,
    )
    return TokenVerifier(policy, keys, clock)


async def _load(keys: KeySet, place: str) -> None:
    try:
        await keys.load()
    except MemoroError as error:
        if "://" in place:
            _log.warning("keys_not_fetched", reason=error.message)
            return
        raise MemoroError(
            Code.FAILED_PRECONDITION, Reason.INTERNAL, f"MEMORO_JWT_JWKS: no key set can be read from {place}"
        ) from error
