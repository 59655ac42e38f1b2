"""What the questions of searches cost: tenants nothing, and the house what its provider charges."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass
from datetime import date
from typing import Final, Protocol

import structlog

from memoro_core.billing.calendar import Calendar
from memoro_core.billing.price_ports import Prices
from memoro_core.clock import Clock
from memoro_core.errors import MemoroError
from memoro_core.ids import TenantId
from memoro_core.llm.model import Operation, Usage
from memoro_core.tasks import end_task

INTERVAL: Final = 1.0
"""Seconds for which costs gather before they are written."""
_log: Final = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class QuestionPlace:
    """On which day, for whose questions, and with which model it was."""

    day: date
    tenant_id: TenantId
    provider: str
    model: str


@dataclass(frozen=True, slots=True)
class QuestionCost:
    """What some questions cost."""

    calls: int = 0
    input_tokens: int = 0
    pico_dollars: int = 0

    def __add__(self, other: QuestionCost) -> QuestionCost:
        return QuestionCost(
            self.calls + other.calls,
            self.input_tokens + other.input_tokens,
            self.pico_dollars + other.pico_dollars,
        )


class QuestionCostStore(Protocol):
    """What questions have cost, day by day."""

    async def add(self, costs: Mapping[QuestionPlace, QuestionCost]) -> None:
        """Adds these to what is known. Raises UNAVAILABLE."""
        ...


class CostMeter:
    """A `QuestionMeter`: nothing is asked at a price that nobody knows, and no caller waits for what is written.

    A process that is killed loses what it has not written yet, a second's worth; no tenant's money is in it.
    """

    def __init__(
        self, store: QuestionCostStore, prices: Prices, calendar: Calendar, clock: Clock, *, interval: float = INTERVAL
    ) -> None:
        self._store = store
        self._prices = prices
        self._calendar = calendar
        self._clock = clock
        self._interval = interval
        self._unwritten: dict[QuestionPlace, QuestionCost] = {}
        self._writer: asyncio.Task[None] | None = None

    def check(self, most: Usage) -> None:
        self._prices.price(most.provider, most.model, Operation.EMBED, self._clock.now())

    def used(self, tenant_id: TenantId, usage: Sequence[Usage]) -> None:
        now = self._clock.now()
        for one in usage:
            price = self._prices.price(one.provider, one.model, one.operation, now)
            # A fee is what a tenant would pay.
            pico_dollars = price.cost(input_tokens=one.input_tokens, output_tokens=one.output_tokens)
            if pico_dollars:
                place = QuestionPlace(self._calendar.day(now), tenant_id, one.provider, one.model)
                self._add(place, QuestionCost(1, one.input_tokens, pico_dollars))
        if self._unwritten and (self._writer is None or self._writer.done()):
            # Of no caller more than of another: in a context of its own.
            self._writer = asyncio.create_task(self._write_behind(), context=Context())

    async def close(self) -> None:
        """Writes what is left, if it can be."""
        if self._writer is not None:
            await end_task(self._writer)
        with suppress(MemoroError):
            await self._write()
        if self._unwritten:
            _log.warning("question_costs_lost", places=len(self._unwritten))

    async def _write_behind(self) -> None:
        while self._unwritten:
            await asyncio.sleep(self._interval)
            try:
                await self._write()
            except MemoroError as error:
                _log.info("question_costs_not_yet_written", reason=error.message)

    async def _write(self) -> None:
        writing, self._unwritten = self._unwritten, {}
        if not writing:
            return
        try:
            await self._store.add(writing)
        except BaseException:
            for place, cost in writing.items():
                self._add(place, cost)
            raise

    def _add(self, place: QuestionPlace, cost: QuestionCost) -> None:
        self._unwritten[place] = self._unwritten.get(place, QuestionCost()) + cost
