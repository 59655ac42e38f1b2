"""One attempt of a job under way."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from enum import Enum, auto

from memoro_core.billing.model import DeferralReason
from memoro_core.clock import Clock
from memoro_core.jobs.model import Claim, Finish, FreeCall, JobResult, JobState, JobUsage, StageProgress
from memoro_core.jobs.ports import EventTail
from memoro_core.jobs.run_ports import JobCancelled, RunStore
from memoro_core.jobs.spending import ProviderCall, Spending
from memoro_core.llm.model import Usage


class Interruption(Enum):
    """Why a handler was stopped before it was done."""

    CANCELLED = auto()
    TIMED_OUT = auto()


class Run:
    """The `RunContext` of a handler.

    Made in the task that sees the run through, and that is stopped to stop the run.
    """

    def __init__(self, claim: Claim, store: RunStore, tail: EventTail, spending: Spending, clock: Clock) -> None:
        self._claim = claim
        self._store = store
        self._tail = tail
        self._spending = spending
        self._clock = clock
        self._stages = {stage.stage: StageProgress(stage.stage) for stage in claim.job.stages}
        self._reporting = asyncio.Lock()
        self._interruptible = False
        self._free_calls: list[FreeCall] = []
        task = asyncio.current_task()
        assert task is not None
        self.task = task
        self.usage = claim.job.usage
        self.cancel_requested = claim.job.cancel_requested
        self.interruption: Interruption | None = None
        """Why its handler was stopped."""
        self.lost = False

    @property
    def claim(self) -> Claim:
        """The job, and the lease to name in the last write."""
        return self._claim

    @property
    def stages(self) -> Sequence[StageProgress]:
        """The stages as reported so far."""
        return tuple(self._stages.values())

    async def report(self, progress: StageProgress) -> None:
        """Tells watchers how far a stage is. A safe point: raises JobCancelled or LeaseLost."""
        ref = self._claim.ref
        # One at a time, so that the stages in the row are never older than the latest event.
        async with self._reporting:
            self._stages[progress.stage] = progress
            event, asked_to_cancel = await self._store.report(self._claim, self.stages, progress, now=self._clock.now())
            await self._tail.publish(ref.tenant_id, ref.job_id, [event])
        if asked_to_cancel or self.cancel_requested:
            raise JobCancelled

    def spending(self, bound: Usage, request: bytes) -> AbstractAsyncContextManager[ProviderCall]:
        """A block in which a provider is asked once. Raises PRICE_UNKNOWN."""
        return self._spending.call(self._claim, bound, request, self._spent)

    def success(self, result: JobResult, *, partial: bool) -> Finish:
        """The last write of a run that went well. From here on the run is not interrupted."""
        self._interruptible = False
        return self.with_calls(Finish(JobState.SUCCEEDED, self.stages, self.usage, partial=partial, result=result))

    def put_off(self, until: datetime, reason: DeferralReason) -> Finish:
        """The last write of a run that has to wait. From here on the run is not interrupted."""
        self._interruptible = False
        return self.with_calls(Finish(JobState.DEFERRED, self.stages, self.usage, run_at=until, deferral_reason=reason))

    def with_calls(self, finish: Finish) -> Finish:
        """An end of this run, with what is to be written of its calls."""
        return dataclasses.replace(finish, free_calls=tuple(self._free_calls))

    def begin(self) -> None:
        """From here on the run may be interrupted: its handler is at work."""
        self._interruptible = True

    def end(self) -> None:
        """From here on the run is not interrupted: its handler is done."""
        self._interruptible = False

    def cancel(self) -> None:
        """A caller asked for it: stops the handler where it waits."""
        self.cancel_requested = True
        self._interrupt(Interruption.CANCELLED)

    def time_out(self) -> None:
        """It took too long: stops the handler where it waits."""
        self._interrupt(Interruption.TIMED_OUT)

    def lose(self) -> None:
        """The job is another's: stops whatever the run does."""
        self.lost = True
        self.task.cancel()

    def _spent(self, usage: Sequence[Usage], free: FreeCall | None) -> None:
        for one in usage:
            self.usage += JobUsage(one.input_tokens, one.output_tokens)
        if free is not None:
            self._free_calls.append(free)

    def _interrupt(self, why: Interruption) -> None:
        if self._interruptible:
            self._interruptible = False
            self.interruption = why
            self.task.cancel()
