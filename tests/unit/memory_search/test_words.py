"""Words, and their vectors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest_asyncio

from memoro_core.llm.local import LocalEmbeddingProvider
from memoro_core.memory.words import MAX_WORDS, WordVectors, words_of


@pytest_asyncio.fixture
async def embedder() -> AsyncIterator[LocalEmbeddingProvider]:
    provider = LocalEmbeddingProvider()
    yield provider
    await provider.close()


def test_words_that_mean_something_each_once_in_order() -> None:
    assert words_of("What did John's dog DO? The dog_ran, didn't it: 2023!") == ["john", "dog", "ran", "2023"]
    assert words_of("Wo ist Zürich? и где Москва") == ["wo", "ist", "zürich", "где", "москва"]
    assert words_of("the of and") == []
    assert len(words_of(" ".join(f"word{n}" for n in range(1000)))) == MAX_WORDS


async def test_vectors_are_those_of_the_provider_in_the_order_of_the_words(embedder: LocalEmbeddingProvider) -> None:
    words = WordVectors(embedder)
    expected = np.stack(list((await embedder.embed(["tea", "coffee"])).vectors))
    assert np.array_equal(await words.vectors(["tea", "coffee", "tea"]), expected[[0, 1, 0]])
    assert np.array_equal(await words.vectors(["coffee", "tea"]), expected[[1, 0]])
    assert (await words.vectors([])).shape == (0, embedder.model.dimensions)


async def test_a_small_cache_never_loses_a_word_of_the_call(embedder: LocalEmbeddingProvider) -> None:
    words = WordVectors(embedder, cache_size=3)
    vocabulary = [f"word{n}" for n in range(10)]
    tables = await asyncio.gather(*(words.vectors(vocabulary[n:] + vocabulary[:n]) for n in range(10)))
    for n, table in enumerate(tables):
        assert np.array_equal(np.roll(table, n, axis=0), tables[0])
