"""How requests reach a server: what the groups of calls ask of a transport, and the one over asyncio.

Everything above a transport is written once, as coroutines. `AioTransport` suspends them while the network works;
the transport of the blocking client (`memoro.blocking`) blocks instead, so that they never suspend.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Protocol

import grpc
import grpc.aio

from memoro.endpoint import Endpoint
from memoro.methods import Method, Q, R
from memoro.patience import Patience, answered, streamed
from memoro.status import error_from_call


class Transport(Protocol):
    """Makes calls with the credential and the deadline that belong to them; a failed one raises MemoroError.

    What a limit refuses it calls again, as the server says, if it fits into the deadline and the client wants it.
    """

    async def unary(self, method: Method[Q, R], request: Q, timeout: float | None = None) -> R:
        """The answer to one request, within `timeout` seconds; None: within the method's own deadline."""
        ...

    def stream(self, method: Method[Q, R], request: Q, timeout: float | None = None) -> AsyncGenerator[R, None]:
        """The answers to one request, as they come; closing the generator ends the call."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Waits."""
        ...

    async def close(self) -> None:
        """Ends calls under way and gives up the connection."""
        ...


def call_metadata(api_key: str | None) -> tuple[tuple[str, str], ...]:
    """What goes with every call. Raises ValueError, without telling the key, for one that can't be a key."""
    if not api_key:
        return ()
    if not api_key.isascii() or not api_key.isprintable() or " " in api_key:
        raise ValueError("api_key: only visible ASCII characters can be in a key")
    return (("authorization", f"Bearer {api_key}"),)


class AioTransport:
    """Calls over `grpc.aio`, bound to the event loop of the first call."""

    def __init__(self, endpoint: Endpoint, api_key: str | None, *, wait_for_limits: bool = True) -> None:
        self._endpoint = endpoint
        self._metadata = grpc.aio.Metadata(*call_metadata(api_key))
        self._wait_for_limits = wait_for_limits
        self._channel: grpc.aio.Channel | None = None
        self._calls: dict[str, Any] = {}
        self._closed = False

    async def unary(self, method: Method[Q, R], request: Q, timeout: float | None = None) -> R:
        async def call(seconds: float) -> R:
            try:
                response: R = await self._callable(method, "unary_unary")(
                    request, timeout=seconds, metadata=self._metadata
                )
            except grpc.aio.AioRpcError as error:
                raise error_from_call(error.code(), error.details(), error.trailing_metadata()) from error
            return response

        return await answered(call, self._patience(method, timeout), self.sleep)

    async def stream(self, method: Method[Q, R], request: Q, timeout: float | None = None) -> AsyncGenerator[R, None]:
        async def call(seconds: float) -> AsyncGenerator[R, None]:
            stream = self._callable(method, "unary_stream")(request, timeout=seconds, metadata=self._metadata)
            try:
                async for response in stream:
                    yield response
            except grpc.aio.AioRpcError as error:
                raise error_from_call(error.code(), error.details(), error.trailing_metadata()) from error
            finally:
                stream.cancel()

        async with aclosing(streamed(call, self._patience(method, timeout), self.sleep)) as messages:
            async for message in messages:
                yield message

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def close(self) -> None:
        self._closed = True
        if self._channel is not None:
            await self._channel.close()

    def _patience(self, method: Method[Any, Any], timeout: float | None) -> Patience:
        return Patience(method.deadline if timeout is None else timeout, waits=self._wait_for_limits)

    def _callable(self, method: Method[Any, Any], kind: str) -> Any:
        # The channel belongs to the loop that runs when it is created, so it is not created before a call needs it.
        if self._closed:
            raise RuntimeError("the client is closed")
        if self._channel is None:
            self._channel = _aio_channel(self._endpoint)
        if method.path not in self._calls:
            self._calls[method.path] = getattr(self._channel, kind)(
                method.path,
                request_serializer=method.request.SerializeToString,
                response_deserializer=method.response.FromString,
            )
        return self._calls[method.path]


def _aio_channel(endpoint: Endpoint) -> grpc.aio.Channel:
    if endpoint.tls is None:
        return grpc.aio.insecure_channel(endpoint.address, options=endpoint.options())
    return grpc.aio.secure_channel(endpoint.address, endpoint.tls.credentials(), options=endpoint.options())
