"""The cost guard: no provider is asked before what it may cost is set aside and written down."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Final

import structlog

from memoro_core.billing.calendar import Calendar
from memoro_core.billing.calls import CallEnd, CallId, CallStore, NewCall, hash_of, is_free
from memoro_core.billing.price_ports import Prices
from memoro_core.clock import Clock
from memoro_core.errors import MemoroError, ProviderError
from memoro_core.jobs.model import Claim, FreeCall
from memoro_core.jobs.spending import ProviderCall, Told
from memoro_core.llm.model import Usage

_log = structlog.get_logger(__name__)
_CLOSE_PAUSES: Final = (0.2, 1.0)
"""Seconds between tries to write what a call has used, while the database is away."""


class CallAbandoned(Exception):
    """Whoever wanted the answer is gone, so that nothing needs to be asked."""


class CostGuard:
    """A `Spending`: what costs something is fenced, what is free is remembered.

    A call that costs is OPEN in the database, at the most that it may use, from the moment before its request goes out
    until what it used is written in its place. It stays OPEN when the answer is lost: when the worker dies, the run is
    stopped meanwhile, or the provider does not say. Then nobody here knows whether the provider bills it, and the
    settlement presumes that it does: see `ai_calls`.
    """

    def __init__(self, store: CallStore, prices: Prices, calendar: Calendar, clock: Clock) -> None:
        self._store = store
        self._prices = prices
        self._calendar = calendar
        self._clock = clock

    def call(self, claim: Claim, bound: Usage, request: bytes, told: Told) -> AbstractAsyncContextManager[ProviderCall]:
        now = self._clock.now()
        price = self._prices.price(bound.provider, bound.model, bound.operation, now)
        day = self._calendar.day(now)
        if is_free(price):
            return _FreeCall(FreeCall(bound, day, now, now), self._clock, told)
        return _PaidCall(
            NewCall(claim, bound, price, hash_of(bound, request), day, now), self._store, self._clock, told
        )


class _FreeCall:
    """Asks nobody; what it used is written together with the run's end."""

    def __init__(self, call: FreeCall, clock: Clock, told: Told) -> None:
        self._call = call
        self._clock = clock
        self._told = told
        self._usage: list[Usage] = []

    async def __aenter__(self) -> ProviderCall:
        return self

    async def admit(self) -> None:
        """Nothing stands in the way."""

    def used(self, usage: Sequence[Usage]) -> None:
        self._usage += usage

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, ProviderError):
            self._usage += error.usage
        elif error is not None:
            return
        bound = self._call.usage
        used = Usage(
            bound.provider, bound.model, bound.operation, *_tokens(self._usage), items=0 if error else bound.items
        )
        ended = FreeCall(used, self._call.day, self._call.started_at, self._clock.now(), failed=error is not None)
        self._told(self._usage, ended)


class _PaidCall:
    """Opens the call in the database when it is admitted, and closes it when it is known what it used."""

    def __init__(self, call: NewCall, store: CallStore, clock: Clock, told: Told) -> None:
        self._call = call
        self._store = store
        self._clock = clock
        self._told = told
        self._usage: list[Usage] = []
        self._opening: asyncio.Task[CallId] | None = None
        self._admitted = False
        self._left = False

    async def __aenter__(self) -> ProviderCall:
        return self

    async def admit(self) -> None:
        if self._left:
            raise CallAbandoned
        if self._admitted:
            # A further request of the same call, later: who has lost the job meanwhile must not send it.
            await self._store.still_holds(self._call.claim)
        if self._opening is None:
            # In a task of its own: whether the call stands in the database must be known, also when the run is stopped.
            self._opening = asyncio.create_task(_open(self._store, self._call))
        await asyncio.shield(self._opening)
        if self._left:
            raise CallAbandoned
        self._admitted = True

    def used(self, usage: Sequence[Usage]) -> None:
        self._usage += usage

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left = True
        if isinstance(error, ProviderError):
            self._usage += error.usage
        self._told(self._usage, None)
        if self._opening is None:
            if self._usage:
                raise RuntimeError("a provider asked without being admitted")
            return
        if self._admitted and self._unknown(error):
            _log.info("call_left_open", operation=str(self._call.bound.operation), reason=type(error).__name__)
            return
        await _see_through(self._close(self._opening, failed=error is not None))

    def _unknown(self, error: BaseException | None) -> bool:
        """Whether the provider may have charged for more than it has told."""
        if any(one.unaccounted for one in self._usage):
            return True
        if isinstance(error, ProviderError):
            return error.unaccounted
        return error is not None or not any(_tokens(self._usage))

    async def _close(self, opening: asyncio.Task[CallId], *, failed: bool) -> None:
        await asyncio.wait([opening])
        if opening.cancelled() or opening.exception() is not None:
            return
        end = CallEnd(opening.result(), *_tokens(self._usage), failed, self._clock.now())
        for pause in _CLOSE_PAUSES:
            try:
                await self._store.close(end)
                return
            except MemoroError as problem:
                _log.info("call_not_yet_closed", reason=problem.message)
                await asyncio.sleep(pause)
        await self._store.close(end)


async def _open(store: CallStore, call: NewCall) -> CallId:
    return await store.open(call)


async def _see_through(work: Coroutine[Any, Any, None]) -> None:
    """Waits until it is done, also when the waiting task is cancelled meanwhile."""
    task = asyncio.create_task(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def _tokens(usage: Sequence[Usage]) -> tuple[int, int]:
    return sum(one.input_tokens for one in usage), sum(one.output_tokens for one in usage)
