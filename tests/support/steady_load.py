"""Callers who send at a steady pace, however long the answers take."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import grpc
from google.protobuf.message import Message

from benchmarks.report import percentile
from tests.support.buckets import Passage
from tests.support.deployment import Caller
from tests.support.interception import Outcome


@dataclass(frozen=True, slots=True)
class Sent:
    """A call that was sent, and answered, at these times of `time.monotonic`."""

    at: float
    answered: float
    outcome: Outcome

    @property
    def passed(self) -> bool:
        """Whether it was OK."""
        return self.outcome.code is grpc.StatusCode.OK


@dataclass
class SteadyLoad:
    """One method of one caller, called every so many seconds."""

    caller: Caller
    method: str
    request: Callable[[], Message]
    every: float
    sent: list[Sent] = field(default_factory=list)

    async def run(self, until: float) -> None:
        """Sends up to that time, and waits for all answers."""
        due = time.monotonic()
        async with asyncio.TaskGroup() as calls:
            while due < until:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                calls.create_task(self._send())
                due += self.every

    async def _send(self) -> None:
        at = time.monotonic()
        outcome = await self.caller.call(self.method, self.request())
        self.sent.append(Sent(at, time.monotonic(), outcome))

    def between(self, since: float, until: float) -> Sequence[Sent]:
        """The calls that were sent in this time."""
        return [one for one in self.sent if since <= one.at < until]

    def median(self, since: float, until: float) -> float:
        """In seconds, of the calls that were sent in this time."""
        return percentile([one.answered - one.at for one in self.between(since, until)], 50)

    def passages(self) -> Sequence[Passage]:
        """The calls that passed, each of the weight 1."""
        return [Passage(int(one.at * 1e6), int(one.answered * 1e6)) for one in self.sent if one.passed]
