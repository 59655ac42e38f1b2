"""Jobs: reading, following, cancelling and retrying the work that calls have set going."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from datetime import datetime

from memoro import convert, methods, paging, requests, wire
from memoro.enums import JobKind, JobState
from memoro.errors import InternalError, JobCancelled, JobFailed
from memoro.jobs_watch import AsyncJobsWatch
from memoro.transport import Transport
from memoro.types import Job, JobResult, JobUpdate
from memoro.v1 import jobs_service_pb2
from memoro.watching import apply_update, watch_job


class AsyncJobHandle:
    """One job, to be followed to its end."""

    def __init__(self, transport: Transport, job_id: str, latest: Job | None = None) -> None:
        self._transport = transport
        self._id = job_id
        self._latest = latest

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._id!r}, {self._latest.state if self._latest else 'not read yet'})"

    @property
    def id(self) -> str:
        """The job's id."""
        return self._id

    @property
    def latest(self) -> Job | None:
        """The job as it was last seen; None before anything was read."""
        return self._latest

    async def watch(self, *, timeout: float | None = None) -> AsyncGenerator[JobUpdate, None]:
        """The job's updates until it ends, across disconnects, without gap or duplicate; keeps `latest` up to date.

        The first update is a snapshot. Raises DeadlineExceeded when the job has not ended after `timeout` seconds.
        """
        async with aclosing(watch_job(self._transport, self._id, timeout=timeout)) as updates:
            async for update in updates:
                self._latest = update.snapshot if self._latest is None else apply_update(self._latest, update)
                yield update

    async def result(self, *, timeout: float | None = None) -> JobResult:
        """What the job brought about, once it has succeeded.

        Raises JobFailed or JobCancelled when it ends otherwise, and DeadlineExceeded when it has not ended after
        `timeout` seconds; it goes on then, and can be asked again.
        """
        if self._latest is None or not self._latest.state.ended:
            async with aclosing(self.watch(timeout=timeout)) as updates:
                async for _ in updates:
                    pass
        job = self._latest
        if job is None or not job.state.ended:
            job = await self.refresh()
        match job.state:
            case JobState.SUCCEEDED:
                return job.result or JobResult()
            case JobState.FAILED:
                raise JobFailed(job)
            case JobState.CANCELLED:
                raise JobCancelled(job)
            case _:
                raise InternalError(f"the watch of job {job.id} has ended before the job, which is {job.state}")

    async def cancel(self, *, request_id: str | None = None, timeout: float | None = None) -> Job:
        """Cancels the job: a waiting one at once; a running one within a second, so await `result`.

        Raises FailedPrecondition when it has ended already.
        """
        self._latest = await _cancel(self._transport, self._id, request_id, timeout)
        return self._latest

    async def retry(self, *, request_id: str | None = None, timeout: float | None = None) -> AsyncJobHandle:
        """Does the work of this failed or cancelled job again: a handle on the new job. See `jobs.retry`."""
        return await _retry(self._transport, self._id, request_id, timeout)

    async def refresh(self, *, timeout: float | None = None) -> Job:
        """The job as it stands now."""
        self._latest = await _get(self._transport, self._id, timeout)
        return self._latest


class AsyncJobs:
    """The jobs of the tenant."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def handle(self, job_id: str) -> AsyncJobHandle:
        """A handle on a job by its id; makes no call."""
        return AsyncJobHandle(self._transport, job_id)

    async def get(self, job_id: str, *, timeout: float | None = None) -> Job:
        """One job as it stands. Raises NotFound."""
        return await _get(self._transport, job_id, timeout)

    def list(
        self,
        *,
        states: Iterable[JobState] = (),
        kinds: Iterable[JobKind] = (),
        user_id: str = "",
        created_from: datetime | None = None,
        created_until: datetime | None = None,
        limit: int | None = None,
        timeout: float | None = None,
    ) -> AsyncGenerator[Job, None]:
        """Jobs, newest first; any of several states or kinds will do."""
        request = jobs_service_pb2.ListJobsRequest(
            states=[wire.enum_number(JobState, state) for state in states],
            kinds=[wire.enum_number(JobKind, kind) for kind in kinds],
            user_id=user_id,
            created_from=wire.timestamp("created_from", created_from),
            created_until=wire.timestamp("created_until", created_until),
        )
        return paging.items(
            self._transport,
            methods.LIST_JOBS,
            request,
            lambda response: response.jobs,
            convert.job,
            limit=limit,
            timeout=timeout,
        )

    def watch(
        self, job_id: str, *, resume_token: str = "", timeout: float | None = None
    ) -> AsyncGenerator[JobUpdate, None]:
        """The job's updates until it ends, across disconnects, without gap or duplicate.

        Begins with a snapshot, or after the update that bore `resume_token`. Raises DeadlineExceeded when the job has
        not ended after `timeout` seconds.
        """
        return watch_job(self._transport, job_id, resume_token=resume_token, timeout=timeout)

    def watch_all(
        self,
        *,
        states: Iterable[JobState] = (),
        kinds: Iterable[JobKind] = (),
        user_id: str = "",
        resume_token: str = "",
    ) -> AsyncJobsWatch:
        """The updates of all jobs that fit, without end, across disconnects, without gap; those of a job in order.

        Any of several states or kinds will do; a state is that after the update. Begins with a snapshot of each such
        job that has not ended, the 1,000 latest at most, or after what the watch that bore `resume_token` has told. If
        the server no longer has the events after that, it begins anew, and the next update is marked `after_gap`.
        """
        return AsyncJobsWatch(self._transport, states=states, kinds=kinds, user_id=user_id, resume_token=resume_token)

    async def cancel(self, job_id: str, *, request_id: str | None = None, timeout: float | None = None) -> Job:
        """Cancels a job: a waiting one at once; a running one within a second, unless it ends before.

        Raises NotFound, or FailedPrecondition when it has ended already.
        """
        return await _cancel(self._transport, job_id, request_id, timeout)

    async def retry(
        self, job_id: str, *, request_id: str | None = None, timeout: float | None = None
    ) -> AsyncJobHandle:
        """Does the work of a failed or cancelled job again, as a new job, with a new budget of attempts.

        Raises NotFound, or FailedPrecondition when the job has not ended, has succeeded or was retried before, or when
        nothing of its work is left to do.
        """
        return await _retry(self._transport, job_id, request_id, timeout)


async def _get(transport: Transport, job_id: str, timeout: float | None) -> Job:
    request = jobs_service_pb2.GetJobRequest(job_id=job_id)
    return convert.job((await transport.unary(methods.GET_JOB, request, timeout)).job)


async def _cancel(transport: Transport, job_id: str, request_id: str | None, timeout: float | None) -> Job:
    request = jobs_service_pb2.CancelJobRequest(job_id=job_id, request_id=requests.request_id_or_new(request_id))
    return convert.job((await transport.unary(methods.CANCEL_JOB, request, timeout)).job)


async def _retry(transport: Transport, job_id: str, request_id: str | None, timeout: float | None) -> AsyncJobHandle:
    request = jobs_service_pb2.RetryJobRequest(job_id=job_id, request_id=requests.request_id_or_new(request_id))
    job = convert.job((await transport.unary(methods.RETRY_JOB, request, timeout)).job)
    return AsyncJobHandle(transport, job.id, job)
