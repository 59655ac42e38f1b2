"""What the domain asks of a model provider."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeAlias

from memoro_core.llm.model import EmbeddingModel, Embeddings, Extraction, ExtractionSource, Usage

Admit: TypeAlias = Callable[[], Awaitable[None]]
"""Leave to ask, which costs: what a provider awaits at the last moment, when nothing else stands between a call and its
request. What it raises, the call raises, and sends nothing more. It is awaited again before each further request of the
call."""


class EmbeddingProvider(Protocol):
    """Turns texts into unit vectors."""

    @property
    def model(self) -> EmbeddingModel:
        """The model that every vector of this provider comes from."""
        ...

    async def embed(self, texts: Sequence[str], *, admit: Admit | None = None) -> Embeddings:
        """One vector per text, in order; any number of texts of any length (a too long one is cut).

        Raises ProviderError, and what `admit` raises. Never blocks the event loop.
        """
        ...

    def bound(self, texts: Sequence[str]) -> Usage:
        """The most that `embed` of these texts uses, known without asking the provider: a token is at least a byte."""
        ...


class ExtractionProvider(Protocol):
    """Finds entities and relationships in a text."""

    async def extract(self, source: ExtractionSource, *, admit: Admit | None = None) -> Extraction:
        """The graph of one text; empty when it holds no facts.

        Raises ProviderError, and what `admit` raises. Never blocks the event loop.
        """
        ...

    def bound(self, source: ExtractionSource) -> Usage:
        """The most that `extract` of this source uses, asking again included, known without asking the provider."""
        ...
