"""JobsService."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

from memoro.v1 import jobs_pb2
from memoro.v1 import jobs_service_pb2 as pb
from memoro_core.clock import Clock
from memoro_core.errors import MemoroError, Reason
from memoro_core.ids import JobId
from memoro_core.jobs.model import Job
from memoro_core.jobs.service import JobsService
from memoro_core.jobs.tenant_watch import TenantWatcher
from memoro_core.jobs.watch import JobWatcher
from memoro_core.limits.ports import OpenStreams
from memoro_server.call import Call
from memoro_server.convert.idempotency import idempotency_of
from memoro_server.convert.jobs import from_job, from_job_event, heartbeat, to_feed_filter, to_job_filter
from memoro_server.convert.pages import PageSpot
from memoro_server.convert.scalars import from_time, to_id
from memoro_server.metrics import ServerMetrics


class JobsServicer:
    """The calls of JobsService. `heartbeat_interval` is told to watchers, in seconds."""

    def __init__(
        self,
        jobs: JobsService,
        watcher: JobWatcher,
        tenant_watcher: TenantWatcher,
        streams: OpenStreams,
        clock: Clock,
        metrics: ServerMetrics,
        *,
        heartbeat_interval: float,
    ) -> None:
        self._jobs = jobs
        self._watcher = watcher
        self._tenant_watcher = tenant_watcher
        self._streams = streams
        self._clock = clock
        self._metrics = metrics
        self._heartbeat_interval = heartbeat_interval

    async def GetJob(self, request: pb.GetJobRequest, call: Call) -> pb.GetJobResponse:
        job = await self._jobs.get(call.tenant_id, JobId(to_id(request.job_id, "job_id")))
        return pb.GetJobResponse(job=from_job(job))

    async def ListJobs(self, request: pb.ListJobsRequest, call: Call) -> pb.ListJobsResponse:
        spot = PageSpot(request, call)
        page = await self._jobs.list_jobs(
            call.tenant_id, to_job_filter(request), size=spot.size, position=spot.position
        )
        return pb.ListJobsResponse(
            jobs=[from_job(job) for job in page.items], next_page_token=spot.token(page.next_position)
        )

    async def WatchJob(self, request: pb.WatchJobRequest, call: Call) -> AsyncGenerator[pb.WatchJobResponse]:
        job_id = JobId(to_id(request.job_id, "job_id"))
        async with self._one_more_stream(call):
            watching = self._watcher.watch(call.tenant_id, job_id, request.resume_token or None)
            async with aclosing(watching) as messages:
                async for message in messages:
                    response = pb.WatchJobResponse(resume_token=message.token, sequence=message.sequence)
                    if message.event is None:
                        response.heartbeat.CopyFrom(self._heartbeat())
                    elif isinstance(message.event, Job):
                        response.snapshot.CopyFrom(from_job(message.event))
                    else:
                        response.update.CopyFrom(from_job_event(job_id, message.event))
                    yield response

    async def WatchJobs(self, request: pb.WatchJobsRequest, call: Call) -> AsyncGenerator[pb.WatchJobsResponse]:
        async with self._one_more_stream(call):
            watching = self._tenant_watcher.watch(
                call.tenant_id,
                to_feed_filter(request),
                request.resume_token or None,
                kept=call.principal.jobs_kept,
            )
            async with aclosing(watching) as messages:
                async for message in messages:
                    response = pb.WatchJobsResponse(resume_token=message.token)
                    if message.event is None:
                        response.heartbeat.CopyFrom(self._heartbeat())
                    elif isinstance(message.event, Job):
                        response.snapshot.CopyFrom(from_job(message.event))
                        response.sequence = message.event.sequence
                    else:
                        response.update.CopyFrom(from_job_event(message.event.job_id, message.event.change))
                        response.sequence = message.event.change.seq
                    yield response

    async def CancelJob(self, request: pb.CancelJobRequest, call: Call) -> pb.CancelJobResponse:
        job = await self._jobs.cancel(call.tenant_id, JobId(to_id(request.job_id, "job_id")))
        return pb.CancelJobResponse(job=from_job(job))

    async def RetryJob(self, request: pb.RetryJobRequest, call: Call) -> pb.RetryJobResponse:
        job = await self._jobs.retry(
            call.tenant_id,
            JobId(to_id(request.job_id, "job_id")),
            idempotency=idempotency_of(call.method.path, request),
        )
        return pb.RetryJobResponse(job=from_job(job))

    @asynccontextmanager
    async def _one_more_stream(self, call: Call) -> AsyncIterator[None]:
        """A stream of the caller's tenant. Raises RATE_LIMITED for one too many, which in shadow mode only counts."""
        tenant_id, limits = call.tenant_id, call.principal.limits
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(self._streams.one_more(tenant_id, maximum=limits.limits.open_streams))
            except MemoroError as error:
                if error.reason is not Reason.RATE_LIMITED:
                    raise
                self._metrics.refused(call.principal.tier, "open_streams", shadow=limits.shadow)
                if not limits.shadow:
                    raise
                await stack.enter_async_context(self._streams.one_more(tenant_id, maximum=None))
            yield

    def _heartbeat(self) -> jobs_pb2.Heartbeat:
        return heartbeat(from_time(self._clock.now()), self._heartbeat_interval)
