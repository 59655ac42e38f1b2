"""The watch of the tenant's jobs for blocking code: an iterator that another thread may end."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from types import TracebackType
from typing import Any, Self

from memoro.blocking import BlockingTransport, responses, run
from memoro.errors import MemoroError
from memoro.jobs_watch import AsyncJobsWatch
from memoro.methods import Method, Q, R
from memoro.patience import streamed
from memoro.transport import Transport
from memoro.types import JobUpdate


class JobsWatch:
    """The updates of the tenant's jobs as they happen: enter it as a context manager, and iterate over it.

    Whatever happens once it is entered is told. It does not end by itself, but any thread may close it; the iteration
    then ends. When a server drains, dies or falls silent, it goes on after what it told last.
    """

    def __init__(self, transport: BlockingTransport, open_watch: Callable[[Transport], AsyncJobsWatch]) -> None:
        self._transport = _InterruptibleTransport(transport)
        self._watch = open_watch(self._transport)
        self._iterating = threading.Lock()

    @property
    def resume_token(self) -> str:
        """What `jobs.watch_all`, with the same filter, takes to go on after all that was told so far.

        Keep it when an update has been dealt with: it moves with each of them, and while none fits the filter with the
        server's heartbeats.
        """
        return self._watch.resume_token

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> JobUpdate:
        with self._iterating:
            try:
                return run(anext(self._watch))
            except (StopAsyncIteration, _Interrupted):
                raise StopIteration from None

    def close(self) -> None:
        """Ends the watch, also for a thread that waits for its next update."""
        self._transport.interrupt()
        # A generator at work can't be closed; it ends by itself, as its stream is gone.
        if self._iterating.acquire(blocking=False):
            try:
                run(self._watch.aclose())
            finally:
                self._iterating.release()

    def __enter__(self) -> Self:
        with self._iterating, suppress(_Interrupted):
            run(self._watch.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Interrupted(Exception):
    """The caller has closed the watch."""


class _InterruptibleTransport:
    """A blocking transport for one stream at a time, which another thread may end."""

    def __init__(self, inner: BlockingTransport) -> None:
        self._inner = inner
        self._interrupted = threading.Event()
        self._call: Any = None

    def interrupt(self) -> None:
        """Makes the stream or the pause under way, and any later one, raise _Interrupted."""
        self._interrupted.set()
        if self._call is not None:
            self._call.cancel()

    async def unary(self, method: Method[Q, R], request: Q, timeout: float | None = None) -> R:
        return await self._inner.unary(method, request, timeout)

    async def stream(self, method: Method[Q, R], request: Q, timeout: float | None = None) -> AsyncGenerator[R, None]:
        def call(seconds: float) -> AsyncGenerator[R, None]:
            self._call = self._inner.open_stream(method, request, seconds)
            if self._interrupted.is_set():
                self._call.cancel()
            return responses(self._call)

        try:
            async with aclosing(streamed(call, self._inner.patience(method, timeout), self.sleep)) as messages:
                async for message in messages:
                    yield message
        except MemoroError:
            if self._interrupted.is_set():
                raise _Interrupted from None
            raise

    async def sleep(self, seconds: float) -> None:
        if self._interrupted.wait(seconds):
            raise _Interrupted

    async def close(self) -> None:
        self.interrupt()
