"""Reads the request, and turns its bytes into a message."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import Any, Final
from weakref import WeakValueDictionary

from memoro_core.errors import Code, MemoroError, Reason, invalid_field
from memoro_core.ids import TenantId
from memoro_server.call import Call, Handler, Method
from memoro_server.parsing import parse
from memoro_server.status import deadline_exceeded

_PATIENCE: Final = 30.0
_PATIENCE_WITH_STRANGERS: Final = 2.0
"""Seconds in which the whole request must be there."""
_MOST_STRANGERS: Final = 64
_MOST_OF_TENANT: Final = 64


class ParsingInterceptor:
    """Reads the request and parses it, refusing fields that the contract does not know.

    gRPC keeps as much of each request as the largest message of any method has, so that who never finishes them could
    fill the memory. So 64 of a tenant are read at a time, and its others wait for their turn; of methods that need no
    credentials 64 in all, and others are refused.
    """

    name: Final = "parsing"

    def __init__(self) -> None:
        self._strangers = 0
        self._turns: WeakValueDictionary[TenantId, asyncio.Semaphore] = WeakValueDictionary()

    def wrap(self, method: Method, proceed: Handler) -> Handler:
        request_class, is_open = method.request_class, method.policy.scope is None
        if request_class is None:
            return self._wrap_stream(proceed) if is_open else proceed

        async def parsed(_: Any, call: Call) -> bytes | None:
            return await proceed(parse(request_class, _given(await self._read_in_turn(call))), call)

        async def parsed_soon(_: Any, call: Call) -> bytes | None:
            data = await _within(_PATIENCE, self._read_in_turn(call))
            return await proceed(parse(request_class, _given(data)), call)

        async def parsed_of_stranger(_: Any, call: Call) -> bytes | None:
            with self._one_more():
                data = await _within(_PATIENCE_WITH_STRANGERS, call.read())
            return await proceed(parse(request_class, _given(data)), call)

        if is_open:
            return parsed_of_stranger
        # A day is too long for a watch to begin; the deadline of any other call is near enough.
        return parsed_soon if method.policy.streaming else parsed

    def _wrap_stream(self, proceed: Handler) -> Handler:
        async def counted(requests: Any, call: Call) -> bytes | None:
            with self._one_more():
                return await proceed(requests, call)

        return counted

    async def _read_in_turn(self, call: Call) -> bytes | None:
        turn = self._turns.get(call.tenant_id)
        if turn is None:
            turn = self._turns[call.tenant_id] = asyncio.Semaphore(_MOST_OF_TENANT)
        async with turn:
            return await call.read()

    @contextmanager
    def _one_more(self) -> Iterator[None]:
        if self._strangers >= _MOST_STRANGERS:
            raise _too_many()
        self._strangers += 1
        try:
            yield
        finally:
            self._strangers -= 1


async def _within(seconds: float, reading: Awaitable[bytes | None]) -> bytes | None:
    try:
        async with asyncio.timeout(seconds):
            return await reading
    except TimeoutError:
        raise deadline_exceeded() from None


def _given(data: bytes | None) -> bytes:
    if data is None:
        raise invalid_field("request", "is missing: send one message")
    return data


def _too_many() -> MemoroError:
    return MemoroError(
        Code.UNAVAILABLE,
        Reason.DEPENDENCY_UNAVAILABLE,
        "too many calls without credentials at once; try again",
        retry_after=0.5,
    )
