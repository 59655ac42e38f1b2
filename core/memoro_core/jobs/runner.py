"""Runs jobs: claims them, keeps their leases, and sees each run to its end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import structlog

from memoro_core.batching import Coalescer
from memoro_core.clock import Clock
from memoro_core.errors import MemoroError, ProviderError
from memoro_core.jobs.model import (
    Claim,
    Finish,
    Job,
    JobEvent,
    JobKind,
    JobRef,
    JobResult,
    JobState,
    JobUsage,
    Stage,
    StageProgress,
)
from memoro_core.jobs.ports import EventTail, JobCancelled, JobHandler, JobStore, LeaseLost
from memoro_core.jobs.retry import RetryPolicy, classify, timed_out
from memoro_core.jobs.service import job_not_found
from memoro_core.jobs.states import cancelled, failed
from memoro_core.llm.model import Usage
from memoro_core.tasks import end_task

_log = structlog.get_logger(__name__)
_CLAIM_BATCH: Final = 64
_ELSEWHERE: Final = 0.25
"""Seconds between two looks at a job that another process runs."""


@dataclass(frozen=True, slots=True)
class RunPolicy:
    """How jobs are run; times in seconds. A lease outlives two heartbeats."""

    lease: float
    heartbeat: float
    timeout: float
    retry: RetryPolicy


class JobRunner:
    """Runs jobs in this process, any number at once. `async with` keeps their leases while they run."""

    def __init__(
        self,
        store: JobStore,
        tail: EventTail,
        handlers: Mapping[JobKind, JobHandler],
        clock: Clock,
        policy: RunPolicy,
        *,
        worker_id: str,
    ) -> None:
        self._store = store
        self._tail = tail
        self._handlers = handlers
        self._clock = clock
        self._policy = policy
        self._worker_id = worker_id
        self._runs: dict[JobRef, _Run] = {}
        self._claims: Coalescer[None, JobRef, Claim | None] = Coalescer(self._claim_all, max_items=_CLAIM_BATCH)
        self._heart: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def running(self) -> int:
        """Jobs that run here at the moment."""
        return len(self._runs)

    async def __aenter__(self) -> JobRunner:
        self._heart = asyncio.create_task(self._beat())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop(grace=0.0)
        if self._heart is not None:
            await end_task(self._heart)

    async def run(self, ref: JobRef, *, claimed: Callable[[], Awaitable[None]] | None = None) -> JobState | None:
        """One attempt of a job; the state it ended in, or None when there was nothing to run here.

        `claimed` is called once the claim is decided, either way: from then on the job's row keeps it. Raises
        UNAVAILABLE when the claim can't be decided.
        """
        claim = None if self._stopping else await self._claims.submit(None, ref)
        if claimed is not None:
            await claimed()
        if claim is None:
            return None
        with structlog.contextvars.bound_contextvars(
            job_id=str(ref.job_id), tenant_id=str(ref.tenant_id), attempt=claim.job.attempt
        ):
            return await self._see_through(claim)

    async def execute(self, ref: JobRef) -> Job:
        """Runs a job's attempts until it has ended, waiting between them; the job as it then is."""
        while True:
            await self.run(ref)
            job = await self._store.get(ref.tenant_id, ref.job_id)
            if job is None:
                raise job_not_found(ref.job_id)
            if job.state.terminal:
                return job
            wait = (job.run_at - self._clock.now()).total_seconds() if job.state is JobState.QUEUED else _ELSEWHERE
            await asyncio.sleep(max(wait, 0.0))

    async def stop(self, *, grace: float) -> None:
        """Claims nothing more; runs under way have `grace` seconds to end, then their jobs are handed back."""
        self._stopping = True
        tasks = {run.task for run in self._runs.values()}
        if tasks and grace:
            await asyncio.wait(tasks, timeout=grace)
        runs = list(self._runs.values())
        await asyncio.gather(*(end_task(run.task) for run in runs))
        if runs:
            with contextlib.suppress(MemoroError):
                released = await self._store.release([run.claim for run in runs], now=self._clock.now())
                for ref, event in released:
                    await self._tail.publish(ref.tenant_id, ref.job_id, [event])

    async def _claim_all(self, _: None, refs: Sequence[JobRef]) -> Sequence[Claim | None]:
        now = self._clock.now()
        claimed = await self._store.claim(
            list(dict.fromkeys(refs)),
            worker_id=self._worker_id,
            now=now,
            lease_until=now + timedelta(seconds=self._policy.lease),
        )
        for claim, event in claimed:
            await self._tail.publish(claim.ref.tenant_id, claim.ref.job_id, [event])
        claims = {claim.ref: claim for claim, _ in claimed}
        # Of two hints for one job that came together, the first gets the claim.
        return [claims.pop(ref, None) for ref in refs]

    async def _see_through(self, claim: Claim) -> JobState | None:
        run = _Run(claim, self._store, self._tail, self._clock)
        run.task = asyncio.create_task(self._attempt(run))
        self._runs[claim.ref] = run
        try:
            event = await asyncio.shield(run.task)
        except asyncio.CancelledError:
            if not run.task.done():
                await end_task(run.task)
                raise
            return None
        except LeaseLost:
            _log.warning("lease_lost")
            return None
        except MemoroError as error:
            # The end could not be written: the lease runs out, and the job is run again.
            _log.warning("end_not_written", reason=str(error))
            return None
        finally:
            if self._runs.get(claim.ref) is run:
                del self._runs[claim.ref]
        await self._tail.publish(claim.ref.tenant_id, claim.ref.job_id, [event])
        _log.info("attempt_ended", state=str(event.state), reason=event.error.reason if event.error else None)
        return event.state

    async def _attempt(self, run: _Run) -> JobEvent:
        claim = run.claim
        limit = asyncio.timeout(self._policy.timeout)
        try:
            async with limit:
                return await self._handlers[claim.job.kind].run(run)
        except LeaseLost:
            raise
        except JobCancelled:
            finish = cancelled(stages=run.stages, usage=run.usage)
        except Exception as failure:  # noqa: BLE001 - whatever it is, it ends the attempt
            if isinstance(failure, ProviderError):
                run.record(failure.usage)
            over_time = isinstance(failure, TimeoutError) and limit.expired()
            verdict = timed_out(self._policy.timeout) if over_time else classify(failure)
            _log.warning(
                "attempt_failed", reason=verdict.error.reason, retryable=verdict.error.retryable, exc_info=failure
            )
            now = self._clock.now()
            retry_at = self._policy.retry.retry_at(now, claim.job.attempt, retry_after=verdict.retry_after)
            finish = failed(claim.job, verdict.error, stages=run.stages, usage=run.usage, retry_at=retry_at)
        return await self._store.finish(claim, finish, now=self._clock.now())

    async def _beat(self) -> None:
        """Extends the leases of all runs; a run that has lost its lease is ended."""
        while True:
            await asyncio.sleep(self._policy.heartbeat)
            runs = dict(self._runs)
            if not runs:
                continue
            try:
                kept = await self._store.extend(
                    [run.claim for run in runs.values()],
                    lease_until=self._clock.now() + timedelta(seconds=self._policy.lease),
                )
            except MemoroError as error:
                _log.warning("heartbeat_failed", reason=str(error))
                continue
            for ref, cancel_requested in kept:
                runs.pop(ref).cancel_requested = cancel_requested
            for run in runs.values():
                if not run.task.done():
                    run.task.cancel()


class _Run:
    """One attempt under way: the `RunContext` of its handler."""

    task: asyncio.Task[JobEvent]

    def __init__(self, claim: Claim, store: JobStore, tail: EventTail, clock: Clock) -> None:
        self._claim = claim
        self._store = store
        self._tail = tail
        self._clock = clock
        self._stages = {stage: StageProgress(stage) for stage in Stage}
        self.usage = claim.job.usage
        self.cancel_requested = claim.job.cancel_requested

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
        self._stages[progress.stage] = progress
        event, asked_to_cancel = await self._store.report(self._claim, self.stages, progress, now=self._clock.now())
        await self._tail.publish(self._claim.ref.tenant_id, self._claim.ref.job_id, [event])
        if asked_to_cancel or self.cancel_requested:
            raise JobCancelled

    def record(self, usage: Sequence[Usage]) -> None:
        """Adds what a provider call used."""
        for one in usage:
            self.usage += JobUsage(one.input_tokens, one.output_tokens)

    def success(self, result: JobResult, *, partial: bool) -> Finish:
        """The last write of a run that went well."""
        return Finish(JobState.SUCCEEDED, self.stages, self.usage, partial=partial, result=result)
