"""The calls of MemoryService and JobsService as their caller sees them."""

from __future__ import annotations

import asyncio

import grpc

from memoro.v1 import jobs_pb2, memory_pb2
from memoro.v1 import jobs_service_pb2 as jobs
from memoro.v1 import memory_service_pb2 as pb
from tests.support.deployment import Caller, Deployment

CREATE = "MemoryService/CreateMemory"


async def _create(caller: Caller, text: str = "I live in Oslo.", **fields: object) -> pb.CreateMemoryResponse:
    answer = await caller.ask(CREATE, pb.CreateMemoryRequest(user_id="ann", text=text, **fields))  # type: ignore[arg-type]
    assert isinstance(answer, pb.CreateMemoryResponse)
    return answer


async def test_what_was_created_is_read_back(deployment: Deployment) -> None:
    caller = await deployment.caller()
    made = await _create(caller, metadata={"tags": ["home", 3]}, priority=memory_pb2.PRIORITY_HIGH)
    assert made.memory.status == memory_pb2.MEMORY_STATUS_PENDING
    assert made.memory.kind == memory_pb2.MEMORY_KIND_TEXT
    assert made.job.state == jobs_pb2.JOB_STATE_QUEUED
    assert made.job.priority == memory_pb2.PRIORITY_HIGH
    assert list(made.job.memory_ids) == [made.memory.id]
    read = await caller.ask("MemoryService/GetMemory", pb.GetMemoryRequest(memory_id=made.memory.id))
    assert read.memory == made.memory
    job = await caller.ask("JobsService/GetJob", jobs.GetJobRequest(job_id=made.job.id))
    assert job.job == made.job


async def test_a_synchronous_call_answers_after_the_pipeline(deployment: Deployment) -> None:
    caller = await deployment.caller()
    text = "John Doe bought an iPhone 15 from Apple Store. He works at TechCorp."
    made = await _create(caller, text, processing_mode=memory_pb2.PROCESSING_MODE_SYNC)
    assert made.memory.status == memory_pb2.MEMORY_STATUS_READY
    assert made.job.state == jobs_pb2.JOB_STATE_SUCCEEDED
    walk = pb.TraverseGraphRequest(user_id="ann", entity_names=["john doe"], include_memories=True)
    graph = await caller.ask("MemoryService/TraverseGraph", walk)
    assert {"BOUGHT", "WORKS_AT"} <= {edge.predicate for edge in graph.edges}
    assert [memory.id for memory in graph.memories] == [made.memory.id]
    john = next(node.entity for node in graph.nodes if node.depth == 0)
    detail = await caller.ask("MemoryService/GetEntity", pb.GetEntityRequest(entity_id=john.id))
    assert list(detail.memory_ids) == [made.memory.id]
    search = pb.SearchMemoriesRequest(user_id="ann", query="Who works at TechCorp?", explain=True)
    (hit,) = (await caller.ask("MemoryService/SearchMemories", search)).hits
    assert hit.memory.id == made.memory.id
    assert sum(arm.contribution for arm in hit.explanation.arms) == hit.score


async def test_an_update_needs_the_etag_that_stands(deployment: Deployment) -> None:
    caller = await deployment.caller()
    made = (await _create(caller)).memory
    change = pb.UpdateMemoryRequest(memory_id=made.id, metadata={"a": 1}, etag=made.etag)  # type: ignore[arg-type]
    changed = await caller.ask("MemoryService/UpdateMemory", change)
    assert changed.memory.etag != made.etag
    assert not changed.HasField("job")
    stale = await caller.call("MemoryService/UpdateMemory", change)
    assert (stale.code, stale.info.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
    anew = await caller.ask("MemoryService/UpdateMemory", pb.UpdateMemoryRequest(memory_id=made.id, text="In Rome."))
    assert anew.HasField("job")
    assert anew.memory.metadata == changed.memory.metadata
    stale = await caller.call("MemoryService/DeleteMemory", pb.DeleteMemoryRequest(memory_id=made.id, etag=made.etag))
    assert stale.info.reason == "ETAG_MISMATCH"


async def test_a_deletion_can_be_repeated_by_its_id(deployment: Deployment) -> None:
    caller = await deployment.caller()
    made = (await _create(caller)).memory
    delete = pb.DeleteMemoryRequest(memory_id=made.id, request_id="delete")
    await caller.ask("MemoryService/DeleteMemory", delete)
    await caller.ask("MemoryService/DeleteMemory", delete)
    for request in (pb.DeleteMemoryRequest(memory_id=made.id), pb.GetMemoryRequest(memory_id=made.id)):
        name = "DeleteMemory" if isinstance(request, pb.DeleteMemoryRequest) else "GetMemory"
        outcome = await caller.call(f"MemoryService/{name}", request)
        assert (outcome.code, outcome.info.reason) == (grpc.StatusCode.NOT_FOUND, "MEMORY_NOT_FOUND")


async def test_lists_go_on_where_a_page_ended(deployment: Deployment) -> None:
    caller = await deployment.caller()
    made = [(await _create(caller, f"Number {number}.")).memory.id for number in range(5)]
    seen: list[str] = []
    request = pb.ListMemoriesRequest(user_id="ann", page_size=2)
    while True:
        page = await caller.ask("MemoryService/ListMemories", request)
        seen += [memory.id for memory in page.memories]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert seen == made[::-1]
    request.user_id = "bob"
    outcome = await caller.call("MemoryService/ListMemories", request)
    assert outcome.info.reason == "PAGE_TOKEN_INVALID"


async def test_messages_go_on_where_the_conversation_stopped(deployment: Deployment) -> None:
    caller = await deployment.caller()
    request = pb.AddConversationRequest(
        user_id="ann",
        conversation_id="talk",
        messages=[pb.Message(text="Hi!", role=memory_pb2.ROLE_USER, speaker="Ann"), pb.Message(text="Hello.")],
    )
    first = await caller.ask("MemoryService/AddConversation", request)
    second = await caller.ask("MemoryService/AddConversation", request)
    assert [memory.position for memory in (*first.memories, *second.memories)] == [0, 1, 2, 3]
    assert list(second.job.memory_ids) == [memory.id for memory in second.memories]


async def test_a_cancelled_job_is_watched_to_its_end(deployment: Deployment) -> None:
    caller = await deployment.caller()
    made = await _create(caller)
    watching = caller.stream("JobsService/WatchJob", jobs.WatchJobRequest(job_id=made.job.id))
    messages = aiter(watching)
    first = await anext(messages)
    assert first.snapshot == made.job
    cancelled = await caller.ask("JobsService/CancelJob", jobs.CancelJobRequest(job_id=made.job.id))
    assert cancelled.job.state == jobs_pb2.JOB_STATE_CANCELLED
    async with asyncio.timeout(10):
        rest = [message async for message in messages if not message.HasField("heartbeat")]
    assert [message.update.state for message in rest] == [jobs_pb2.JOB_STATE_CANCELLED]
    assert [message.sequence for message in rest] == [made.job.sequence + 1]
    assert await watching.code() is grpc.StatusCode.OK

    late = caller.stream(
        "JobsService/WatchJob", jobs.WatchJobRequest(job_id=made.job.id, resume_token=first.resume_token)
    )
    assert [message.sequence async for message in late] == [made.job.sequence + 1]
    outcome = await caller.call("JobsService/WatchJob", jobs.WatchJobRequest(job_id=made.job.id, resume_token="x"))
    assert outcome.info.reason == "RESUME_TOKEN_INVALID"


async def test_a_quiet_watch_hears_a_heartbeat(deployment: Deployment) -> None:
    caller = await deployment.caller()
    made = await _create(caller)
    watching = caller.stream("JobsService/WatchJob", jobs.WatchJobRequest(job_id=made.job.id))
    await watching.read()
    async with asyncio.timeout(deployment.container.settings.watch_heartbeat + 5):
        second = await watching.read()
    watching.cancel()
    assert second.heartbeat.interval.ToTimedelta().total_seconds() == deployment.container.settings.watch_heartbeat
    assert second.sequence == made.job.sequence
