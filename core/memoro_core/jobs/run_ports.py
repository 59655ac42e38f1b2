"""What running jobs needs from the outside, and what it offers to those who do the work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from memoro_core.billing.model import DeferralReason
from memoro_core.jobs.model import Claim, Finish, JobEvent, JobKind, JobRef, JobResult, StageProgress
from memoro_core.jobs.spending import ProviderCall
from memoro_core.llm.model import Usage


class LeaseLost(Exception):
    """Another worker holds the job, or it has ended: throw this run's work away."""


class JobCancelled(Exception):
    """A caller asked to cancel the job, and the run has come to a safe point."""


@dataclass(frozen=True, slots=True)
class Expired:
    """A run without a lease. `timed_out`: its worker may live, but the run took longer than it may."""

    claim: Claim
    timed_out: bool


class RunStore(Protocol):
    """Runs in the database. Their writes are fenced: they touch nothing unless the claim's lease is the job's."""

    async def claim(
        self,
        refs: Sequence[JobRef],
        *,
        worker_id: str,
        now: datetime,
        lease_until: datetime,
        limits: Mapping[JobKind, float],
    ) -> Sequence[Claim]:
        """Takes those that are QUEUED and due, and that caps and pauses allow: RUNNING, lease and attempt one higher.

        Each claim is an event with the number `claim.job.sequence`. `limits`: for how many seconds a lease can be
        extended.
        """
        ...

    async def report(
        self, claim: Claim, stages: Sequence[StageProgress], progress: StageProgress, *, now: datetime
    ) -> tuple[JobEvent, bool]:
        """Records that a stage moved; its event, and whether the job is asked to cancel. Raises LeaseLost."""
        ...

    async def finish(self, claim: Claim, finish: Finish, *, now: datetime) -> JobEvent:
        """Ends the run: terminal, QUEUED for another attempt, or DEFERRED. Raises LeaseLost.

        A job that ends without success fails its PENDING memories; one that is asked to cancel does not wait again but
        is CANCELLED. `finish.usage` is that of all attempts.
        """
        ...

    async def release(self, claims: Sequence[Claim], *, now: datetime) -> Sequence[tuple[JobRef, JobEvent]]:
        """Gives up runs that have not ended: their jobs are QUEUED again at once, and the attempt does not count."""
        ...

    async def expired(self, *, now: datetime, limit: int) -> Sequence[Expired]:
        """Runs whose lease ran out before `now`."""
        ...

    async def reap(self, ends: Sequence[tuple[Claim, Finish]], *, now: datetime) -> Sequence[tuple[JobRef, JobEvent]]:
        """Ends runs as said, of those whose lease is still out at `now`."""
        ...


class RunContext(Protocol):
    """What a handler has of the run it is in."""

    @property
    def claim(self) -> Claim:
        """The job, and the lease to name in the last write."""
        ...

    async def report(self, progress: StageProgress) -> None:
        """Tells watchers how far a stage is. A safe point: raises JobCancelled or LeaseLost."""
        ...

    def spending(self, bound: Usage, request: bytes) -> AbstractAsyncContextManager[ProviderCall]:
        """A block in which a provider is asked once: `bound` is the most that it may use, `request` what is asked.

        What it costs is seen to before and written down after; failed calls count too. Raises PRICE_UNKNOWN.
        """
        ...

    def success(self, result: JobResult, *, partial: bool) -> Finish:
        """The last write of a run that went well, with the stages reported so far and all usage.

        From here on the run is not interrupted: cancelling comes too late.
        """
        ...

    def put_off(self, until: datetime, reason: DeferralReason) -> Finish:
        """The last write of a run that found out that its job has to wait until then; the attempt does not count.

        From here on the run is not interrupted.
        """
        ...


class JobHandler(Protocol):
    """Does the work of one kind of job."""

    async def run(self, context: RunContext) -> JobEvent:
        """Does it and commits its results together with the job's end, fenced by the claim; the terminal event.

        It may be cancelled at any await before `context.success`. Raises JobCancelled, LeaseLost, MemoroError (retried
        when it may succeed later), or anything else (retried).
        """
        ...
