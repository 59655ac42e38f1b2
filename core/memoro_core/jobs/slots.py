"""How many jobs a worker runs at once, and how many more it may hear of."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from memoro_core.jobs.hints import HintClass

_RESERVED_SHARE: Final = 8
"""One slot in so many is kept free of the backlog."""


class Slots:
    """The slots of one process, each for one running job.

    Jobs of the backlog get a slot only while more than `reserve` are free, so that a fresh job finds one at once. Jobs
    that are reserved, which a hint has named and which have no slot yet, take up room; up to `prefetch` jobs are read
    ahead of free slots.
    """

    def __init__(self, total: int, *, prefetch: int = 0) -> None:
        self.total: Final = total
        self.reserve: Final = max(1, total // _RESERVED_SHARE) if total > 1 else 0
        self._prefetch = prefetch
        self._running = 0
        self._reserved = dict.fromkeys(HintClass, 0)
        self._takers: dict[HintClass, deque[asyncio.Future[None]]] = {each: deque() for each in HintClass}
        self._has_room = {each: asyncio.Event() for each in HintClass}
        self._settle()

    @property
    def free(self) -> int:
        """Slots in which no job runs."""
        return self.total - self._running

    def room(self, hint_class: HintClass) -> int:
        """How many more jobs of a class may be heard of now; never below 0."""
        room = self.free + self._prefetch - self._reserved[HintClass.FRESH]
        if hint_class is HintClass.BACKLOG:
            room -= self.reserve + self._reserved[HintClass.BACKLOG]
        return max(0, room)

    async def wait_for_room(self, hint_class: HintClass) -> int:
        """The room for jobs of a class, once there is any."""
        while not self.room(hint_class):
            await self._has_room[hint_class].wait()
        return self.room(hint_class)

    def hold(self, hint_class: HintClass, jobs: int) -> Reservation:
        """Reserves for the jobs of a hint. There may be less room than that: then some of them wait longer."""
        self._reserved[hint_class] += jobs
        self._settle()
        return Reservation(self, hint_class, jobs)

    def release(self) -> None:
        """Frees the slot of a job that has ended."""
        self._running -= 1
        self._settle()

    async def _take(self, hint_class: HintClass) -> None:
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._takers[hint_class].append(granted)
        self._settle()
        try:
            await granted
        except asyncio.CancelledError:
            if granted.cancelled():
                self._drop(hint_class, 1)
            else:
                self.release()
            raise

    def _drop(self, hint_class: HintClass, jobs: int) -> None:
        self._reserved[hint_class] -= jobs
        self._settle()

    def _settle(self) -> None:
        """Gives free slots to those who wait, and lets readers know whether there is room."""
        for hint_class, kept in ((HintClass.FRESH, 0), (HintClass.BACKLOG, self.reserve)):
            takers = self._takers[hint_class]
            while takers and self.total - self._running > kept:
                granted = takers.popleft()
                if not granted.cancelled():
                    self._reserved[hint_class] -= 1
                    self._running += 1
                    granted.set_result(None)
        for hint_class, has_room in self._has_room.items():
            if has_room.is_set() is not (self.room(hint_class) > 0):
                (has_room.clear if has_room.is_set() else has_room.set)()


class Reservation:
    """The jobs that one hint names, until each has a slot or is known not to need one."""

    def __init__(self, slots: Slots, hint_class: HintClass, jobs: int) -> None:
        self._slots = slots
        self._hint_class = hint_class
        self._jobs = jobs

    async def take(self) -> None:
        """Waits for a slot for one of the jobs; `Slots.release` frees it."""
        if self._jobs:
            self._jobs -= 1
        else:
            # The hint named more jobs than its reader was told.
            self._slots.hold(self._hint_class, 1)
        await self._slots._take(self._hint_class)

    def close(self) -> None:
        """Gives up what is reserved and has not been asked for."""
        jobs, self._jobs = self._jobs, 0
        if jobs:
            self._slots._drop(self._hint_class, jobs)
