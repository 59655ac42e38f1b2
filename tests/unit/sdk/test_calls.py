"""What goes over the wire, and what comes back of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import grpc
import pytest
from google.protobuf import duration_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from memoro import (
    AsyncClient,
    ClearResult,
    Client,
    Conflict,
    Direction,
    FailedPrecondition,
    Health,
    InvalidArgument,
    JobKind,
    JobState,
    Limits,
    MemoryFilter,
    MemoryHandle,
    MemoryKind,
    MemoryStatus,
    Message,
    NewMemory,
    NotFound,
    Priority,
    ProcessingMode,
    RateLimit,
    RequeueResult,
    Role,
    RunningJob,
    Scope,
    TenantState,
    TriggerResult,
)
from memoro.v1 import (
    admin_pb2,
    admin_service_pb2,
    graph_pb2,
    jobs_pb2,
    jobs_service_pb2,
    memory_pb2,
    memory_service_pb2,
)
from tests.support.scripted_server import Failure, ScriptedServer

NOON = datetime(2025, 3, 4, 12, tzinfo=UTC)
STAMP = Timestamp(seconds=int(NOON.timestamp()))
MEMORY = memory_pb2.Memory(
    id="m1",
    user_id="ann",
    kind=memory_pb2.MEMORY_KIND_TEXT,
    text="hello",
    status=memory_pb2.MEMORY_STATUS_PENDING,
    occurred_at=STAMP,
    etag="1",
    job_id="j1",
)
JOB = jobs_pb2.Job(id="j1", state=jobs_pb2.JOB_STATE_QUEUED, user_id="ann", memory_ids=["m1"], sequence=1)
CREATED = memory_service_pb2.CreateMemoryResponse(memory=MEMORY, job=JOB)


async def test_create_sends_everything_and_returns_a_handle(server: ScriptedServer, client: AsyncClient) -> None:
    server.script("CreateMemory", CREATED)
    added = await client.memories.create(
        user_id="ann",
        text="hello",
        metadata={"where": "office", "n": 3, "tags": ["a", None, True], "deep": {"x": 1.5}},
        occurred_at=NOON.astimezone(timezone(timedelta(hours=2))),
        priority=Priority.HIGH,
        processing_mode=ProcessingMode.SYNC,
        request_id="r1",
    )
    assert added.memory.text == "hello"
    assert added.memory.kind is MemoryKind.TEXT
    assert added.memory.status is MemoryStatus.PENDING
    assert added.memory.occurred_at == NOON
    assert added.memory.role is None
    assert added.memory.create_time is None
    assert added.job.id == "j1"
    assert added.job.latest is not None
    assert added.job.latest.state is JobState.QUEUED

    [call] = server.calls
    assert call.request.request_id == "r1"
    assert call.request.priority == memory_pb2.PRIORITY_HIGH
    assert call.request.processing_mode == memory_pb2.PROCESSING_MODE_SYNC
    assert call.request.occurred_at == STAMP
    assert call.request.metadata["n"] == 3
    assert call.metadata["authorization"] == "Bearer mk_test_1f0e"
    assert "memoro-python/" in str(call.metadata["user-agent"])


async def test_metadata_comes_back_as_it_was_sent(server: ScriptedServer, client: AsyncClient) -> None:
    server.script(
        "CreateMemory",
        lambda request, _: memory_service_pb2.CreateMemoryResponse(
            memory=memory_pb2.Memory(id="m1", metadata=request.metadata), job=JOB
        ),
    )
    metadata = {"n": 3, "x": 1.5, "tags": ["a", None, True], "deep": {"empty": {}, "list": []}}
    added = await client.memories.create(user_id="ann", text="hello", metadata=metadata)
    assert added.memory.metadata == metadata
    assert isinstance(added.memory.metadata["n"], int)


@pytest.mark.parametrize("metadata", [{"when": NOON}, {"raw": b"x"}, {1: "x"}])
async def test_what_is_not_json_is_refused_before_the_call(
    server: ScriptedServer, client: AsyncClient, metadata: dict[str, object]
) -> None:
    with pytest.raises(ValueError, match=r"metadata: only JSON values can be stored"):
        await client.memories.create(user_id="ann", text="hello", metadata=metadata)
    assert not server.calls


async def test_a_naive_time_is_refused_before_the_call(server: ScriptedServer, client: AsyncClient) -> None:
    with pytest.raises(ValueError, match=r"occurred_at: an aware datetime is needed"):
        await client.memories.create(user_id="ann", text="hello", occurred_at=datetime(2025, 3, 4))
    assert not server.calls


async def test_every_call_has_the_deadline_of_its_method(server: ScriptedServer, client: AsyncClient) -> None:
    server.script("CreateMemory", CREATED)
    await client.memories.create(user_id="ann", text="hello")
    await client.memories.create(user_id="ann", text="hello", processing_mode=ProcessingMode.SYNC)
    await client.memories.create(user_id="ann", text="hello", timeout=3)
    seconds = [call.seconds for call in server.calls]
    for left, given in zip(seconds, (10, 120, 3), strict=True):
        assert left is not None
        assert abs(left - given) < 1.5


async def test_a_batch_tells_of_each_item(server: ScriptedServer, client: AsyncClient) -> None:
    error = memory_service_pb2.ItemError(code=3, reason="INVALID_FIELD", message="text: is empty")
    error.field_violations.add(field="text", description="is empty")
    results = memory_service_pb2.BatchCreateMemoriesResponse()
    results.results.add(created=CREATED)
    results.results.add(error=error)
    server.script("BatchCreateMemories", results)
    good, bad = await client.memories.create_batch([NewMemory("ann", "hello"), NewMemory("ann", "")])
    assert isinstance(good, MemoryHandle)
    assert good.job.id == "j1"
    assert isinstance(bad, InvalidArgument)
    assert bad.reason == "INVALID_FIELD"
    assert bad.violations[0].field == "text"
    sent = server.requests("BatchCreateMemories")[0].requests
    assert len({item.request_id for item in sent} - {""}) == 2


async def test_a_conversation_goes_out_whole(server: ScriptedServer, client: AsyncClient) -> None:
    server.script("AddConversation", memory_service_pb2.AddConversationResponse(memories=[MEMORY], job=JOB))
    added = await client.memories.add_conversation(
        user_id="ann",
        conversation_id="c1",
        messages=[Message("hi", role=Role.ASSISTANT, speaker="Bot", occurred_at=NOON, metadata={"k": "v"})],
    )
    assert [memory.id for memory in added.memories] == ["m1"]
    [message] = server.requests("AddConversation")[0].messages
    assert (message.role, message.speaker, message.text) == (memory_pb2.ROLE_ASSISTANT, "Bot", "hi")
    assert message.occurred_at == STAMP
    assert message.metadata["k"] == "v"


def _page(*ids: str, more: str = "") -> memory_service_pb2.ListMemoriesResponse:
    return memory_service_pb2.ListMemoriesResponse(
        memories=[memory_pb2.Memory(id=one) for one in ids], next_page_token=more
    )


async def test_a_list_walks_all_pages(server: ScriptedServer, client: AsyncClient) -> None:
    server.script("ListMemories", _page("m3", "m2", more="t1"), _page(more="t2"), _page("m1"))
    fits = MemoryFilter(kinds=(MemoryKind.MESSAGE,), metadata={"a": 1}, occurred_from=NOON)
    ids = [memory.id async for memory in client.memories.list(user_id="ann", filter=fits)]
    assert ids == ["m3", "m2", "m1"]
    requests = server.requests("ListMemories")
    assert [request.page_token for request in requests] == ["", "t1", "t2"]
    assert all(request.filter == requests[0].filter for request in requests)
    assert requests[0].filter.kinds == [memory_pb2.MEMORY_KIND_MESSAGE]
    assert requests[0].filter.occurred_from == STAMP


async def test_a_list_fetches_no_page_that_is_not_wanted(server: ScriptedServer, client: AsyncClient) -> None:
    server.script("ListMemories", _page("m3", "m2", more="t1"), _page("m1", "m0", more="t2"))
    assert [memory.id async for memory in client.memories.list(limit=3)] == ["m3", "m2", "m1"]
    assert [request.page_size for request in server.requests("ListMemories")] == [3, 1]
    assert [memory.id async for memory in client.memories.list(limit=0)] == []
    assert len(server.calls) == 2


async def test_update_names_what_it_changes(server: ScriptedServer, client: AsyncClient) -> None:
    server.script("UpdateMemory", memory_service_pb2.UpdateMemoryResponse(memory=MEMORY))
    changed = await client.memories.update("m1", metadata={}, etag="1")
    assert changed.job is None
    [request] = server.requests("UpdateMemory")
    assert list(request.update_mask.paths) == ["metadata"]
    assert not request.HasField("text")
    assert request.etag == "1"
    server.script("UpdateMemory", Failure(grpc.StatusCode.ABORTED, "ETAG_MISMATCH"))
    with pytest.raises(Conflict):
        await client.memories.update("m1", text="x", etag="1")


async def test_search_and_graph(server: ScriptedServer, client: AsyncClient) -> None:
    hit = memory_service_pb2.SearchHit(memory=MEMORY, score=0.75)
    hit.explanation.arms.add(arm="vector", raw=0.8, rank=1, contribution=0.75)
    server.script("SearchMemories", memory_service_pb2.SearchMemoriesResponse(hits=[hit]))
    [found] = await client.memories.search("who?", user_id="ann", explain=True, limit=250)
    assert found.score == 0.75
    assert found.explanation[0].arm == "vector"
    assert server.requests("SearchMemories")[0].page_size == 100

    entity = graph_pb2.Entity(id="e1", name="John Doe", type="PERSON", aliases=["John"])
    edge = graph_pb2.Relationship(id="r1", source_name="John Doe", predicate="WORKS_AT", target_name="TechCorp")
    server.script("ListEntities", memory_service_pb2.ListEntitiesResponse(entities=[entity]))
    assert [one.aliases async for one in client.graph.entities(type="PERSON")] == [("John",)]
    server.script("GetEntity", memory_service_pb2.GetEntityResponse(entity=entity, relationships=[edge]))
    facts = await client.graph.entity("e1")
    assert facts.relationships[0].predicate == "WORKS_AT"
    walked = memory_service_pb2.TraverseGraphResponse(edges=[edge], truncated=True)
    walked.nodes.add(entity=entity, depth=1)
    server.script("TraverseGraph", walked)
    part = await client.graph.traverse(user_id="ann", entity_names=["John Doe"], direction=Direction.OUTGOING)
    assert part.truncated
    assert part.nodes[0].depth == 1
    assert server.requests("TraverseGraph")[0].direction == memory_service_pb2.DIRECTION_OUTGOING


async def test_administration(server: ScriptedServer, client: AsyncClient) -> None:
    tenant = admin_pb2.Tenant(id="t1", name="acme", state=admin_pb2.TENANT_STATE_SUSPENDED)
    for method in ("CreateTenant", "GetTenant", "UpdateTenant", "SuspendTenant", "ResumeTenant"):
        server.script(method, getattr(admin_service_pb2, f"{method}Response")(tenant=tenant))
    server.script("ListTenants", admin_service_pb2.ListTenantsResponse(tenants=[tenant]))
    tenants = client.admin.tenants
    assert (await tenants.create("acme", tier="pro")).state is TenantState.SUSPENDED
    assert (await tenants.get("t1")).name == "acme"
    assert (await tenants.update("t1", tier="free")).id == "t1"
    assert list(server.requests("UpdateTenant")[0].update_mask.paths) == ["tier"]
    await tenants.update("t1", limits=Limits(reads=RateLimit(60, 20)))
    await tenants.update("t1", limits=Limits())
    own, none = server.requests("UpdateTenant")[1:]
    assert (own.limits.reads.burst, own.limits.HasField("writes")) == (20, False)
    assert (list(none.update_mask.paths), none.limits) == (["limits"], admin_pb2.Limits())
    assert (await tenants.suspend("t1")).id == (await tenants.resume("t1")).id == "t1"
    assert [one.id async for one in tenants.list()] == ["t1"]

    key = admin_pb2.ApiKey(id="k1", prefix="mk_a", scopes=[admin_pb2.SCOPE_READ])
    key.scopes.append(99)  # type: ignore[arg-type]  # of a newer server
    server.script("CreateApiKey", admin_service_pb2.CreateApiKeyResponse(api_key=key, secret="mk_a_s3cret"))
    created = await client.admin.keys.create("t1", scopes=[Scope.READ], expire_time=NOON)
    assert created.secret == "mk_a_s3cret"
    assert "s3cret" not in repr(created)
    assert created.api_key.scopes == (Scope.READ, Scope.UNKNOWN)
    server.script("ListApiKeys", admin_service_pb2.ListApiKeysResponse(api_keys=[key]))
    assert [one.id async for one in client.admin.keys.list("t1")] == ["k1"]
    new = admin_pb2.ApiKey(id="k2", prefix="mk_b")
    ending = admin_pb2.ApiKey(id="k1", expire_time=STAMP)
    server.script(
        "RotateApiKey",
        admin_service_pb2.RotateApiKeyResponse(api_key=new, secret="mk_b_s3cret", replaced_api_key=ending),
        admin_service_pb2.RotateApiKeyResponse(api_key=new, replaced_api_key=ending),
    )
    rotated = await client.admin.keys.rotate("t1", "k1", overlap=timedelta(minutes=5), expire_time=NOON)
    assert (rotated.api_key.id, rotated.secret, rotated.replaced.expire_time) == ("k2", "mk_b_s3cret", NOON)
    assert "s3cret" not in repr(rotated)
    assert (await client.admin.keys.rotate("t1", "k1")).secret is None
    first, second = (call.request for call in server.calls if call.method == "RotateApiKey")
    assert (first.overlap.seconds, first.expire_time, first.api_key_id) == (300, STAMP, "k1")
    assert not second.HasField("overlap")
    event = admin_pb2.AuditEvent(id="e1", event_time=STAMP, method="AdminService/PutTier", code="OK", request="{}")
    server.script("ListAuditEvents", admin_service_pb2.ListAuditEventsResponse(events=[event]))
    [told] = [one async for one in client.admin.audit(tenant_id="t1", method="AdminService/PutTier", from_time=NOON)]
    assert (told.id, told.event_time, told.code, told.actor_api_key_id) == ("e1", NOON, "OK", "")
    [asked] = [call.request for call in server.calls if call.method == "ListAuditEvents"]
    assert (asked.tenant_id, asked.method, asked.from_time) == ("t1", "AdminService/PutTier", STAMP)
    server.script("RevokeApiKey", admin_service_pb2.RevokeApiKeyResponse(api_key=key))
    assert (await client.admin.keys.revoke("t1", "k1")).id == "k1"
    assert all(
        call.request.request_id for call in server.calls if "List" not in call.method and "Get" not in call.method
    )


QUEUE = admin_pb2.Queue(name="free", waiting=3, active=2, deferred=1, failed_today=4, rate=0.5, pause_time=STAMP)


async def test_workers_and_queues(server: ScriptedServer, client: AsyncClient) -> None:
    running = admin_pb2.RunningJob(
        job_id="j1", tenant_id="t1", kind=jobs_pb2.JOB_KIND_MEMORY_ENRICH, attempt=2, start_time=STAMP
    )
    worker = admin_pb2.Worker(id="w1", host="h", process_id=7, concurrency=16, running=1, jobs=[running])
    other = admin_pb2.Queue(name="pro")
    server.script("GetWorkers", admin_service_pb2.GetWorkersResponse(workers=[worker], queues=[QUEUE, other]))
    status = await client.admin.workers()
    assert (status.workers[0].process_id, status.workers[0].concurrency) == (7, 16)
    assert status.workers[0].jobs == (RunningJob("j1", "t1", JobKind.MEMORY_ENRICH, 2, NOON),)
    assert [(queue.name, queue.waiting, queue.paused) for queue in status.queues] == [
        *(("free", 3, True), ("pro", 0, False))
    ]
    for method in ("PauseQueue", "ResumeQueue"):
        server.script(method, getattr(admin_service_pb2, f"{method}Response")(queues=[QUEUE]))
    assert (await client.admin.pause_queue("free"))[0].pause_time == NOON
    assert (await client.admin.resume_queue())[0].rate == 0.5
    assert [request.queue for method in ("PauseQueue", "ResumeQueue") for request in server.requests(method)] == [
        *("free", "")
    ]
    assert server.requests("PauseQueue")[0].request_id


async def test_jobs_are_requeued_cleared_and_triggered(server: ScriptedServer, client: AsyncClient) -> None:
    server.script("RequeueJobs", admin_service_pb2.RequeueJobsResponse(requeued=3, skipped=1, more=True))
    requeued = await client.admin.requeue_jobs(
        tenant_id="t1", states=[JobState.CANCELLED], reason="PROVIDER_FAILED", ended_from=NOON, limit=4
    )
    assert requeued == RequeueResult(3, 1, True)
    [request] = server.requests("RequeueJobs")
    assert list(request.states) == [jobs_pb2.JOB_STATE_CANCELLED]
    assert (request.tenant_id, request.reason, request.limit) == ("t1", "PROVIDER_FAILED", 4)
    assert (request.ended_from, request.HasField("ended_until")) == (STAMP, False)
    server.script("ClearQueue", admin_service_pb2.ClearQueueResponse(cancelled=2))
    assert await client.admin.clear_queue("pro", deferred=True) == ClearResult(2, False)
    [cleared] = server.requests("ClearQueue")
    assert (cleared.queue, cleared.deferred, cleared.all_tenants) == ("pro", True, False)
    server.script("TriggerProcessing", admin_service_pb2.TriggerProcessingResponse(released=5, due=6))
    assert await client.admin.trigger_processing("t1") == TriggerResult(released=5, due=6)
    assert all(call.request.request_id for call in server.calls)


async def test_a_retry_is_a_job_of_its_own(server: ScriptedServer, client: AsyncClient) -> None:
    again = jobs_pb2.Job(id="j2", state=jobs_pb2.JOB_STATE_QUEUED, retry_of="j1")
    server.script("RetryJob", jobs_service_pb2.RetryJobResponse(job=again))
    for handle in (await client.jobs.retry("j1", request_id="r1"), await client.jobs.handle("j1").retry()):
        assert handle.id == "j2"
        assert handle.latest is not None
        assert handle.latest.retry_of == "j1"
    first, second = server.requests("RetryJob")
    assert (first.job_id, first.request_id) == ("j1", "r1")
    assert second.request_id not in {"", "r1"}
    server.script("RetryJob", Failure(grpc.StatusCode.FAILED_PRECONDITION, "JOB_NOT_RETRYABLE"))
    with pytest.raises(FailedPrecondition):
        await client.jobs.retry("j1")


async def test_health(server: ScriptedServer, client: AsyncClient) -> None:
    assert await client.health() is Health.SERVING
    server.health.enter_graceful_shutdown()
    assert await client.health() is Health.NOT_SERVING
    with pytest.raises(NotFound):
        await client.health("memoro.v1.Unheard")


async def test_a_closed_client_says_so() -> None:
    client = AsyncClient("127.0.0.1:1")
    await client.close()
    with pytest.raises(RuntimeError, match="the client is closed"):
        await client.memories.get("m1")


def test_the_blocking_client_makes_the_same_calls(server: ScriptedServer, blocking_client: Client) -> None:
    server.script("CreateMemory", CREATED)
    added = blocking_client.memories.create(user_id="ann", text="hello", request_id="r1")
    assert (added.memory.id, added.job.id) == ("m1", "j1")
    server.script("GetJob", jobs_service_pb2.GetJobResponse(job=JOB))
    assert added.job.refresh().state is JobState.QUEUED
    server.script("ListMemories", _page("m2", more="t1"), _page("m1"))
    assert [memory.id for memory in blocking_client.memories.list()] == ["m2", "m1"]
    server.script("GetMemory", Failure(grpc.StatusCode.NOT_FOUND, "MEMORY_NOT_FOUND"))
    with pytest.raises(NotFound) as caught:
        blocking_client.memories.get("m9")
    assert caught.value.reason == "MEMORY_NOT_FOUND"
    server.script("RetryJob", jobs_service_pb2.RetryJobResponse(job=JOB))
    assert blocking_client.jobs.retry("j0").retry().id == "j1"
    server.script("PauseQueue", admin_service_pb2.PauseQueueResponse(queues=[QUEUE]))
    assert blocking_client.admin.pause_queue()[0].paused
    assert blocking_client.health() is Health.SERVING
    blocking_client.close()
    with pytest.raises(RuntimeError, match="the client is closed"):
        blocking_client.memories.get("m1")


TIER = admin_pb2.Tier(
    name="startup",
    limits=admin_pb2.Limits(requests=admin_pb2.RateLimit(per_minute=600, burst=120), max_memories=7),
    weight=2,
    tenant_in_flight=3,
    user_in_flight=1,
    kept_failed=duration_pb2.Duration(seconds=7200),
    etag="5",
)


async def test_tiers(server: ScriptedServer, client: AsyncClient, blocking_client: Client) -> None:
    server.script("ListTiers", admin_service_pb2.ListTiersResponse(tiers=[TIER]))
    server.script("PutTier", admin_service_pb2.PutTierResponse(tier=TIER))
    [tier] = await client.admin.tiers.list()
    assert (tier.name, tier.limits) == ("startup", Limits(requests=RateLimit(600, 120), max_memories=7))
    assert (tier.weight, tier.tenant_in_flight, tier.user_in_flight) == (2, 3, 1)
    assert (tier.kept_succeeded, tier.kept_failed) == (None, timedelta(hours=2))
    assert await client.admin.tiers.put(replace(tier, shadow=True), request_id="once") == tier
    expected = admin_pb2.Tier()
    expected.CopyFrom(TIER)
    expected.shadow = True
    [put] = server.requests("PutTier")
    assert put == admin_service_pb2.PutTierRequest(request_id="once", tier=expected)
    assert blocking_client.admin.tiers.list() == (blocking_client.admin.tiers.put(tier),)


def test_the_blocking_client_has_every_call_of_the_other() -> None:
    blocking, other = Client("127.0.0.1:1"), AsyncClient("127.0.0.1:1")
    with blocking:
        groups = ("memories", "graph", "jobs", "billing", "webhooks", "admin")
        for group in (*groups, "admin.tenants", "admin.keys", "admin.tiers", ""):
            ours, theirs = blocking, other
            for name in filter(None, group.split(".")):
                ours, theirs = getattr(ours, name), getattr(theirs, name)
            public = {name for name in dir(type(theirs)) if not name.startswith("_")}
            assert public <= set(dir(type(ours))), group
