"""AdminService: workers and queues."""

from __future__ import annotations

from memoro.v1 import admin_service_pb2 as pb
from memoro_core.jobs.operations import DEFAULT_LIMIT, OperationsService
from memoro_server.call import Call
from memoro_server.convert.idempotency import idempotency_of
from memoro_server.convert.queues import (
    from_queues,
    from_worker,
    to_clear_filter,
    to_queue,
    to_requeue_filter,
    to_tenant_or_none,
)


class QueuesServicer:
    """The calls of AdminService that are about workers and queues."""

    def __init__(self, operations: OperationsService) -> None:
        self._operations = operations

    async def GetWorkers(self, request: pb.GetWorkersRequest, call: Call) -> pb.GetWorkersResponse:
        workers = await self._operations.workers()
        return pb.GetWorkersResponse(
            workers=[from_worker(worker) for worker in workers], queues=from_queues(await self._operations.queues())
        )

    async def PauseQueue(self, request: pb.PauseQueueRequest, call: Call) -> pb.PauseQueueResponse:
        queues = await self._operations.pause(call.principal, to_queue(request.queue))
        return pb.PauseQueueResponse(queues=from_queues(queues))

    async def ResumeQueue(self, request: pb.ResumeQueueRequest, call: Call) -> pb.ResumeQueueResponse:
        queues = await self._operations.resume(call.principal, to_queue(request.queue))
        return pb.ResumeQueueResponse(queues=from_queues(queues))

    async def RequeueJobs(self, request: pb.RequeueJobsRequest, call: Call) -> pb.RequeueJobsResponse:
        done = await self._operations.requeue(
            call.principal,
            to_requeue_filter(request),
            limit=request.limit or DEFAULT_LIMIT,
            within=call.working_time,
            idempotency=idempotency_of(call.method.path, request),
        )
        return pb.RequeueJobsResponse(requeued=done.requeued, skipped=done.skipped, more=done.more)

    async def ClearQueue(self, request: pb.ClearQueueRequest, call: Call) -> pb.ClearQueueResponse:
        done = await self._operations.clear(
            call.principal,
            to_clear_filter(request),
            all_tenants=request.all_tenants,
            limit=request.limit or DEFAULT_LIMIT,
            within=call.working_time,
            idempotency=idempotency_of(call.method.path, request),
        )
        return pb.ClearQueueResponse(cancelled=done.cancelled, more=done.more)

    async def TriggerProcessing(self, request: pb.TriggerProcessingRequest, call: Call) -> pb.TriggerProcessingResponse:
        done = await self._operations.trigger(
            call.principal,
            to_tenant_or_none(request.tenant_id),
            within=call.working_time,
            idempotency=idempotency_of(call.method.path, request),
        )
        return pb.TriggerProcessingResponse(released=done.released, due=done.due)
