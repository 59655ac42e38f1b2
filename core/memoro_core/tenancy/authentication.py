"""Who calls: from what a caller shows to the tenant it acts for."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from memoro_core.clock import Clock
from memoro_core.errors import Code, MemoroError, Reason
from memoro_core.ids import ApiKeyId, TenantId
from memoro_core.tenancy.keys import MAX_LENGTH, KeyText, parse_key
from memoro_core.tenancy.model import FREE_TIER, Principal, Scope, TenantState, TierName
from memoro_core.tenancy.ports import Standing, TenancyStore
from memoro_core.tenancy.tokens import MAX_TOKEN_LENGTH, Token, TokenVerifier

_MAX_REMEMBERED: Final = 10_000


class TenantSuspendedError(MemoroError):
    """PERMISSION_DENIED / TENANT_SUSPENDED. `principal` is who called, for logs: it may do nothing."""

    def __init__(self, principal: Principal) -> None:
        super().__init__(Code.PERMISSION_DENIED, Reason.TENANT_SUSPENDED, "the tenant is suspended")
        self.principal = principal


class Authenticator:
    """Checks keys and tokens, and remembers each verdict for `ttl` seconds, or until it is told to forget it.

    So it is a `PolicyCache`, and `ttl` is the poll behind what is pushed. Credentials are remembered by their hash,
    refused ones too, and none beyond its own end; calls with one that is not remembered share one look-up.
    """

    def __init__(self, store: TenancyStore, clock: Clock, *, ttl: float, tokens: TokenVerifier | None = None) -> None:
        self._store = store
        self._clock = clock
        self._ttl = ttl
        self._tokens = tokens
        self._tiers: dict[TenantId, TierName] = {}
        self._verdicts: OrderedDict[bytes, tuple[float, asyncio.Task[_Known | MemoroError]]] = OrderedDict()

    def tier_of(self, tenant_id: TenantId) -> TierName:
        """The tier that a tenant had when it last called here; the lowest for one that never did."""
        return self._tiers.get(tenant_id, FREE_TIER)

    def forget(self, tenant_id: TenantId) -> None:
        """Looks the tenant's keys up anew: a call that comes from now on is judged by what is stored now."""
        self._drop(lambda principal: principal.tenant_id == tenant_id)

    def forget_tier(self, tier: TierName) -> None:
        """The same for all tenants of a tier."""
        self._drop(lambda principal: principal.tier == tier)

    def forget_all(self) -> None:
        """The same for everybody."""
        self._verdicts.clear()

    async def authenticate(self, authorization: str | None) -> Principal:
        """The caller behind `Bearer <key>`, or a token in the place of the key.

        Raises CREDENTIALS_MISSING, CREDENTIALS_INVALID, TENANT_SUSPENDED, UNAVAILABLE.
        """
        if not authorization:
            raise MemoroError(
                Code.UNAUTHENTICATED,
                Reason.CREDENTIALS_MISSING,
                "no credentials: send metadata 'authorization: Bearer <key>'",
            )
        scheme, _, text = authorization.partition(" ")
        if scheme.lower() != "bearer" or len(text) > (MAX_LENGTH if self._tokens is None else MAX_TOKEN_LENGTH):
            raise _invalid()
        fingerprint = hashlib.sha256(text.encode()).digest()
        now = time.monotonic()
        known = self._verdicts.get(fingerprint)
        if known is None or known[0] <= now:
            known = (now + self._ttl, asyncio.create_task(self._look_up(text)))
            self._verdicts[fingerprint] = known
            self._verdicts.move_to_end(fingerprint)
            if len(self._verdicts) > _MAX_REMEMBERED:
                self._verdicts.popitem(last=False)
        task = known[1]
        verdict = task.result() if task.done() else await asyncio.shield(task)
        if isinstance(verdict, MemoroError):
            if verdict.code is Code.UNAVAILABLE:
                self._verdicts.pop(fingerprint, None)
            raise verdict.with_traceback(None)
        if _past(verdict.until, self._clock):
            raise _invalid()
        return verdict.principal

    def _drop(self, concerned: Callable[[Principal], bool]) -> None:
        for fingerprint, (_, task) in list(self._verdicts.items()):
            verdict = _verdict_of(task)
            # What is being looked up may have been read before the change. Refusals don't say whose they are.
            if not isinstance(verdict, _Known) or concerned(verdict.principal):
                del self._verdicts[fingerprint]

    async def _look_up(self, text: str) -> _Known | MemoroError:
        try:
            if (key := parse_key(text)) is not None:
                return await self._look_up_key(key)
            if self._tokens is not None and (token := await self._tokens.verify(text)) is not None:
                return await self._look_up_token(token)
        except MemoroError as error:
            return error
        return _invalid()

    async def _look_up_key(self, key: KeyText) -> _Known | MemoroError:
        credential = await self._store.find_credential(key.prefix)
        if credential is None or not key.matches(credential.secret_hash):
            return _invalid()
        if credential.revoked_at is not None or _past(credential.expires_at, self._clock):
            return _invalid()
        return self._admitted(credential.standing, credential.scopes, credential.expires_at, credential.api_key_id)

    async def _look_up_token(self, token: Token) -> _Known | MemoroError:
        standing = await self._store.find_standing(token.tenant)
        if standing is None:
            return _invalid()
        return self._admitted(standing, token.scopes, token.until, None, token.subject)

    def _admitted(
        self,
        standing: Standing,
        scopes: frozenset[Scope],
        until: datetime | None,
        api_key_id: ApiKeyId | None,
        subject: str = "",
    ) -> _Known | MemoroError:
        if not standing.is_operator:
            # Whatever the issuer or the row of a key says: only operators administer.
            scopes -= {Scope.ADMIN}
        principal = Principal(
            standing.tenant_id, api_key_id, scopes, standing.tier, standing.limits, standing.jobs_kept, subject
        )
        if standing.state is TenantState.SUSPENDED:
            return TenantSuspendedError(principal)
        self._tiers[standing.tenant_id] = standing.tier
        return _Known(principal, until)


@dataclass(frozen=True, slots=True)
class _Known:
    """A caller, and when its credential ends; None: never."""

    principal: Principal
    until: datetime | None


def _verdict_of(task: asyncio.Task[_Known | MemoroError]) -> _Known | MemoroError | None:
    """None while it is being looked up, and when that failed."""
    return task.result() if task.done() and not task.cancelled() and task.exception() is None else None


def _past(moment: datetime | None, clock: Clock) -> bool:
    return moment is not None and moment <= clock.now()


def _invalid() -> MemoroError:
    return MemoroError(Code.UNAUTHENTICATED, Reason.CREDENTIALS_INVALID, "the key is not valid")
