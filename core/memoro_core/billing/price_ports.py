"""What knowing and setting prices needs from the outside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeAlias

from memoro_core.billing.model import Balance, Price
from memoro_core.idempotency import Idempotency
from memoro_core.ids import TenantId
from memoro_core.llm.model import Operation


@dataclass(frozen=True, slots=True)
class PriceFilter:
    """Which prices to list. Empty fits any; without `all_times`, those that are in force."""

    provider: str = ""
    model: str = ""
    all_times: bool = False


PricePlace: TypeAlias = tuple[str, str, str, datetime]
"""Where a price stands in a list: its provider, model, operation and time."""


class Prices(Protocol):
    """What things cost, at once."""

    def price(self, provider: str, model: str, operation: Operation, at: datetime) -> Price:
        """The price in force at that time. Raises PRICE_UNKNOWN."""
        ...


class PriceStore(Protocol):
    """The prices of the deployment. Those of the past are never changed."""

    async def load(self, *, since: datetime) -> Sequence[Price]:
        """All prices that are or were in force at any time from `since` on, those to come included."""
        ...

    async def list_prices(
        self, price_filter: PriceFilter, *, at: datetime, limit: int, after: PricePlace | None
    ) -> Sequence[Price]:
        """Prices that fit, by provider, model and operation, the latest first, at most `limit`, from after one on."""
        ...

    async def set_price(
        self, tenant_id: TenantId, price: Price, *, idempotency: Idempotency | None, now: datetime
    ) -> Price:
        """Sets a price, and remembers the request as one of the operator's own tenant; as it was set then, if before.

        Raises INVALID_FIELD for one that would hold in the past, or where there is one from that very moment on, and
        REQUEST_ID_REUSED.
        """
        ...


class Balances(Protocol):
    """What tenants have."""

    async def balance(self, tenant_id: TenantId) -> Balance:
        """The tenant's balance as it stands. Raises TENANT_NOT_FOUND."""
        ...
