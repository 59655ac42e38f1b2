"""What the local models count stays within the bounds that they tell without being loaded."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from memoro_core.llm.factory import NoExtraction
from memoro_core.llm.local import LocalEmbeddingProvider, LocalExtractionProvider
from memoro_core.llm.model import ExtractionSource

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
PROSE = st.lists(
    st.sampled_from(
        ["Anna", "met", "he", "in Lyon", "isn't", ".", "((((", "…", "don't", "U.S.A.", "\n\n", "9am", "東京"]
    ),
    max_size=40,
).map(" ".join)


@settings(max_examples=200, deadline=None)
@given(st.lists(TEXT | PROSE, max_size=5))
def test_embeddings(embedding_provider: LocalEmbeddingProvider, texts: Sequence[str]) -> None:
    (usage,) = asyncio.run(embedding_provider.embed(texts)).usage
    bound = embedding_provider.bound(texts)
    assert usage.input_tokens <= bound.input_tokens
    assert usage.items == bound.items == len(texts)
    assert (usage.provider, usage.model, usage.operation) == (bound.provider, bound.model, bound.operation)


@settings(max_examples=60, deadline=None)
@given(TEXT | PROSE, st.lists((TEXT | PROSE).map(lambda turn: f"Ann: {turn}"), max_size=5))
def test_extractions(extraction_provider: LocalExtractionProvider, text: str, preceding: list[str]) -> None:
    source = ExtractionSource(text, "Ben", None, preceding)
    (usage,) = asyncio.run(extraction_provider.extract(source)).usage
    bound = extraction_provider.bound(source)
    assert usage.input_tokens <= bound.input_tokens
    assert usage.items == bound.items == 1
    assert (usage.provider, usage.model, usage.operation) == (bound.provider, bound.model, bound.operation)


def test_where_nothing_is_extracted_nothing_is_used() -> None:
    bound = NoExtraction().bound(ExtractionSource("Anna met Paul."))
    assert (bound.input_tokens, bound.output_tokens, bound.items) == (0, 0, 0)
