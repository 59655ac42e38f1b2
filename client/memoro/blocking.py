"""Runs the client's coroutines without an event loop: over a transport that blocks, they never suspend."""

from __future__ import annotations

import functools
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import aclosing
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

import grpc

from memoro.endpoint import Endpoint
from memoro.methods import Method, Q, R
from memoro.patience import Patience, answered, streamed
from memoro.status import error_from_call
from memoro.transport import call_metadata

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S")
A = TypeVar("A")


class BlockingTransport:
    """Calls over gRPC's own blocking stack; may be shared by threads."""

    def __init__(self, endpoint: Endpoint, api_key: str | None, *, wait_for_limits: bool = True) -> None:
        self._metadata = call_metadata(api_key)
        self._wait_for_limits = wait_for_limits
        self._channel = (
            grpc.insecure_channel(endpoint.address, options=endpoint.options())
            if endpoint.tls is None
            else grpc.secure_channel(endpoint.address, endpoint.tls.credentials(), options=endpoint.options())
        )
        self._calls: dict[str, Any] = {}
        self._closed = False

    async def unary(self, method: Method[Q, R], request: Q, timeout: float | None = None) -> R:
        async def call(seconds: float) -> R:
            try:
                response: R = self._callable(method, "unary_unary")(request, timeout=seconds, metadata=self._metadata)
            except grpc.RpcError as error:
                raise _error(error) from error
            return response

        return await answered(call, self.patience(method, timeout), self.sleep)

    async def stream(self, method: Method[Q, R], request: Q, timeout: float | None = None) -> AsyncGenerator[R, None]:
        def call(seconds: float) -> AsyncGenerator[R, None]:
            return responses(self.open_stream(method, request, seconds))

        async with aclosing(streamed(call, self.patience(method, timeout), self.sleep)) as messages:
            async for message in messages:
                yield message

    def open_stream(self, method: Method[Q, R], request: Q, seconds: float) -> Any:
        """The gRPC call behind `stream`, with so many seconds to its deadline."""
        return self._callable(method, "unary_stream")(request, timeout=seconds, metadata=self._metadata)

    def patience(self, method: Method[Any, Any], timeout: float | None) -> Patience:
        """How long a call may take, and whether it waits for limits."""
        return Patience(method.deadline if timeout is None else timeout, waits=self._wait_for_limits)

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - blocking is what this transport is for

    async def close(self) -> None:
        self._closed = True
        self._channel.close()

    def _callable(self, method: Method[Any, Any], kind: str) -> Any:
        if self._closed:
            raise RuntimeError("the client is closed")
        if method.path not in self._calls:
            self._calls[method.path] = getattr(self._channel, kind)(
                method.path,
                request_serializer=method.request.SerializeToString,
                response_deserializer=method.response.FromString,
            )
        return self._calls[method.path]


async def responses(call: Any) -> AsyncGenerator[Any, None]:
    """The answers of a streaming call, as they come; closing the generator ends the call."""
    try:
        for response in call:
            yield response
    except grpc.RpcError as error:
        raise _error(error) from error
    finally:
        call.cancel()


def _error(error: grpc.RpcError) -> Exception:
    # The blocking stack raises its calls; the types say so of no public class.
    call: Any = error
    return error_from_call(call.code(), call.details(), call.trailing_metadata())


def run(awaitable: Awaitable[T]) -> T:
    """The result of an awaitable that never suspends."""
    steps = awaitable.__await__()
    try:
        next(steps)
    except StopIteration as finished:
        result: T = finished.value
        return result
    raise RuntimeError("a coroutine of the blocking client has suspended")


def run_iterator(source: AsyncIterator[T]) -> Iterator[T]:
    """The items of an asynchronous generator that never suspends; closing it closes the generator."""
    try:
        while True:
            try:
                item = run(anext(source))
            except StopAsyncIteration:
                return
            yield item
    finally:
        if isinstance(source, AsyncGenerator):
            run(source.aclose())


class Facade(Generic[A]):
    """The blocking twin of a group of calls; its methods are made by `blocking` and `iterating`."""

    __slots__ = ("_inner",)

    def __init__(self, inner: A) -> None:
        self._inner = inner


@overload
def blocking(
    method: Callable[Concatenate[A, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Facade[A], P], T]: ...


@overload
def blocking(
    method: Callable[Concatenate[A, P], Coroutine[Any, Any, T]], then: Callable[[T], S]
) -> Callable[Concatenate[Facade[A], P], S]: ...


def blocking(
    method: Callable[Concatenate[A, P], Coroutine[Any, Any, Any]], then: Callable[[Any], Any] | None = None
) -> Callable[Concatenate[Facade[A], P], Any]:
    """The blocking twin of a coroutine method, with its signature; `then` turns the result into its blocking twin."""

    @functools.wraps(method)
    def call(self: Facade[A], /, *args: P.args, **kwargs: P.kwargs) -> Any:
        result = run(method(self._inner, *args, **kwargs))
        return result if then is None else then(result)

    return call


def iterating(
    method: Callable[Concatenate[A, P], AsyncIterator[T]],
) -> Callable[Concatenate[Facade[A], P], Iterator[T]]:
    """The blocking twin of a method that returns an asynchronous iterator, with its signature."""

    @functools.wraps(method)
    def call(self: Facade[A], /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        return run_iterator(method(self._inner, *args, **kwargs))

    return call
