"""What things cost: prices as operators set them, and what a request may cost before it is sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeAlias

import structlog

from memoro_core.billing.bounds import CostBounds, EstimateLine
from memoro_core.billing.model import Price
from memoro_core.billing.price_ports import Balances, PriceFilter, PricePlace, PriceStore
from memoro_core.billing.prices import PriceBook
from memoro_core.clock import Clock
from memoro_core.idempotency import Idempotency
from memoro_core.ids import JobId, TenantId, new_id
from memoro_core.llm.model import Operation
from memoro_core.memory.drafting import draft_messages, draft_text
from memoro_core.memory.model import NewConversation, NewMemory
from memoro_core.paging import Page, cut, moment
from memoro_core.tenancy.model import Principal

_log: Final = structlog.get_logger(__name__)

NewWork: TypeAlias = NewMemory | NewConversation
"""What one job is made for: a text, or messages together."""


@dataclass(frozen=True, slots=True)
class NewPrice:
    """A price to set, in the units of `Price`. `valid_from` None: from now on."""

    provider: str
    model: str
    operation: Operation
    input_price: int
    output_price: int
    fee: int
    valid_from: datetime | None = None


@dataclass(frozen=True, slots=True)
class Estimate:
    """The most that a request may cost, and what the tenant has. Amounts are in micro-credits.

    `lines` are what the amount is made of, an operation each.
    """

    amount: int
    lines: Sequence[EstimateLine]
    margin_basis_points: int
    available: int


class PricingService:
    """Prices and estimates. Every method raises UNAVAILABLE when the database is away."""

    def __init__(
        self, store: PriceStore, book: PriceBook, bounds: CostBounds, balances: Balances, clock: Clock
    ) -> None:
        self._store = store
        self._book = book
        self._bounds = bounds
        self._balances = balances
        self._clock = clock

    @property
    def margin_basis_points(self) -> int:
        """What is added to what providers charge, in hundredths of a percent."""
        return self._bounds.margin_basis_points

    async def list_prices(
        self, price_filter: PriceFilter, *, size: int, position: tuple[str, ...] | None
    ) -> Page[Price]:
        """Prices that fit, by provider, model and operation, the latest first."""
        after = None if position is None else _place(position)
        rows = await self._store.list_prices(price_filter, at=self._clock.now(), limit=size + 1, after=after)
        return cut(rows, size, _position(rows[size - 1]) if len(rows) > size else None)

    async def set_price(self, principal: Principal, new: NewPrice, *, idempotency: Idempotency | None = None) -> Price:
        """Sets what an operation of a model costs from a time on; the caller has shown the scope admin.

        This process knows it at once, the others with their next look. Raises INVALID_FIELD for a time that is past or
        that a price begins at already, REQUEST_ID_REUSED.
        """
        now = self._clock.now()
        price = Price(
            provider=new.provider,
            model=new.model,
            operation=new.operation,
            input_price=new.input_price,
            output_price=new.output_price,
            fee=new.fee,
            valid_from=new.valid_from or now,
        )
        price = await self._store.set_price(principal.tenant_id, price, idempotency=idempotency, now=now)
        await self._book.load()
        _log.info(
            "price_set",
            **principal.credential,
            provider=price.provider,
            model=price.model,
            operation=str(price.operation),
            input_price=price.input_price,
            output_price=price.output_price,
            fee=price.fee,
            valid_from=price.valid_from.isoformat(),
        )
        return price

    async def estimate(self, tenant_id: TenantId, work: Sequence[NewWork]) -> Estimate:
        """What would be set aside if all of this were accepted now, a job for each. Raises PRICE_UNKNOWN."""
        now, job_id = self._clock.now(), JobId(new_id())
        amount = 0
        lines: dict[Operation, EstimateLine] = {}
        for new in work:
            memories = (
                [draft_text(new, job_id, now)] if isinstance(new, NewMemory) else draft_messages(new, job_id, now)
            )
            amount += self._bounds.bound(memories, at=now)
            for line in self._bounds.estimate(memories, at=now):
                known = lines.get(line.usage.operation)
                lines[line.usage.operation] = line if known is None else known + line
        balance = await self._balances.balance(tenant_id)
        return Estimate(amount, list(lines.values()), self.margin_basis_points, balance.account.available)


def _position(price: Price) -> tuple[str, ...]:
    return price.provider, price.model, price.operation, price.valid_from.isoformat()


def _place(position: tuple[str, ...]) -> PricePlace:
    valid_from = moment(position, 3)
    provider, model, operation = position[:3]
    return provider, model, operation, valid_from
