"""The local models, loaded once for all tests of this folder."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from memoro_core.llm.local import LocalEmbeddingProvider, LocalExtractionProvider


@pytest.fixture(scope="session")
def extraction_provider() -> Iterator[LocalExtractionProvider]:
    provider = LocalExtractionProvider()
    yield provider
    asyncio.run(provider.close())


@pytest.fixture(scope="session")
def embedding_provider() -> Iterator[LocalEmbeddingProvider]:
    provider = LocalEmbeddingProvider()
    yield provider
    asyncio.run(provider.close())
