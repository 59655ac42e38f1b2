"""Lets a server stop without cutting calls off."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from memoro_server.call import Call, Handler, Method
from memoro_server.status import draining


class DrainInterceptor:
    """Knows the calls under way; ends the streams, then refuses new calls, then tells when the last has ended.

    Methods that need no credentials go on: a health probe must learn that the server drains. Of them only the streams are
    ended with the others.
    """

    name: Final = "drain"

    def __init__(self) -> None:
        self._streams: set[asyncio.Timeout] = set()
        self._running = 0
        self._no_streams = False
        self._no_calls = False
        self._idle = asyncio.Event()
        self._idle.set()

    def end_streams(self) -> None:
        """Ends the open streams with UNAVAILABLE / SERVER_DRAINING, and refuses new ones."""
        self._no_streams = True
        now = asyncio.get_running_loop().time()
        for stream in self._streams:
            stream.reschedule(now)

    def refuse_calls(self) -> None:
        """Refuses every new call from now on with UNAVAILABLE / SERVER_DRAINING."""
        self._no_calls = True

    async def wait_idle(self) -> None:
        """Waits until no call is under way."""
        await self._idle.wait()

    def wrap(self, method: Method, proceed: Handler) -> Handler:
        if method.policy.streaming:
            return self._wrap_stream(proceed)
        if method.policy.scope is None:
            return proceed

        async def counted(request: Any, call: Call) -> bytes | None:
            if self._no_calls:
                raise draining()
            self._enter()
            try:
                return await proceed(request, call)
            finally:
                self._leave()

        return counted

    def _wrap_stream(self, proceed: Handler) -> Handler:
        async def interruptible(request: Any, call: Call) -> bytes | None:
            if self._no_streams:
                raise draining()
            self._enter()
            try:
                async with asyncio.timeout(None) as stream:
                    self._streams.add(stream)
                    try:
                        return await proceed(request, call)
                    finally:
                        self._streams.discard(stream)
            except TimeoutError:
                if stream.expired():
                    raise draining() from None
                raise
            finally:
                self._leave()

        return interruptible

    def _enter(self) -> None:
        self._running += 1
        self._idle.clear()

    def _leave(self) -> None:
        self._running -= 1
        if not self._running:
            self._idle.set()
