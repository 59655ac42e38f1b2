"""Bounds every call in time."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from memoro_server.call import Call, Handler, Method
from memoro_server.status import deadline_exceeded


class DeadlineInterceptor:
    """Gives a call the caller's deadline, but never more than the method's longest; DEADLINE_EXCEEDED after it.

    A call whose deadline has passed already is refused before it does anything.
    """

    name: Final = "deadline"

    def wrap(self, method: Method, proceed: Handler) -> Handler:
        async def bounded(request: Any, call: Call) -> bytes | None:
            seconds = call.seconds_left
            if seconds <= 0:
                raise deadline_exceeded()
            scope = asyncio.timeout(seconds)
            try:
                async with scope:
                    return await proceed(request, call)
            except TimeoutError:
                if scope.expired():
                    raise deadline_exceeded() from None
                raise

        return bounded
