"""Embeddings over the OpenAI protocol, the calls of concurrent jobs sent together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from contextvars import Context
from dataclasses import dataclass, field, replace
from typing import Any, Final

from memoro_core.errors import ProviderError
from memoro_core.llm.model import EmbeddingModel, Embeddings, Operation, Usage, Vector
from memoro_core.llm.openai.endpoint import OpenAIEndpoint
from memoro_core.llm.openai.failures import RejectedError, provider_error
from memoro_core.llm.openai.vectors import read_tokens, read_vectors, share_tokens
from memoro_core.llm.ports import Admit
from memoro_core.tracing import current_trace_parent, trace_headers

MAX_INPUTS: Final = 256
MAX_REQUEST_BYTES: Final = 300_000
"""A token is at least a byte, so this keeps within the protocol's 300,000 tokens a request."""
MAX_INPUT_BYTES: Final = 24_000
SAFE_INPUT_BYTES: Final = 8_000
"""Fits the models' 8,191 tokens whatever the language."""
SPECIAL_TOKENS: Final = 4
"""The most that a model puts around a text of its own accord."""
LINGER: Final = 0.005


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """Some texts of one call, as many as fit into a request, and where their vectors are waited for."""

    texts: tuple[str, ...]
    size: int
    bound: Usage
    admit: Admit | None = None
    trace_parent: str | None = field(default_factory=current_trace_parent)
    done: asyncio.Future[Embeddings] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def fail(self, error: ProviderError, usage: Sequence[Usage] = ()) -> None:
        """Raises a copy of the error where the vectors are waited for: each caller adds what it spent itself."""
        if not self.done.done():
            self.done.set_exception(_with_usage(error, usage))

    def refuse(self, error: BaseException) -> None:
        """Raises where the vectors are waited for why nothing was asked."""
        if self.done.done():
            return
        if isinstance(error, asyncio.CancelledError):
            self.done.cancel()
        else:
            self.done.set_exception(error)


class OpenAIEmbeddingProvider:
    """Unit vectors from an OpenAI-compatible endpoint.

    Calls that come within five milliseconds, or while all slots of the endpoint are taken, share requests of at most
    256 texts and 300,000 bytes; each gets its own vectors and its share of the usage. A shared request that the
    endpoint rejects is split by caller until the one to blame fails alone. A text is cut at 24,000 bytes, and at 8,000
    when the endpoint finds that too long. `close` must be awaited, before the endpoint's.
    """

    def __init__(self, endpoint: OpenAIEndpoint, *, model: str, dimensions: int) -> None:
        self._endpoint = endpoint
        self._model = EmbeddingModel("openai", model, dimensions)
        # Older models, and most other servers, know no `dimensions`.
        self._options: dict[str, Any] = {"dimensions": dimensions} if model.startswith("text-embedding-3") else {}
        self._waiting: deque[_Part] = deque()
        self._sender: asyncio.Task[None] | None = None
        self._requests: set[asyncio.Task[None]] = set()
        self._open: set[_Part] = set()
        self._closed = False

    @property
    def model(self) -> EmbeddingModel:
        """The model that every vector of this provider comes from."""
        return self._model

    async def embed(self, texts: Sequence[str], *, admit: Admit | None = None) -> Embeddings:
        """One unit vector per text, in order. Raises ProviderError, whose usage is what the whole call spent."""
        if self._closed:
            raise _closed()
        parts = self._parts(texts, admit)
        self._waiting.extend(parts)
        self._open.update(parts)
        if parts and (self._sender is None or self._sender.done()):
            # Of no caller more than of another: in a context of its own.
            self._sender = asyncio.create_task(self._send_waiting(), context=Context())
        try:
            results = await asyncio.gather(*(part.done for part in parts), return_exceptions=True)
        finally:
            self._open.difference_update(parts)
        vectors: list[Vector] = []
        usage: list[Usage] = []
        failure: ProviderError | None = None
        unaccounted = False
        for result in results:
            if isinstance(result, Embeddings):
                vectors.extend(result.vectors)
            elif isinstance(result, ProviderError):
                failure = failure or result
                unaccounted = unaccounted or result.unaccounted
            else:
                raise result
            usage.extend(result.usage)
        if failure is not None:
            raise _with_usage(failure, usage, unaccounted=unaccounted)
        return Embeddings(vectors, usage)

    def bound(self, texts: Sequence[str]) -> Usage:
        """A token per byte of each text, as far as it is sent, and a few around it."""
        return self._bound(len(texts), sum(_size(text) for text in texts))

    async def close(self) -> None:
        """Ends all requests; callers that still wait get a retryable ProviderError."""
        self._closed = True
        tasks = [*self._requests, *([self._sender] if self._sender is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for part in tuple(self._open):
            part.fail(_closed(unaccounted=True))

    def _bound(self, texts: int, size: int) -> Usage:
        return Usage("openai", self._model.name, Operation.EMBED, size + SPECIAL_TOKENS * texts, items=texts)

    def _parts(self, texts: Iterable[str], admit: Admit | None) -> list[_Part]:
        """The texts in stretches that fit into a request each."""
        parts: list[_Part] = []
        stretch: list[str] = []
        size = 0
        for text in texts:
            # The protocol takes no empty input.
            kept = _cut(text, MAX_INPUT_BYTES) or " "
            length = len(kept.encode())
            if stretch and (len(stretch) == MAX_INPUTS or size + length > MAX_REQUEST_BYTES):
                parts.append(_Part(tuple(stretch), size, self._bound(len(stretch), size), admit))
                stretch, size = [], 0
            stretch.append(kept)
            size += length
        if stretch:
            parts.append(_Part(tuple(stretch), size, self._bound(len(stretch), size), admit))
        return parts

    async def _send_waiting(self) -> None:
        await asyncio.sleep(LINGER)
        while self._waiting:
            await self._endpoint.acquire()
            # A task of its own, so that the next request can gather and leave meanwhile.
            task = asyncio.create_task(self._request(self._take()))
            self._requests.add(task)
            task.add_done_callback(self._requests.discard)

    def _take(self) -> list[_Part]:
        """The parts for the next request, in order of arrival, without those that nobody waits for any more."""
        taken: list[_Part] = []
        inputs = size = 0
        while self._waiting:
            part = self._waiting[0]
            if not part.done.done():
                inputs += len(part.texts)
                size += part.size
                if taken and (inputs > MAX_INPUTS or size > MAX_REQUEST_BYTES):
                    break
                taken.append(part)
            self._waiting.popleft()
        return taken

    async def _request(self, parts: Sequence[_Part]) -> None:
        """Asks for the vectors of all parts, in the slot that was acquired for it, and answers each part."""
        try:
            if admitted := await _admitted(parts):
                await self._embed(admitted)
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody must wait for ever
            for part in parts:
                part.fail(provider_error(error))
        finally:
            self._endpoint.release()

    async def _embed(self, parts: Sequence[_Part]) -> None:
        try:
            await self._ask(parts, MAX_INPUT_BYTES)
        except RejectedError as error:
            if len(parts) > 1:
                middle = len(parts) // 2
                await self._embed(parts[:middle])
                await self._embed(parts[middle:])
            elif any(len(text.encode()) > SAFE_INPUT_BYTES for text in parts[0].texts):
                await self._ask_shortened(parts[0])
            else:
                parts[0].fail(error)
        except ProviderError as error:
            for part in parts:
                part.fail(error)

    async def _ask_shortened(self, part: _Part) -> None:
        try:
            await self._ask([part], SAFE_INPUT_BYTES)
        except ProviderError as error:
            part.fail(error)

    async def _ask(self, parts: Sequence[_Part], limit: int) -> None:
        inputs = [_cut(text, limit) for part in parts for text in part.texts]
        answer = await self._endpoint.send(
            lambda client: client.embeddings.with_raw_response.create(
                model=self._model.name,
                input=inputs,
                encoding_format="float",
                # A request that several share goes on with the trace of the first.
                extra_headers=trace_headers(parts[0].trace_parent),
                **self._options,
            )
        )
        # In proportion to their bounds: while the whole is within its own, so is each share.
        told = read_tokens(answer, "prompt_tokens")
        shares = share_tokens(told or 0, [part.bound.input_tokens for part in parts])
        usages = [
            (replace(part.bound, input_tokens=tokens, unaccounted=not told),)
            for part, tokens in zip(parts, shares, strict=True)
        ]
        try:
            vectors = iter(read_vectors(answer, count=len(inputs), dimensions=self._model.dimensions))
        except ProviderError as error:
            for part, usage in zip(parts, usages, strict=True):
                part.fail(error, usage)
            return
        for part, usage in zip(parts, usages, strict=True):
            results = [next(vectors) for _ in part.texts]
            failure = next((result for result in results if isinstance(result, ProviderError)), None)
            if failure is not None:
                part.fail(failure, usage)
            elif not part.done.done():
                part.done.set_result(
                    Embeddings([result for result in results if not isinstance(result, ProviderError)], usage)
                )


async def _admitted(parts: Sequence[_Part]) -> list[_Part]:
    """Those of the parts that may be sent and are still waited for."""
    asking = [(part, part.admit()) for part in parts if part.admit is not None]
    answers = await asyncio.gather(*(answer for _, answer in asking), return_exceptions=True)
    for (part, _), answer in zip(asking, answers, strict=True):
        if answer is not None:
            part.refuse(answer)
    return [part for part in parts if not part.done.done()]


def _cut(text: str, limit: int) -> str:
    """The text's beginning that fits into `limit` bytes of UTF-8. A lone surrogate becomes a question mark."""
    encoded = text.encode(errors="replace")
    return (encoded if len(encoded) <= limit else encoded[:limit]).decode(errors="ignore")


def _size(text: str) -> int:
    """The most bytes of the text that are sent; one even of an empty text."""
    return min(max(len(text.encode(errors="replace")), 1), MAX_INPUT_BYTES)


def _with_usage(error: ProviderError, usage: Sequence[Usage], *, unaccounted: bool = False) -> ProviderError:
    return ProviderError(
        error.message,
        retryable=error.retryable,
        retry_after=error.retry_after,
        metadata=error.metadata,
        usage=usage,
        unaccounted=unaccounted or error.unaccounted,
    )


def _closed(*, unaccounted: bool = False) -> ProviderError:
    return ProviderError("the model provider's client is shutting down", retryable=True, unaccounted=unaccounted)
