"""A fake OpenAI server for each test, and providers that talk to it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from memoro_core.llm.openai import OpenAIEmbeddingProvider, OpenAIEndpoint, OpenAIExtractionProvider
from tests.fakes.openai_server import FakeOpenAI

MODEL = "text-embedding-test"


@pytest_asyncio.fixture
async def server() -> AsyncIterator[FakeOpenAI]:
    async with FakeOpenAI(api_key="sk-very-secret") as running:
        yield running


@pytest_asyncio.fixture
async def endpoint(server: FakeOpenAI) -> AsyncIterator[OpenAIEndpoint]:
    async with OpenAIEndpoint(
        api_key=server.api_key, base_url=server.base_url, timeout=5.0, max_concurrency=4
    ) as running:
        yield running


@pytest_asyncio.fixture
async def embedding(server: FakeOpenAI, endpoint: OpenAIEndpoint) -> AsyncIterator[OpenAIEmbeddingProvider]:
    provider = OpenAIEmbeddingProvider(endpoint, model=MODEL, dimensions=server.dimensions)
    yield provider
    await provider.close()


@pytest_asyncio.fixture
async def extraction(endpoint: OpenAIEndpoint) -> OpenAIExtractionProvider:
    return OpenAIExtractionProvider(endpoint, model="chat-test")
