"""Prices in PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from asyncpg import Record
from pydantic import JsonValue, TypeAdapter

from memoro_core.billing.model import Price
from memoro_core.billing.price_ports import PriceFilter, PricePlace
from memoro_core.errors import invalid_field
from memoro_core.idempotency import Idempotency
from memoro_core.ids import TenantId
from memoro_core.llm.model import Operation
from memoro_core.postgres.answer_store import answered_before_in
from memoro_core.postgres.database import Database
from memoro_core.postgres.queries import load_queries

_SQL: Final = load_queries("prices")
_ANSWER: Final = TypeAdapter(Price)


class PostgresPriceStore:
    """A `PriceStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self, *, since: datetime) -> Sequence[Price]:
        async with self._database.system_tx() as connection:
            return [_price_of(row) for row in await connection.fetch(_SQL["load_prices"], since)]

    async def list_prices(
        self, price_filter: PriceFilter, *, at: datetime, limit: int, after: PricePlace | None
    ) -> Sequence[Price]:
        async with self._database.system_tx() as connection:
            rows = await connection.fetch(
                _SQL["list_prices"],
                price_filter.provider,
                price_filter.model,
                price_filter.all_times,
                at,
                *(after or (None,) * 4),
                limit,
            )
        return [_price_of(row) for row in rows]

    async def set_price(
        self, tenant_id: TenantId, price: Price, *, idempotency: Idempotency | None, now: datetime
    ) -> Price:
        answer: Mapping[str, JsonValue] = _ANSWER.dump_python(price, mode="json")
        async with self._database.system_tx() as connection:
            answered = await answered_before_in(connection, tenant_id, idempotency, answer, now=now)
            if answered is not None:
                return _ANSWER.validate_python(answered)
            if price.valid_from < now:
                raise invalid_field("valid_from", "must not be in the past: jobs were charged by the prices of then")
            made = await connection.fetchval(
                _SQL["set_price"],
                price.provider,
                price.model,
                price.operation,
                price.valid_from,
                price.input_price,
                price.output_price,
                price.fee,
            )
            if made is None:
                raise invalid_field("valid_from", "has a price already from that very moment on: take a later one")
        return price


def _price_of(row: Record) -> Price:
    return Price(
        row["provider"],
        row["model"],
        Operation(row["operation"]),
        row["input_price"],
        row["output_price"],
        row["fee"],
        row["valid_from"],
    )
