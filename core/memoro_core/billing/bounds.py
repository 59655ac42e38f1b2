"""The most that the work on memories may cost, reckoned before anything is asked of a provider."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from memoro_core.billing import money
from memoro_core.billing.model import Price
from memoro_core.billing.price_ports import Prices
from memoro_core.llm.model import ExtractionSource, Usage
from memoro_core.llm.ports import EmbeddingProvider, ExtractionProvider
from memoro_core.memory.enrichment import text_to_embed
from memoro_core.memory.enrichment_ports import MAX_PRECEDING, MAX_PRECEDING_CHARS
from memoro_core.memory.model import Memory, MemoryKind

_ANY_TURN: Final = "\x00" * MAX_PRECEDING_CHARS
"""A turn that takes the most bytes in a prompt: no character is longer there than one that has to be escaped."""


@dataclass(frozen=True, slots=True)
class EstimateLine:
    """The most that one operation uses, and what its provider charges for that, in pico-dollars."""

    usage: Usage
    pico_dollars: int

    def __add__(self, other: EstimateLine) -> EstimateLine:
        return EstimateLine(_total([self.usage, other.usage]), self.pico_dollars + other.pico_dollars)


class CostBounds:
    """Bounds of jobs that enrich memories: one attempt, in which every call uses the most that it can.

    Without `extractor`, vectors only. A price that is not known raises PRICE_UNKNOWN.
    """

    def __init__(
        self,
        prices: Prices,
        embedder: EmbeddingProvider,
        extractor: ExtractionProvider | None,
        *,
        margin_basis_points: int,
    ) -> None:
        self._prices = prices
        self._embedder = embedder
        self._extractor = extractor
        self._margin_basis_points = margin_basis_points
        self._embedding = embedder.bound(())
        self._extraction: Usage | None = None
        self._preceding = 0
        if extractor is not None:
            nothing = self._extraction = extractor.bound(ExtractionSource(""))
            self._preceding = (
                extractor.bound(ExtractionSource("", preceding=(_ANY_TURN,) * MAX_PRECEDING)).input_tokens
                - nothing.input_tokens
            )

    @property
    def margin_basis_points(self) -> int:
        """What is added to what providers charge, in hundredths of a percent."""
        return self._margin_basis_points

    def free(self, at: datetime) -> bool:
        """Whether nothing costs anything, whatever the memories. Raises PRICE_UNKNOWN."""
        return not any(price.input_price or price.output_price or price.fee for price, _ in self._operations(at))

    def bound(self, memories: Sequence[Memory], *, at: datetime) -> int:
        """What one attempt over these memories costs at most, in micro-credits. Raises PRICE_UNKNOWN."""
        return self._bound(self._operations(at), memories)

    def bound_relations(self, memories: Sequence[Memory], *, at: datetime) -> int:
        """The same of finding entities and facts alone."""
        return self._bound(self._operations(at)[1:], memories)

    def _bound(
        self, operations: Sequence[tuple[Price, Callable[[Sequence[Memory]], Usage]]], memories: Sequence[Memory]
    ) -> int:
        pico_dollars = fees = 0
        for price, measure in operations:
            fees += price.fee * len(memories)
            # Measuring takes its time, so not where it would not count.
            if price.input_price or price.output_price:
                pico_dollars += _cost(price, measure(memories))
        return money.charge(pico_dollars, fees, margin_basis_points=self._margin_basis_points)

    def estimate(self, memories: Sequence[Memory], *, at: datetime) -> Sequence[EstimateLine]:
        """What `bound` is made of, an operation each. Raises PRICE_UNKNOWN."""
        measured = [(price, measure(memories)) for price, measure in self._operations(at)]
        return [EstimateLine(usage, _cost(price, usage)) for price, usage in measured]

    def _operations(self, at: datetime) -> Sequence[tuple[Price, Callable[[Sequence[Memory]], Usage]]]:
        """The price of each operation, embedding first, and what tells the most that it uses."""
        embedding, extraction = self._embedding, self._extraction
        price = self._prices.price
        operations = [(price(embedding.provider, embedding.model, embedding.operation, at), self._to_embed)]
        if extraction is not None:
            operations.append(
                (price(extraction.provider, extraction.model, extraction.operation, at), self._to_extract)
            )
        return operations

    def _to_embed(self, memories: Sequence[Memory]) -> Usage:
        return self._embedder.bound([text_to_embed(memory) for memory in memories])

    def _to_extract(self, memories: Sequence[Memory]) -> Usage:
        assert self._extractor is not None, "it has a price"
        sources = (ExtractionSource(memory.text, memory.speaker, memory.occurred_at) for memory in memories)
        usages = [self._extractor.bound(source) for source in sources]
        # What comes before a message is not known yet: it may be stored, or changed, until the job runs.
        before = self._preceding * sum(memory.kind is MemoryKind.MESSAGE for memory in memories)
        most = _total(usages)
        return replace(most, input_tokens=most.input_tokens + before)


def _total(usages: Sequence[Usage]) -> Usage:
    """Usages of one operation, of which there is at least one, as one."""
    return replace(
        usages[0],
        input_tokens=sum(usage.input_tokens for usage in usages),
        output_tokens=sum(usage.output_tokens for usage in usages),
        items=sum(usage.items for usage in usages),
    )


def _cost(price: Price, usage: Usage) -> int:
    return price.cost(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens)
