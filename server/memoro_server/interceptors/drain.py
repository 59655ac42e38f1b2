"""Lets a server stop without cutting calls off."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from memoro_server.call import Call, Handler, Method
from memoro_server.status import draining


class DrainInterceptor:
    """Knows the calls under way; ends the streams, then refuses new calls, and tells when the last has ended.

    Methods that need no credentials are spared the first step, and never refused: a health probe must learn that the
    server drains.
    """

    name: Final = "drain"

    def __init__(self) -> None:
        self._streams: dict[asyncio.Timeout, bool] = {}
        self._running = 0
        self._no_streams = False
        self._no_calls = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def running(self) -> int:
        """How many calls are under way."""
        return self._running

    def end_streams(self) -> None:
        """Ends the open streams with UNAVAILABLE / SERVER_DRAINING, and refuses new ones."""
        self._no_streams = True
        self._end(open_to_all=False)

    def refuse_calls(self) -> None:
        """Refuses every new call likewise, and ends the streams of methods that need no credentials."""
        self._no_calls = True
        self._end(open_to_all=True)

    async def wait_idle(self) -> None:
        """Waits until no call is under way."""
        await self._idle.wait()

    def wrap(self, method: Method, proceed: Handler) -> Handler:
        open_to_all = method.policy.scope is None
        if method.policy.streaming:
            return self._wrap_stream(proceed, open_to_all)
        if open_to_all:
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

    def _wrap_stream(self, proceed: Handler, open_to_all: bool) -> Handler:
        async def interruptible(request: Any, call: Call) -> bytes | None:
            if self._no_calls or (self._no_streams and not open_to_all):
                raise draining()
            self._enter()
            stream = asyncio.timeout(None)
            try:
                async with stream:
                    self._streams[stream] = open_to_all
                    try:
                        return await proceed(request, call)
                    finally:
                        del self._streams[stream]
            except TimeoutError:
                if stream.expired():
                    raise draining() from None
                raise
            finally:
                self._leave()

        return interruptible

    def _end(self, *, open_to_all: bool) -> None:
        now = asyncio.get_running_loop().time()
        for stream, is_open_to_all in self._streams.items():
            if is_open_to_all == open_to_all:
                stream.reschedule(now)

    def _enter(self) -> None:
        self._running += 1
        self._idle.clear()

    def _leave(self) -> None:
        self._running -= 1
        if not self._running:
            self._idle.set()
