"""Ends the streams of callers who may no longer call."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any, Final

import structlog

from memoro_core.errors import Code, MemoroError
from memoro_core.ids import TenantId
from memoro_core.tenancy.model import TierName
from memoro_server.call import Call, Handler, Method
from memoro_server.interceptors.authentication import Authenticator

_REFUSALS: Final = (Code.UNAUTHENTICATED, Code.PERMISSION_DENIED)
_log = structlog.get_logger("memoro.server")


class _Stream:
    """An open stream, and why it has to end."""

    def __init__(self, tenant_id: TenantId) -> None:
        self.tenant_id = tenant_id
        self.timeout = asyncio.timeout(None)
        self.refusal: MemoroError | None = None

    def end(self, refusal: MemoroError) -> None:
        self.refusal = refusal
        self.timeout.reschedule(asyncio.get_running_loop().time())


class StandingInterceptor:
    """Authenticates the callers of open streams again, and ends a stream with the refusal.

    It is a `PolicyCache`, to be told after the authenticator: who is of a tenant that changed is looked at at once, and
    everybody each `interval` seconds, since a credential may also come to its own end.
    """

    name: Final = "standing"

    def __init__(self, authenticator: Authenticator, *, interval: float) -> None:
        self._authenticator = authenticator
        self._interval = interval
        self._streams: defaultdict[str, set[_Stream]] = defaultdict(set)
        self._suspects: set[str] = set()
        self._others: set[str] = set()
        self._wake = asyncio.Event()

    def forget(self, tenant_id: TenantId) -> None:
        self._suspects.update(
            authorization
            for authorization, streams in self._streams.items()
            if any(stream.tenant_id == tenant_id for stream in streams)
        )
        self._wake.set()

    def forget_tier(self, tier: TierName) -> None:
        """A tier decides how much its tenants may call, not whether."""

    def forget_all(self) -> None:
        self._others.update(self._streams)
        self._wake.set()

    async def run(self) -> None:
        """Looks at callers for ever, at those of whom it was told before all others."""
        while True:
            while not (self._suspects or self._others):
                await self._wait()
            await self._check((self._suspects or self._others).pop())

    async def _wait(self) -> None:
        self._wake.clear()
        try:
            async with asyncio.timeout(self._interval):
                await self._wake.wait()
        except TimeoutError:
            self._others.update(self._streams)

    async def _check(self, authorization: str) -> None:
        try:
            await self._authenticator.authenticate(authorization)
        except MemoroError as error:
            if error.code in _REFUSALS:
                for stream in self._streams.get(authorization, ()):
                    stream.end(error)
        except Exception:  # noqa: BLE001 - one that fails must not be the last
            _log.exception("streams_not_looked_at")

    def wrap(self, method: Method, proceed: Handler) -> Handler:
        if not method.policy.streaming or method.policy.scope is None:
            return proceed

        async def watched(request: Any, call: Call) -> bytes | None:
            stream = _Stream(call.tenant_id)
            authorization = call.authorization or ""
            try:
                async with stream.timeout:
                    self._streams[authorization].add(stream)
                    try:
                        # What was found out about the caller may have been forgotten before the stream could be found.
                        await self._authenticator.authenticate(call.authorization)
                        return await proceed(request, call)
                    finally:
                        self._streams[authorization].discard(stream)
                        if not self._streams[authorization]:
                            del self._streams[authorization]
            except TimeoutError:
                if stream.refusal is not None and stream.timeout.expired():
                    raise stream.refusal.with_traceback(None) from None
                raise

        return watched
