"""Local embeddings: unit vectors that put like texts near each other."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import numpy as np
import pytest

from memoro_core.llm.local import LocalEmbeddingProvider
from memoro_core.llm.local.embedding import DIMENSIONS, INLINE_CHARS
from memoro_core.llm.model import Operation

TEXTS = ["The cat sat on the mat.", "A kitten lay on the rug.", "Interest rates rose again in March."]


async def test_vectors_are_unit_float32_in_order(embedding_provider: LocalEmbeddingProvider) -> None:
    together = await embedding_provider.embed(TEXTS)
    alone = [(await embedding_provider.embed([text])).vectors[0] for text in TEXTS]

    for vector, same in zip(together.vectors, alone, strict=True):
        assert vector.shape == (DIMENSIONS,)
        assert vector.dtype == np.float32
        assert float(np.linalg.norm(vector)) == pytest.approx(1.0, abs=1e-5)
        np.testing.assert_allclose(vector, same, atol=1e-6)


async def test_like_texts_are_near(embedding_provider: LocalEmbeddingProvider) -> None:
    cat, kitten, rates = (await embedding_provider.embed(TEXTS)).vectors

    assert float(cat @ kitten) > float(cat @ rates) + 0.1


async def test_short_calls_and_long_ones_agree(embedding_provider: LocalEmbeddingProvider) -> None:
    many = await embedding_provider.embed([*TEXTS, "word " * INLINE_CHARS])
    few = await embedding_provider.embed(TEXTS)

    for one, other in zip(many.vectors, few.vectors, strict=False):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("text", ["", " ", "\n", "🎉", "\x00", "\u200b", "x" * 100_000, "word " * 20_000])
async def test_every_text_has_a_finite_direction(embedding_provider: LocalEmbeddingProvider, text: str) -> None:
    (vector,) = (await embedding_provider.embed([text])).vectors

    assert np.isfinite(vector).all()
    assert float(np.linalg.norm(vector)) == pytest.approx(1.0, abs=1e-5)


async def test_no_texts_no_vectors(embedding_provider: LocalEmbeddingProvider) -> None:
    found = await embedding_provider.embed([])

    assert list(found.vectors) == []
    assert sum(usage.input_tokens for usage in found.usage) == 0


async def test_usage_and_model(embedding_provider: LocalEmbeddingProvider) -> None:
    (usage,) = (await embedding_provider.embed(["one two three"])).usage

    assert embedding_provider.model.key == "local/wordllama-l2-supercat@256"
    assert (usage.provider, usage.operation) == ("local", Operation.EMBED)
    assert usage.input_tokens == 3


async def test_first_calls_together_load_once() -> None:
    provider = LocalEmbeddingProvider()
    try:
        results = await asyncio.gather(*(provider.embed([text]) for text in TEXTS))
    finally:
        await provider.close()

    assert [len(found.vectors) for found in results] == [1, 1, 1]


def test_loading_leaves_logging_as_it_was() -> None:
    """In a process of its own, since pytest's handlers keep the root logger from being configured here."""
    program = (
        "import logging\n"
        "from memoro_core.llm.local.embedding import load_word_vectors\n"
        "load_word_vectors()\n"
        "print(logging.getLogger().level == logging.WARNING, logging.getLogger().handlers)\n"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "True []"
