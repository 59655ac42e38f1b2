"""Bearer tokens that another service has signed: JSON Web Tokens."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import jwt

from memoro_core.clock import Clock
from memoro_core.ids import TenantId, parse_id
from memoro_core.tenancy.key_set import KeySet
from memoro_core.tenancy.model import Scope

MAX_TOKEN_LENGTH: Final = 8192
"""Anything longer is no token. gRPC takes no more than this of all metadata together by default."""

_LEEWAY: Final = timedelta(seconds=30)
_LONGEST: Final = timedelta(days=1)
_MAX_SUBJECT: Final = 255
_PREFIX: Final = "memoro:"
_SCOPES: Final = frozenset(Scope)
_TENANT_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_REQUIRED: Final = ["exp", "iss", "aud", "sub"]


@dataclass(frozen=True, slots=True)
class TokenPolicy:
    """Whose tokens are taken, and which of their claims name the tenant and the scopes."""

    issuer: str
    audience: str
    tenant_claim: str
    scope_claim: str
    algorithms: Sequence[str]


@dataclass(frozen=True, slots=True)
class Token:
    """What a good token says. `tenant` is an id or a name; `until`: when it ends, the clocks' differences included."""

    subject: str
    tenant: TenantId | str
    scopes: frozenset[Scope]
    until: datetime


class TokenVerifier:
    """Checks tokens: their signature, issuer, audience and times."""

    def __init__(self, policy: TokenPolicy, keys: KeySet, clock: Clock) -> None:
        self._policy = policy
        self._keys = keys
        self._clock = clock

    async def verify(self, text: str) -> Token | None:
        """What the token says, or None for any that is not good. Raises UNAVAILABLE while its key can't be fetched."""
        header = _header_of(text)
        algorithm = header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in self._policy.algorithms:
            return None
        # The key is one for this algorithm, so that none can be used with another than it was made for.
        key = await self._keys.find(header.get("kid", ""), algorithm)
        if key is None:
            return None
        try:
            claims = jwt.decode(
                text,
                key,
                algorithms=[algorithm],
                issuer=self._policy.issuer,
                audience=self._policy.audience,
                leeway=_LEEWAY,
                options={"require": _REQUIRED, "enforce_minimum_key_length": True},
            )
            return self._token_of(claims)
        except (jwt.PyJWTError, ArithmeticError, TypeError, ValueError):
            return None

    def _token_of(self, claims: Mapping[str, Any]) -> Token | None:
        subject, tenant = claims["sub"], _tenant_of(claims.get(self._policy.tenant_claim))
        if tenant is None or not 0 < len(subject) <= _MAX_SUBJECT or not subject.isprintable():
            return None
        now = self._clock.now()
        left = min(float(claims["exp"]) - now.timestamp(), _LONGEST.total_seconds())
        scopes = _scopes_of(claims.get(self._policy.scope_claim))
        return Token(subject, tenant, scopes, now + timedelta(seconds=left) + _LEEWAY)


def _header_of(text: str) -> Mapping[str, Any]:
    try:
        return jwt.get_unverified_header(text)
    except (jwt.PyJWTError, TypeError, ValueError):
        return {}


def _tenant_of(claim: object) -> TenantId | str | None:
    if not isinstance(claim, str):
        return None
    if (tenant_id := parse_id(claim)) is not None:
        return TenantId(tenant_id)
    return claim if _TENANT_NAME.fullmatch(claim) else None


def _scopes_of(claim: object) -> frozenset[Scope]:
    """Those that are known, `memoro:read` or `read`, in a text with spaces or a list; others are for other services."""
    words: Sequence[object] = claim.split() if isinstance(claim, str) else claim if isinstance(claim, list) else ()
    names = {word.removeprefix(_PREFIX) for word in words if isinstance(word, str)}
    return frozenset(scope for scope in _SCOPES if scope in names)
