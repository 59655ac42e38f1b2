"""How a call that a limit refuses is made again: after the time that the server named, within its deadline."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar

from memoro.errors import RateLimited

T = TypeVar("T")

Sleep = Callable[[float], Awaitable[None]]


class Patience:
    """How long a call may take, waits included: `seconds`. Without `waits` it does not wait for any limit."""

    def __init__(self, seconds: float, *, waits: bool) -> None:
        self._end = time.monotonic() + seconds
        self._waits = waits
        self._refused = False

    @property
    def left(self) -> float:
        """Seconds until the call's deadline."""
        return self._end - time.monotonic()

    def pause(self, refusal: RateLimited) -> float:
        """The seconds after which to call again; raises the refusal when they don't fit into the deadline.

        A refused call did nothing, so that any may be made again. The first wait is as the server says; later ones are
        up to twice as long, at random, since then others wait for the same limit.
        """
        told, left = refusal.retry_after, self.left
        if not self._waits or told is None or told >= left:
            raise refusal
        spread: float = random.uniform(1.0, 2.0) if self._refused else 1.0  # noqa: S311 - spreads load, guards nothing
        self._refused = True
        return min(told * spread, (told + left) / 2)


async def answered(call: Callable[[float], Awaitable[T]], patience: Patience, sleep: Sleep) -> T:
    """The answer to a call, which is made with the seconds that it has left, again and again until no limit is met."""
    while True:
        try:
            return await call(patience.left)
        except RateLimited as refusal:
            pause = patience.pause(refusal)
        await sleep(pause)


async def streamed(
    call: Callable[[float], AsyncGenerator[T, None]], patience: Patience, sleep: Sleep
) -> AsyncGenerator[T, None]:
    """The answers to a call likewise: until the first of them, it is made again."""
    while True:
        begun = False
        try:
            async with aclosing(call(patience.left)) as messages:
                async for message in messages:
                    begun = True
                    yield message
            return
        except RateLimited as refusal:
            if begun:
                raise
            pause = patience.pause(refusal)
        await sleep(pause)
