"""Streams that break are taken up again: what all watches have in common."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from memoro.errors import Code, DeadlineExceeded, MemoroError, Unavailable
from memoro.methods import Method, R
from memoro.transport import Transport

PATIENCE = 120.0
"""For how many seconds a watch goes on trying without any message before it gives up."""

_FIRST_DELAY = 0.1
_LONGEST_DELAY = 5.0

# What a limit refuses the transport has waited for, if it may.
_CURED_BY_A_NEW_STREAM = {Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED}
_BROKEN_STREAM = {Code.INTERNAL, Code.UNKNOWN, Code.CANCELLED}


async def resumed(
    transport: Transport,
    method: Method[Any, R],
    request_now: Callable[[], Any],
    *,
    late: str = "",
    timeout: float | None = None,
    patience: float = PATIENCE,
    endless: bool = False,
) -> AsyncGenerator[R | None, None]:
    """The messages of one stream after another, each opened with the request that `request_now` makes then.

    When the server drains, dies or falls silent, the next stream is opened, after a growing pause. None among the
    messages says that the events after the request's `resume_token` are gone: the next request must bear none. A stream
    that the server ends with OK is the last one, unless the streams of this method are `endless`. Raises
    DeadlineExceeded with the text `late` after `timeout` seconds, the last error after `patience` seconds without any
    message, and at once any error that a new stream would not cure.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    failures = 0
    failing_since = 0.0
    while True:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise DeadlineExceeded(late)
        request = request_now()
        stream = transport.stream(method, request, left if left is None else min(left, method.deadline))
        forgotten = False
        try:
            async with aclosing(stream):
                async for message in stream:
                    failures = 0
                    yield message
            if not endless:
                return
            raise Unavailable("the server has ended a stream that has no end")
        except MemoroError as error:
            now = time.monotonic()
            failing_since = failing_since if failures else now
            forgotten = error.reason == "RESUME_TOKEN_EXPIRED" and bool(request.resume_token)
            if not forgotten and (not _curable(error) or now - failing_since >= patience):
                raise
            delay = _delay(failures, error.retry_after)
            failures += 1
        if forgotten:
            yield None
        else:
            await transport.sleep(delay if left is None else min(delay, left))


def _curable(error: MemoroError) -> bool:
    # gRPC tells of a connection that broke in the middle in several ways, none of which bears a reason of ours.
    return error.code in _CURED_BY_A_NEW_STREAM or (not error.reason and error.code in _BROKEN_STREAM)


def _delay(failures: int, retry_after: float | None) -> float:
    spread: float = random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing
    backoff: float = min(_FIRST_DELAY * 2**failures, _LONGEST_DELAY) * spread
    return max(backoff, min(retry_after or 0.0, _LONGEST_DELAY))
