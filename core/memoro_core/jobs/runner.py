"""Runs jobs: claims them, keeps their leases, and sees each run to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

import structlog

from memoro_core.batching import Coalescer
from memoro_core.clock import Clock
from memoro_core.errors import Code, MemoroError, Reason
from memoro_core.ids import TenantId
from memoro_core.jobs.heart import Heart
from memoro_core.jobs.model import (
    Claim,
    Finish,
    Job,
    JobEvent,
    JobKind,
    JobRef,
    JobState,
)
from memoro_core.jobs.ports import EventTail, JobStore
from memoro_core.jobs.retry import Failure, RetryPolicy, classify, timed_out
from memoro_core.jobs.run import Interruption, Run
from memoro_core.jobs.run_ports import JobCancelled, JobHandler, LeaseLost, RunStore
from memoro_core.jobs.service import job_not_found
from memoro_core.jobs.spending import Spending
from memoro_core.jobs.states import cancelled, failed
from memoro_core.tasks import end_task
from memoro_core.tracing import attempt_span

_log = structlog.get_logger(__name__)
_CLAIM_BATCH: Final = 64
_ELSEWHERE: Final = 0.25
"""Seconds between two looks at a job that another process runs."""
_END_PAUSES: Final = (0.2, 1.0)
"""Seconds between tries to write how a run ended, while the database is away."""


@dataclass(frozen=True, slots=True)
class RunPolicy:
    """How jobs are run; times in seconds. `timeouts` are of kinds that have another than `timeout`."""

    lease: float
    timeout: float
    retry: RetryPolicy
    timeouts: Mapping[JobKind, float] = field(default_factory=dict)

    def timeout_of(self, kind: JobKind) -> float:
        """How long an attempt may take."""
        return self.timeouts.get(kind, self.timeout)

    @property
    def limits(self) -> Mapping[JobKind, float]:
        """For how long each kind's lease can be extended: beyond its timeout there is time to write the end."""
        return {kind: self.timeout_of(kind) + self.lease for kind in JobKind}


class JobRunner:
    """Runs jobs in this process, any number at once, while `heart` keeps their leases."""

    def __init__(
        self,
        jobs: JobStore,
        store: RunStore,
        tail: EventTail,
        heart: Heart,
        handlers: Mapping[JobKind, JobHandler],
        spending: Spending,
        clock: Clock,
        policy: RunPolicy,
        *,
        worker_id: str,
    ) -> None:
        self._jobs = jobs
        self._store = store
        self._tail = tail
        self._heart = heart
        self._handlers = handlers
        self._spending = spending
        self._clock = clock
        self._policy = policy
        self._worker_id = worker_id
        self._runs: dict[JobRef, Run] = {}
        # A tenant's claims wait for those that other workers make for it; nobody else's should wait with them.
        self._claims: Coalescer[TenantId, JobRef, Claim | None] = Coalescer(self._claim_all, max_items=_CLAIM_BATCH)
        self._apart: set[asyncio.Task[JobState | None]] = set()
        self._stopping = asyncio.Event()

    @property
    def running(self) -> int:
        """Jobs that run here at the moment."""
        return len(self._runs)

    async def __aenter__(self) -> JobRunner:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop(grace=0.0)

    async def run(self, ref: JobRef, *, claimed: Callable[[], Awaitable[None]] | None = None) -> JobState | None:
        """One attempt of a job, in the caller's task; the state it ended in, or None when nothing ran to its end here.

        `claimed` is called once the claim is decided, either way: from then on the job's row keeps it. Raises
        UNAVAILABLE when the claim can't be decided.
        """
        if self._stopping.is_set():
            return None
        claim = await self._claims.submit(ref.tenant_id, ref)
        if claim is not None and self._stopping.is_set():
            await self._release([claim])
            claim = None
        run = None if claim is None else self._begin(claim)
        try:
            if claimed is not None:
                await claimed()
            return None if run is None else await self._see_through(run)
        finally:
            if run is not None:
                self._end(run)

    async def execute(self, ref: JobRef) -> Job:
        """Runs a job's attempts until it has ended, waiting between them; the job as it then is.

        Raises JOB_NOT_FOUND, UNAVAILABLE.
        """
        while True:
            if self._stopping.is_set():
                raise MemoroError(Code.UNAVAILABLE, Reason.SERVER_DRAINING, "this process is stopping; the job is kept")
            state = await self._run_apart(ref)
            job = await self._jobs.get(ref.tenant_id, ref.job_id)
            if job is None:
                raise job_not_found(ref.job_id)
            if job.state.terminal:
                return job
            wait = (job.run_at - self._clock.now()).total_seconds() if job.state is JobState.QUEUED else 0.0
            await asyncio.sleep(max(wait, 0.0 if state else _ELSEWHERE))

    async def _run_apart(self, ref: JobRef) -> JobState | None:
        """An attempt that goes on when the caller is cancelled."""
        attempt = asyncio.create_task(self.run(ref))
        self._apart.add(attempt)
        attempt.add_done_callback(self._apart.discard)
        await asyncio.wait([attempt])
        return None if attempt.cancelled() else attempt.result()

    async def stop(self, *, grace: float) -> None:
        """Claims nothing more; runs under way have `grace` seconds to end, then their jobs are handed back."""
        self._stopping.set()
        self._heart.stop_taking()
        await self._claims.close()
        if self._runs and grace:
            await asyncio.wait([run.task for run in self._runs.values()], timeout=grace)
        runs = list(self._runs.values())
        await asyncio.gather(*(end_task(run.task) for run in runs))
        await self._release([run.claim for run in runs])

    async def _release(self, claims: Sequence[Claim]) -> None:
        if not claims:
            return
        try:
            released = await self._store.release(claims, now=self._clock.now())
        except MemoroError as error:
            # Then their leases run out, and the jobs are run again.
            _log.warning("jobs_not_released", jobs=len(claims), reason=error.message)
            return
        for ref, event in released:
            await self._tail.publish(ref.tenant_id, ref.job_id, [event])
            _log.info("job_released", job_id=str(ref.job_id))

    async def _claim_all(self, _: TenantId, refs: Sequence[JobRef]) -> Sequence[Claim | None]:
        now = self._clock.now()
        claimed = await self._store.claim(
            refs,
            worker_id=self._worker_id,
            now=now,
            lease_until=now + timedelta(seconds=self._policy.lease),
            limits=self._policy.limits,
        )
        for claim in claimed:
            begun = JobEvent(claim.job.sequence, JobState.RUNNING, claim.job.attempt, now)
            await self._tail.publish(claim.ref.tenant_id, claim.ref.job_id, [begun])
        claims = {claim.ref: claim for claim in claimed}
        # Of two hints for one job that came together, the first gets the claim.
        return [claims.pop(ref, None) for ref in refs]

    def _begin(self, claim: Claim) -> Run:
        run = self._runs[claim.ref] = Run(claim, self._store, self._tail, self._spending, self._clock)
        self._heart.add(run)
        return run

    def _end(self, run: Run) -> None:
        self._heart.remove(run)
        if self._runs.get(run.claim.ref) is run:
            del self._runs[run.claim.ref]

    async def _see_through(self, run: Run) -> JobState | None:
        ref, job = run.claim.ref, run.claim.job
        with (
            structlog.contextvars.bound_contextvars(
                job_id=str(ref.job_id), tenant_id=str(ref.tenant_id), attempt=job.attempt
            ),
            attempt_span(job.trace_parent, kind=job.kind, job_id=ref.job_id, attempt=job.attempt) as ended,
        ):
            try:
                event = await self._attempt(run)
            except (LeaseLost, asyncio.CancelledError) as end:
                if isinstance(end, asyncio.CancelledError):
                    if not (run.lost or self._stopping.is_set()):
                        raise
                    _uncancel()
                if not self._stopping.is_set():
                    _log.warning("lease_lost")
                return None
            except MemoroError as error:
                # The end could not be written: the lease runs out, and the job is run again.
                _log.warning("end_not_written", reason=error.message)
                return None
            await self._tail.publish(ref.tenant_id, ref.job_id, [event])
            reason = event.error.reason if event.error else None
            ended(event.state, reason)
            _log.info("attempt_ended", state=str(event.state), reason=reason)
            return event.state

    async def _attempt(self, run: Run) -> JobEvent:
        claim = run.claim
        timeout = self._policy.timeout_of(claim.job.kind)
        # Cheaper than a block of asyncio.timeout, and a commit under way is not cut off.
        alarm = asyncio.get_running_loop().call_later(timeout, run.time_out)
        try:
            run.begin()
            return await self._handlers[claim.job.kind].run(run)
        except LeaseLost:
            raise
        except JobCancelled:
            finish = cancelled(stages=run.stages, usage=run.usage)
        except asyncio.CancelledError:
            if run.interruption is None:
                raise
            _uncancel()
            if run.interruption is Interruption.TIMED_OUT:
                finish = self._failed(run, timed_out(timeout))
            else:
                finish = cancelled(stages=run.stages, usage=run.usage)
        except Exception as failure:  # noqa: BLE001 - whatever it is, it ends the attempt
            finish = self._failed(run, classify(failure), None if isinstance(failure, MemoroError) else failure)
        finally:
            alarm.cancel()
            run.end()
        return await self._write_end(claim, run.with_calls(finish))

    def _failed(self, run: Run, verdict: Failure, unexpected: Exception | None = None) -> Finish:
        job, error = run.claim.job, verdict.error
        _log.warning(
            "attempt_failed",
            reason=error.reason,
            message=error.message,
            retryable=error.retryable,
            exc_info=unexpected,
        )
        retry_at = self._policy.retry.retry_at(self._clock.now(), job.attempt, retry_after=verdict.retry_after)
        return failed(job, error, stages=run.stages, usage=run.usage, retry_at=retry_at)

    async def _write_end(self, claim: Claim, finish: Finish) -> JobEvent:
        for pause in _END_PAUSES:
            try:
                return await self._store.finish(claim, finish, now=self._clock.now())
            except MemoroError as error:
                _log.info("end_not_yet_written", reason=error.message)
                await asyncio.sleep(pause)
        return await self._store.finish(claim, finish, now=self._clock.now())


def _uncancel() -> None:
    """The task's cancellation has done what it was for."""
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()
