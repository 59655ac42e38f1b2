"""Follows the jobs of the tenant, without end, over streams that may break."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import replace
from types import TracebackType
from typing import Self, TypeAlias

from memoro import convert, wire
from memoro.enums import JobKind, JobState
from memoro.methods import WATCH_JOBS
from memoro.resuming import PATIENCE, resumed
from memoro.transport import Transport
from memoro.types import JobUpdate
from memoro.v1.jobs_service_pb2 import WatchJobsRequest

REMEMBERED_JOBS = 10_000
"""For how many jobs, the latest to change, a watch knows what it has told, and tells nothing twice."""


_Message: TypeAlias = tuple[str, JobUpdate | None]
"""What goes on after a message, and the update in it that is to be told."""


class AsyncJobsWatch:
    """The updates of the tenant's jobs as they happen: enter it as a context manager, and iterate over it.

    Whatever happens once it is entered is told. It does not end by itself. When a server drains, dies or falls silent,
    it goes on after what it told last.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        states: Iterable[JobState] = (),
        kinds: Iterable[JobKind] = (),
        user_id: str = "",
        resume_token: str = "",
        patience: float = PATIENCE,
    ) -> None:
        self._transport = transport
        self._patience = patience
        self._filter = WatchJobsRequest(
            states=[wire.enum_number(JobState, state) for state in states],
            kinds=[wire.enum_number(JobKind, kind) for kind in kinds],
            user_id=user_id,
        )
        self._resume_token = self._position = resume_token
        self._after_gap = False
        # Job → the sequence of what was told of it last.
        self._told: OrderedDict[str, tuple[int, bool]] = OrderedDict()
        self._messages = self._follow()
        self._held: _Message | None = None

    @property
    def resume_token(self) -> str:
        """What `jobs.watch_all`, with the same filter, takes to go on after all that was told so far.

        Keep it when an update has been dealt with: it moves with each of them, and while none fits the filter with the
        server's heartbeats.
        """
        return self._resume_token

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> JobUpdate:
        while True:
            message, self._held = self._held, None
            if message is None:
                message = await anext(self._messages)
            self._resume_token, update = message
            if update is not None:
                return update

    async def aclose(self) -> None:
        """Ends the watch."""
        self._held = None
        await self._messages.aclose()

    async def __aenter__(self) -> Self:
        # With a token it is known where the watch begins; without one the server says so with its first message.
        if not self._resume_token and self._held is None:
            self._held = await anext(self._messages, None)
            if self._held is not None and self._held[1] is None:
                self._resume_token, self._held = self._held[0], None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _request_now(self) -> WatchJobsRequest:
        request = WatchJobsRequest(resume_token=self._position)
        request.MergeFrom(self._filter)
        return request

    async def _follow(self) -> AsyncGenerator[_Message, None]:
        messages = resumed(self._transport, WATCH_JOBS, self._request_now, patience=self._patience, endless=True)
        async with aclosing(messages):
            async for message in messages:
                if message is None:
                    # What is open is told anew and whole, so that the caller sees what no longer is.
                    self._told.clear()
                    self._position = ""
                    self._after_gap = True
                    continue
                self._position = message.resume_token or self._position
                update = None
                if message.WhichOneof("event") in {"snapshot", "update"}:
                    update = convert.job_update(message)
                if update is not None and self._is_news(update):
                    yield self._position, replace(update, after_gap=self._after_gap)
                    self._after_gap = False
                else:
                    yield self._position, None

    def _is_news(self, update: JobUpdate) -> bool:
        sequence, ended = self._told.get(update.job_id, (-1, False))
        # A crash of the database may take progress back that was told: then the end has a lower number.
        if ended or (update.sequence <= sequence and not update.state.ended):
            return False
        self._told[update.job_id] = update.sequence, update.state.ended
        self._told.move_to_end(update.job_id)
        if len(self._told) > REMEMBERED_JOBS:
            self._told.popitem(last=False)
        return True
