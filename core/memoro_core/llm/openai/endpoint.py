"""One OpenAI-compatible endpoint: its client, its time limit, and how many calls it gets at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, Self

from openai import AsyncOpenAI
from pydantic_core import from_json

from memoro_core.llm.openai.failures import invalid_response, provider_error

_MAX_RESPONSE_BYTES: Final = 64 * 1024 * 1024


class RawResponse(Protocol):
    """An answer that the SDK has not tried to make sense of."""

    @property
    def content(self) -> bytes:
        """The body."""
        ...


class OpenAIEndpoint:
    """Sends requests, each answered within `timeout` seconds or failed; `max_concurrency` is the number of its slots.

    A call holds a slot while it is under way. Nothing is retried here: the job engine does that, knowing what the job
    has spent. Use with `async with`.
    """

    def __init__(
        self, *, api_key: str, base_url: str | None = None, timeout: float = 30.0, max_concurrency: int = 16
    ) -> None:
        self._client = AsyncOpenAI(api_key=api_key, base_url=base_url, timeout=timeout, max_retries=0)
        self._timeout = timeout
        self._slots = asyncio.Semaphore(max_concurrency)
        # At debug level, versions of the SDK before 3 log whole requests, and so people's texts.
        logging.getLogger("openai").setLevel(logging.INFO)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def acquire(self) -> None:
        """Waits for a free slot and takes it."""
        await self._slots.acquire()

    def release(self) -> None:
        """Gives a slot back."""
        self._slots.release()

    async def send(self, request: Callable[[AsyncOpenAI], Awaitable[RawResponse]]) -> dict[str, Any]:
        """Sends one request, in a slot that the caller holds, and returns the answer's JSON object.

        Raises ProviderError, in which neither the key nor anything of the request appears.
        """
        try:
            # The SDK's own timeout is for each read: a slow drip would outlast it.
            async with asyncio.timeout(self._timeout):
                response = await request(self._client)
        except Exception as error:  # noqa: BLE001 - whatever the client raises may quote the key or the prompt
            raise provider_error(error) from None
        if len(response.content) > _MAX_RESPONSE_BYTES:
            raise invalid_response("it is too large", unaccounted=True)
        try:
            answer = from_json(response.content)
        except ValueError:
            raise invalid_response("it is not JSON", unaccounted=True) from None
        if not isinstance(answer, dict):
            raise invalid_response("it is not a JSON object", unaccounted=True)
        return answer
