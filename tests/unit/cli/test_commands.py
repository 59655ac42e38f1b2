"""Every command: what it sends, what it prints for people and for machines, and how it fails."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
from google.protobuf import duration_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from memoro.v1 import (
    admin_pb2,
    admin_service_pb2,
    graph_pb2,
    jobs_pb2,
    jobs_service_pb2,
    memory_pb2,
    memory_service_pb2,
)
from tests.support.scripted_server import Failure

from .conftest import CommandLine

NOON = Timestamp(seconds=int(datetime(2025, 3, 4, 12, tzinfo=UTC).timestamp()))
MEMORY = memory_pb2.Memory(
    id="m1", user_id="ann", text="a [bold] text", status=memory_pb2.MEMORY_STATUS_PENDING, occurred_at=NOON
)
QUEUED = jobs_pb2.Job(id="j1", user_id="ann", state=jobs_pb2.JOB_STATE_QUEUED, sequence=1)
EMBED = jobs_pb2.StageProgress(stage=jobs_pb2.STAGE_EMBED, status=jobs_pb2.STAGE_STATUS_SUCCEEDED, completed=1, total=1)
RESULT = jobs_pb2.JobResult(memories=1, entities=4, relationships=3)
WATCH = [
    jobs_service_pb2.WatchJobResponse(snapshot=QUEUED, sequence=1, resume_token="t1"),
    jobs_service_pb2.WatchJobResponse(
        update=jobs_pb2.JobUpdate(job_id="j1", state=jobs_pb2.JOB_STATE_RUNNING, attempt=1, stage=EMBED),
        sequence=2,
        resume_token="t2",
    ),
    jobs_service_pb2.WatchJobResponse(
        update=jobs_pb2.JobUpdate(job_id="j1", state=jobs_pb2.JOB_STATE_SUCCEEDED, attempt=1, result=RESULT),
        sequence=3,
        resume_token="t3",
    ),
]
FAILED_WATCH = [
    WATCH[0],
    jobs_service_pb2.WatchJobResponse(
        update=jobs_pb2.JobUpdate(
            job_id="j1",
            state=jobs_pb2.JOB_STATE_FAILED,
            error=jobs_pb2.JobError(reason="PROVIDER_FAILED", message="it answered 400"),
        ),
        sequence=2,
    ),
]


def test_add_says_what_was_stored(memoro: CommandLine) -> None:
    memoro.server.script("CreateMemory", memory_service_pb2.CreateMemoryResponse(memory=MEMORY, job=QUEUED))
    told = memoro(
        *("add", "a text", "--user", "ann", "--metadata", '{"k": 1}', "--occurred-at", "2025-03-04T12:00"),
        *("--priority", "High", "--request-id", "r1"),
    )
    assert told.stdout == "stored memory m1, job j1\n"
    [request] = memoro.server.requests("CreateMemory")
    assert (request.text, request.user_id, request.request_id) == ("a text", "ann", "r1")
    assert request.priority == memory_pb2.PRIORITY_HIGH
    assert request.occurred_at == NOON
    assert request.metadata["k"] == 1
    assert memoro.server.calls[0].metadata["authorization"] == "Bearer mk_cli"
    [line] = memoro.json("add", "a text", "-u", "ann")
    assert line["memory"]["id"] == "m1"
    assert line["memory"]["occurred_at"] == "2025-03-04T12:00:00+00:00"
    assert line["job"]["state"] == "QUEUED"


def test_add_reads_standard_input(memoro: CommandLine) -> None:
    memoro.server.script("CreateMemory", memory_service_pb2.CreateMemoryResponse(memory=MEMORY, job=QUEUED))
    memoro("add", "-", "-u", "ann", stdin="from a pipe\n")
    assert memoro.server.requests("CreateMemory")[0].text == "from a pipe\n"


def test_add_waits_for_the_job(memoro: CommandLine) -> None:
    memoro.server.script("CreateMemory", memory_service_pb2.CreateMemoryResponse(memory=MEMORY, job=QUEUED))
    memoro.server.script("WatchJob", WATCH)
    told = memoro("add", "a text", "-u", "ann", "--wait").stdout.splitlines()
    assert told[3].endswith("embed    succeeded 1/1")
    assert told[-1] == "job j1 SUCCEEDED (1 memories, 4 entities, 3 relationships)"
    [line] = memoro.json("add", "a text", "-u", "ann", "--wait")
    assert line["job"]["state"] == "SUCCEEDED"
    memoro.server.script("WatchJob", FAILED_WATCH)
    failed = memoro("add", "a text", "-u", "ann", "--wait", code=1)
    assert failed.stderr == "error: job j1 failed: it answered 400 (PROVIDER_FAILED)\n"


def test_add_takes_a_conversation(memoro: CommandLine, tmp_path: Path) -> None:
    answer = memory_service_pb2.AddConversationResponse(memories=[MEMORY, MEMORY], job=QUEUED)
    memoro.server.script("AddConversation", answer)
    file = tmp_path / "talk.json"
    messages = [
        {"text": "hi", "role": "user", "speaker": "Ann", "occurred_at": "2025-03-04T13:00:00+01:00"},
        {"text": "hello", "metadata": {"k": "v"}},
    ]
    file.write_text(json.dumps({"conversation_id": "talk", "messages": messages}))
    told = memoro("add", "--conversation", str(file), "--user", "ann")
    assert told.stdout == "stored 2 memories of conversation talk, job j1\n"
    [request] = memoro.server.requests("AddConversation")
    assert request.conversation_id == "talk"
    assert request.messages[0].role == memory_pb2.ROLE_USER
    assert request.messages[0].occurred_at == NOON
    [line] = memoro.json("add", "--conversation", str(file), "--user", "ann")
    assert len(line["memories"]) == 2


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        ("[]", "expected an object with conversation_id and messages"),
        ("{", "expected an object with conversation_id and messages"),
        ('{"conversation_id": "c", "messages": [{"text": "a"}, {"txt": "b"}]}', "message 1: expected an object"),
        ('{"conversation_id": "c", "messages": [{"text": "a", "when": 1}]}', "message 0: no such field: when"),
        ('{"conversation_id": "c", "messages": [{"text": "a", "role": "boss"}]}', "message 0: 'BOSS'"),
        ('{"conversation_id": "c", "messages": [{"text": "a", "occurred_at": 5}]}', "message 0: fromisoformat"),
    ],
)
def test_a_bad_conversation_is_refused_with_its_place(
    memoro: CommandLine, tmp_path: Path, document: str, fault: str
) -> None:
    file = tmp_path / "talk.json"
    file.write_text(document)
    told = memoro("add", "--conversation", str(file), "--user", "ann", code=2)
    assert told.stderr.startswith("error: talk.json: ")
    assert fault in told.stderr
    assert not memoro.server.calls


def test_search_shows_hits(memoro: CommandLine) -> None:
    hit = memory_service_pb2.SearchHit(memory=MEMORY, score=0.75)
    hit.explanation.arms.add(arm="vector", raw=0.8, rank=1, contribution=0.75)
    memoro.server.script("SearchMemories", memory_service_pb2.SearchMemoriesResponse(hits=[hit]))
    told = memoro("search", "what?", "-u", "ann", "-n", "5", "--explain", "--conversation-id", "talk")
    assert "0.750" in told.stdout
    assert "a [bold] text" in told.stdout
    assert "vector 0.750 (raw 0.800)" in told.stdout
    [request] = memoro.server.requests("SearchMemories")
    assert (request.page_size, request.explain, request.filter.conversation_id) == (5, True, "talk")
    [line] = memoro.json("search", "what?", "-u", "ann")
    assert line["score"] == 0.75
    memoro.server.script("SearchMemories", memory_service_pb2.SearchMemoriesResponse())
    assert memoro("search", "what?", "-u", "ann").stdout == "nothing found\n"
    assert memoro.json("search", "what?", "-u", "ann") == []


def test_memories(memoro: CommandLine) -> None:
    memoro.server.script("ListMemories", memory_service_pb2.ListMemoriesResponse(memories=[MEMORY]))
    assert "a [bold] text" in memoro("memories", "list", "--user", "ann").stdout
    assert [line["id"] for line in memoro.json("memories", "list")] == ["m1"]
    memoro.server.script("GetMemory", memory_service_pb2.GetMemoryResponse(memory=MEMORY))
    assert "PENDING" in memoro("memories", "get", "m1").stdout
    assert memoro.json("memories", "get", "m1")[0]["text"] == "a [bold] text"
    memoro.server.script("DeleteMemory", memory_service_pb2.DeleteMemoryResponse())
    assert memoro("memories", "delete", "m1").stdout == "deleted memory m1\n"
    assert memoro.json("memories", "delete", "m1") == [{"deleted": "m1"}]


def test_jobs(memoro: CommandLine) -> None:
    memoro.server.script("ListJobs", jobs_service_pb2.ListJobsResponse(jobs=[QUEUED]))
    assert "QUEUED" in memoro("jobs", "list", "--state", "queued", "--state", "failed").stdout
    assert memoro.server.requests("ListJobs")[0].states == [jobs_pb2.JOB_STATE_QUEUED, jobs_pb2.JOB_STATE_FAILED]
    running = jobs_pb2.Job(id="j1", state=jobs_pb2.JOB_STATE_RUNNING, stages=[EMBED], cancel_requested=True)
    memoro.server.script("GetJob", jobs_service_pb2.GetJobResponse(job=running))
    told = memoro("jobs", "get", "j1").stdout
    assert told.startswith("job j1 RUNNING\n")
    assert "EMBED" in told
    memoro.server.script("CancelJob", jobs_service_pb2.CancelJobResponse(job=running))
    assert memoro("jobs", "cancel", "j1").stdout == "job j1 will end within a second\n"
    assert memoro.json("jobs", "cancel", "j1")[0]["cancel_requested"] is True


def test_watch_tells_each_change_and_fails_with_the_job(memoro: CommandLine) -> None:
    memoro.server.script("GetJob", jobs_service_pb2.GetJobResponse(job=QUEUED))
    memoro.server.script("WatchJob", WATCH)
    lines = memoro.json("jobs", "watch", "j1")
    assert [line["sequence"] for line in lines] == [1, 2, 3]
    assert lines[1]["stage"] == {"stage": "EMBED", "status": "SUCCEEDED", "completed": 1, "total": 1}
    memoro.server.script("WatchJob", FAILED_WATCH)
    assert "it answered 400" in memoro("jobs", "watch", "j1", code=1).stderr
    memoro.server.script("GetJob", Failure(grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND", "no job j2 in this tenant"))
    told = memoro("jobs", "watch", "j2", code=1)
    assert told.stderr == "error: no job j2 in this tenant (JOB_NOT_FOUND)\n"


RETRYING = jobs_pb2.Job(
    id="j3",
    state=jobs_pb2.JOB_STATE_QUEUED,
    attempt=1,
    max_attempts=5,
    error=jobs_pb2.JobError(reason="PROVIDER_FAILED", message="it answered [503]", retryable=True),
    run_time=Timestamp(seconds=int(time.time()) + 7300),
)
PUT_OFF = jobs_pb2.Job(id="j4", state=jobs_pb2.JOB_STATE_DEFERRED, run_time=RETRYING.run_time)


def test_jobs_that_wait_say_for_what(memoro: CommandLine) -> None:
    memoro.server.script("ListJobs", jobs_service_pb2.ListJobsResponse(jobs=[RETRYING, PUT_OFF, QUEUED]))
    told = memoro("jobs", "list").stdout.splitlines()[1:]
    assert all(part in told[0] for part in ("j3", "QUEUED", "(in 2 h)", "it answered [503] (PROVIDER_FAILED)"))
    assert all(part in told[1] for part in ("j4", "DEFERRED", "(in 2 h)"))
    assert "(in" not in told[2]
    memoro.server.script("GetJob", jobs_service_pb2.GetJobResponse(job=RETRYING))
    told_of = memoro("jobs", "get", "j3").stdout
    assert told_of.startswith("job j3 QUEUED after attempt 1 of 5: it answered [503] (PROVIDER_FAILED); runs at 20")
    [line] = memoro.json("jobs", "get", "j3")
    assert (line["state"], line["error"]["reason"], line["attempt"]) == ("QUEUED", "PROVIDER_FAILED", 1)
    assert line["run_time"]


def test_retry(memoro: CommandLine) -> None:
    again = jobs_pb2.Job(id="j1", state=jobs_pb2.JOB_STATE_QUEUED, retry_of="j0")
    memoro.server.script("RetryJob", jobs_service_pb2.RetryJobResponse(job=again))
    assert memoro("jobs", "retry", "j0").stdout == "job j1 takes up the work of job j0\n"
    assert memoro.json("jobs", "retry", "j0")[0]["retry_of"] == "j0"
    memoro.server.script("WatchJob", WATCH)
    assert "SUCCEEDED" in memoro("jobs", "retry", "j0", "--wait").stdout
    assert [line["state"] for line in memoro.json("jobs", "retry", "j0", "-w")] == ["SUCCEEDED"]
    memoro.server.script("WatchJob", FAILED_WATCH)
    assert "it answered 400" in memoro("jobs", "retry", "j0", "--wait", code=1).stderr


def test_watch_of_all_jobs(memoro: CommandLine) -> None:
    stop = Failure(grpc.StatusCode.PERMISSION_DENIED, "TENANT_SUSPENDED", "suspended")
    memoro.server.script("ListJobs", jobs_service_pb2.ListJobsResponse())
    told_of = jobs_service_pb2.WatchJobsResponse
    updates = [
        told_of(snapshot=RETRYING, sequence=4, resume_token="at-j3"),
        told_of(heartbeat=jobs_pb2.Heartbeat(), resume_token="t0"),
        told_of(
            update=jobs_pb2.JobUpdate(
                job_id="j3", state=jobs_pb2.JOB_STATE_RUNNING, attempt=2, stage=EMBED, event_time=NOON
            ),
            sequence=5,
            resume_token="t1",
        ),
    ]
    memoro.server.script("WatchJobs", [*updates, stop])
    told = memoro("jobs", "watch", "--state", "running", "--state", "queued", "-u", "ann", code=1)
    first, second = told.stdout.splitlines()
    assert "j3  QUEUED after attempt 1 of 5: it answered [503] (PROVIDER_FAILED); runs at" in first
    assert second.endswith("  j3  RUNNING embed succeeded 1/1")
    assert told.stderr == "error: suspended (TENANT_SUSPENDED)\n"
    [request] = memoro.server.requests("WatchJobs")
    assert (list(request.states), request.user_id) == (
        *([jobs_pb2.JOB_STATE_RUNNING, jobs_pb2.JOB_STATE_QUEUED], "ann"),
    )
    lines = memoro.json("jobs", "watch", "--resume-token", "kept", code=1)
    assert [(line["job_id"], line["sequence"], line["resume_token"]) for line in lines] == [
        *(("j3", 4, "at-j3"), ("j3", 5, "t1"))
    ]
    gone = Failure(grpc.StatusCode.OUT_OF_RANGE, "RESUME_TOKEN_EXPIRED")
    memoro.server.script("WatchJobs", [gone], [*updates, stop])
    told = memoro("jobs", "watch", "--resume-token", "old", code=1)
    assert told.stdout.startswith("what happened before this is no longer known")
    memoro.server.script("ListJobs", Failure(grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_INVALID", "bad key"))
    assert memoro("jobs", "watch", code=1).stderr == "error: bad key (CREDENTIALS_INVALID)\n"


def test_workers_and_queues(memoro: CommandLine) -> None:
    running = admin_pb2.RunningJob(job_id="j1", tenant_id="t1", attempt=2, start_time=NOON)
    worker = admin_pb2.Worker(id="w1", host="box", process_id=42, concurrency=16, running=1, jobs=[running])
    queue = admin_pb2.Queue(name="free", waiting=3, active=1, rate=0.25, pause_time=NOON)
    status = admin_service_pb2.GetWorkersResponse(workers=[worker], queues=[queue])
    memoro.server.script("GetWorkers", status)
    told = memoro("admin", "workers").stdout
    assert all(part in told for part in ("w1", "box", "42", "j1", "t1", "free", "0.250"))
    [line] = memoro.json("admin", "workers")
    assert line["workers"][0]["jobs"][0]["job_id"] == "j1"
    assert line["queues"][0]["pause_time"]
    memoro.server.script("GetWorkers", admin_service_pb2.GetWorkersResponse(queues=[queue]))
    assert memoro("admin", "workers").stdout.startswith("no workers\n\nqueue")
    for method, command in (("PauseQueue", "pause"), ("ResumeQueue", "resume")):
        memoro.server.script(method, getattr(admin_service_pb2, f"{method}Response")(queues=[queue]))
        assert "free" in memoro("admin", command, "free").stdout
        assert memoro.json("admin", command)[0]["name"] == "free"
        assert [request.queue for request in memoro.server.requests(method)] == ["free", ""]


def test_requeue_and_trigger(memoro: CommandLine) -> None:
    memoro.server.script("RequeueJobs", admin_service_pb2.RequeueJobsResponse(requeued=3, skipped=1, more=True))
    told = memoro(
        *("admin", "requeue", "--state", "cancelled", "--tenant", "t1", "--reason", "PROVIDER_FAILED"),
        *("--since", "2025-03-04T12:00", "--limit", "4"),
    )
    assert told.stdout == "requeued 3 jobs; 1 have nothing left to do, or too few credits; more jobs fit: call again\n"
    [request] = memoro.server.requests("RequeueJobs")
    assert (list(request.states), request.reason, request.limit, request.ended_from) == (
        *([jobs_pb2.JOB_STATE_CANCELLED], "PROVIDER_FAILED", 4, NOON),
    )
    assert memoro.json("admin", "requeue") == [{"requeued": 3, "skipped": 1, "more": True}]
    memoro.server.script("TriggerProcessing", admin_service_pb2.TriggerProcessingResponse(released=2, due=1))
    assert memoro("admin", "trigger", "--tenant", "t1").stdout == (
        "2 jobs are no longer put off; 1 wait no longer for their next attempt\n"
    )
    assert memoro.json("admin", "trigger") == [{"released": 2, "due": 1}]


def test_clear_asks_before_it_cancels(memoro: CommandLine) -> None:
    memoro.server.script("ClearQueue", admin_service_pb2.ClearQueueResponse(cancelled=7))
    refused = memoro("admin", "clear", "free", "--tenant", "t1", stdin="n\n", code=1)
    assert "Cancel the waiting jobs of queue free of tenant t1? [y/N]" in refused.stderr
    assert not memoro.server.calls
    assert memoro("admin", "clear", "--all-tenants", stdin="y\n").stdout.endswith("cancelled 7 jobs\n")
    assert memoro.json("admin", "clear", "free", "--deferred", "--yes") == [{"cancelled": 7, "more": False}]
    first, second = memoro.server.requests("ClearQueue")
    assert (first.all_tenants, first.deferred, second.queue, second.deferred) == (True, False, "free", True)


def test_graph(memoro: CommandLine) -> None:
    john = graph_pb2.Entity(id="e1", name="John Doe", type="PERSON")
    corp = graph_pb2.Entity(id="e2", name="TechCorp", type="ORGANIZATION")
    memoro.server.script("ListEntities", memory_service_pb2.ListEntitiesResponse(entities=[john]))
    assert "John Doe" in memoro("graph", "entities", "--type", "PERSON").stdout
    edge = graph_pb2.Relationship(
        source_entity_id="e1",
        source_name="John Doe",
        predicate="WORKS_AT",
        target_entity_id="e2",
        target_name="TechCorp",
    )
    walked = memory_service_pb2.TraverseGraphResponse(edges=[edge])
    walked.nodes.add(entity=john, depth=0)
    walked.nodes.add(entity=corp, depth=1)
    memoro.server.script("TraverseGraph", walked)
    told = memoro("graph", "walk", "John Doe", "--user", "ann", "--depth", "3", "--direction", "outgoing").stdout
    assert told.splitlines() == ["John Doe PERSON", "└── —WORKS_AT→ TechCorp"]
    [request] = memoro.server.requests("TraverseGraph")
    assert request.direction == memory_service_pb2.DIRECTION_OUTGOING
    assert request.max_depth == 3
    [line] = memoro.json("graph", "walk", "John Doe", "--user", "ann")
    assert line["edges"][0]["predicate"] == "WORKS_AT"
    memoro.server.script("TraverseGraph", memory_service_pb2.TraverseGraphResponse())
    assert memoro("graph", "walk", "Nobody", "--user", "ann").stdout == "no such entity\n"


def test_tenants(memoro: CommandLine) -> None:
    tenant = admin_pb2.Tenant(id="t1", name="acme", tier="pro", state=admin_pb2.TENANT_STATE_ACTIVE)
    for method in ("CreateTenant", "GetTenant", "UpdateTenant", "SuspendTenant", "ResumeTenant"):
        memoro.server.script(method, getattr(admin_service_pb2, f"{method}Response")(tenant=tenant))
    memoro.server.script("ListTenants", admin_service_pb2.ListTenantsResponse(tenants=[tenant]))
    for arguments in (
        ("create", "acme", "--tier", "pro"),
        ("list",),
        ("get", "t1"),
        ("update", "t1", "--name", "Acme"),
        ("suspend", "t1"),
        ("resume", "t1"),
    ):
        assert "acme" in memoro("admin", "tenants", *arguments).stdout
        assert memoro.json("admin", "tenants", *arguments)[0]["id"] == "t1"
    assert memoro("admin", "tenants", "update", "t1", code=2).stderr == (
        "error: give --display-name, --tier or --limits-json\n"
    )


def test_limits_of_a_tenant(memoro: CommandLine) -> None:
    limits = admin_pb2.Limits(requests=admin_pb2.RateLimit(per_minute=600, burst=120), max_memories=7)
    tenant = admin_pb2.Tenant(id="t1", name="acme", tier="pro", limits=limits)
    memoro.server.script("UpdateTenant", admin_service_pb2.UpdateTenantResponse(tenant=tenant))
    update = ("admin", "tenants", "update", "t1", "--limits-json")
    given = '{"requests": {"per_minute": 600, "burst": 120}, "max_memories": 7}'
    assert "requests 600/120, max_memories 7" in memoro(*update, given).stdout
    [line] = memoro.json(*update, "{}")
    assert line["limits"]["requests"] == {"per_minute": 600, "burst": 120}
    assert line["limits"]["reads"] is None
    own, none = memoro.server.requests("UpdateTenant")
    assert own.limits == limits
    assert (list(none.update_mask.paths), none.limits) == (["limits"], admin_pb2.Limits())
    for bad in ("[]", "{", '{"request": {}}', '{"requests": 7}', '{"max_memories": "many"}'):
        assert memoro(*update, bad, code=2).stderr.startswith("error: --limits-json: "), bad


def test_tiers(memoro: CommandLine) -> None:
    tier = admin_pb2.Tier(
        name="pro",
        limits=admin_pb2.Limits(requests=admin_pb2.RateLimit(per_minute=600, burst=120), open_streams=9),
        weight=4,
        tenant_in_flight=64,
        user_in_flight=16,
        kept_failed=duration_pb2.Duration(seconds=7200),
        etag="3",
    )
    memoro.server.script("ListTiers", admin_service_pb2.ListTiersResponse(tiers=[tier]))
    memoro.server.script("PutTier", admin_service_pb2.PutTierResponse(tier=tier))
    told = memoro("admin", "tiers", "list").stdout
    assert "64/16" in told
    assert "600/120" in told
    [line] = memoro.json("admin", "tiers", "list")
    assert (line["name"], line["limits"]["open_streams"], line["kept_failed"]) == ("pro", 9, 7200.0)

    options = ("--requests", "none", "--reads", "60/20", "--max-memories", "5", "--open-streams", "none")
    others = ("--shadow", "--user-in-flight", "2", "--kept-failed", "none", "--kept-succeeded", "12h")
    memoro("admin", "tiers", "put", "pro", *options, *others)
    memoro("admin", "tiers", "put", "new", "--weight", "3", "--kept-failed", "30d")
    changed, made = (request.tier for request in memoro.server.requests("PutTier"))
    assert changed == admin_pb2.Tier(
        name="pro",
        limits=admin_pb2.Limits(reads=admin_pb2.RateLimit(per_minute=60, burst=20), max_memories=5),
        shadow=True,
        weight=4,
        tenant_in_flight=64,
        user_in_flight=2,
        kept_succeeded=duration_pb2.Duration(seconds=12 * 3600),
        etag="3",
    )
    assert (made.name, made.weight, made.tenant_in_flight, made.user_in_flight, made.etag) == ("new", 3, 8, 4, "")
    assert made.kept_failed == duration_pb2.Duration(seconds=30 * 86_400)
    for bad in (("--reads", "60"), ("--reads", "a/b"), ("--max-bytes", "-1"), ("--kept-failed", "3w")):
        assert memoro("admin", "tiers", "put", "pro", *bad, code=2).stderr.startswith(f"error: {bad[0]}: ")


def test_the_audit_log(memoro: CommandLine) -> None:
    event = admin_pb2.AuditEvent(id="e1", method="AdminService/PutTier", code="OK", actor_subject="alice")
    answer = admin_service_pb2.ListAuditEventsResponse(events=[event])
    memoro.server.script("ListAuditEvents", answer, answer, admin_service_pb2.ListAuditEventsResponse())
    assert "alice" in memoro("admin", "audit").stdout
    since = ("--since", "2030-01-01", "--tenant", "t1", "--method", "AdminService/PutTier")
    assert memoro.json("admin", "audit", *since)[0]["id"] == "e1"
    assert memoro("admin", "audit").stdout == "no events\n"
    assert memoro.server.requests("ListAuditEvents")[1].from_time.ToDatetime() == datetime(2030, 1, 1)


def test_keys(memoro: CommandLine) -> None:
    key = admin_pb2.ApiKey(id="k1", prefix="mk_a", scopes=[admin_pb2.SCOPE_READ, admin_pb2.SCOPE_WRITE])
    memoro.server.script("CreateApiKey", admin_service_pb2.CreateApiKeyResponse(api_key=key, secret="mk_a_s3cret"))
    told = memoro("admin", "keys", "create", "t1", "--name", "shop", "--scope", "read", "--scope", "write").stdout
    assert "READ, WRITE" in told
    assert told.endswith("secret, shown this once: mk_a_s3cret\n")
    [line] = memoro.json("admin", "keys", "create", "t1", "--expires", "2030-01-01")
    assert line["secret"] == "mk_a_s3cret"
    first, second = memoro.server.requests("CreateApiKey")
    assert list(first.scopes) == [admin_pb2.SCOPE_READ, admin_pb2.SCOPE_WRITE]
    assert second.expire_time.ToDatetime() == datetime(2030, 1, 1)
    ending = admin_pb2.ApiKey(id="k1", prefix="mk_a")
    rotated = admin_service_pb2.RotateApiKeyResponse(api_key=key, secret="mk_b_s3cret", replaced_api_key=ending)
    memoro.server.script("RotateApiKey", rotated, rotated)
    assert "mk_b_s3cret" in memoro("admin", "keys", "rotate", "t1", "k1").stdout
    [line] = memoro.json("admin", "keys", "rotate", "t1", "k1", "--overlap", "0", "--expires", "2030-01-01")
    assert (line["secret"], line["replaced"]["id"]) == ("mk_b_s3cret", "k1")
    first, second = (call.request for call in memoro.server.calls if call.method == "RotateApiKey")
    assert (first.overlap.seconds, second.overlap.seconds, second.HasField("overlap")) == (3600, 0, True)
    assert "not a time span" in memoro("admin", "keys", "rotate", "t1", "k1", "--overlap", "soon", code=2).stderr
    memoro.server.script("ListApiKeys", admin_service_pb2.ListApiKeysResponse(api_keys=[key]))
    assert "mk_a" in memoro("admin", "keys", "list", "t1").stdout
    memoro.server.script("RevokeApiKey", admin_service_pb2.RevokeApiKeyResponse(api_key=key))
    assert memoro.json("admin", "keys", "revoke", "t1", "k1")[0]["id"] == "k1"


def test_failures_take_one_line(memoro: CommandLine) -> None:
    memoro.server.script(
        "CreateMemory",
        Failure(
            grpc.StatusCode.INVALID_ARGUMENT,
            "INVALID_FIELD",
            "the request breaks\n2 rules",
            violations={"text": "is empty", "user_id": "is too long"},
        ),
    )
    told = memoro("add", "x", "-u", "ann", code=1).stderr
    assert told == ("error: the request breaks 2 rules (INVALID_FIELD); text: is empty; user_id: is too long\n")
    memoro.server.script(
        "CreateMemory",
        Failure(
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "RATE_LIMITED",
            "too many calls",
            retry_after=30,
            trailers=(("grpc-retry-pushback-ms", "-1"),),
        ),
    )
    assert memoro("add", "x", "-u", "ann", code=1).stderr == (
        "error: too many calls (RATE_LIMITED); try again in 30 s\n"
    )


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [
        ("DAILY_LIMIT", "wait for the next day, or ask an operator for more"),
        ("QUOTA_EXCEEDED", "delete some, or ask an operator for more"),
    ],
)
def test_a_limit_that_no_wait_helps_against_says_what_does(memoro: CommandLine, reason: str, remedy: str) -> None:
    memoro.server.script("CreateMemory", Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, reason, "no more"))
    told = memoro("add", "x", "-u", "ann", code=1).stderr
    assert told == f"error: no more ({reason}); {remedy}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("add", "-u", "ann"),
        ("add", "x"),
        ("add", "x", "-u", "ann", "--metadata", "{"),
        ("add", "x", "-u", "ann", "--metadata", "[]"),
        ("add", "x", "-u", "ann", "--occurred-at", "yesterday"),
        ("add", "x", "-u", "ann", "--priority", "soon"),
        ("add", "x", "-u", "ann", "--endpoint", "a b"),
        ("add", "x", "-u", "ann", "--ca-file", "/nowhere.pem"),
        ("add", "x", "-u", "ann", "--conversation", "/nowhere.json"),
        ("jobs", "list", "--state", "unknown"),
        ("jobs", "watch", "j1", "--state", "failed"),
        ("admin", "clear"),
        ("admin", "requeue", "--since", "yesterday"),
        ("admin", "requeue", "--limit", "10001"),
        ("forget",),
    ],
)
def test_mistakes_in_the_arguments_are_refused_before_any_call(memoro: CommandLine, arguments: tuple[str, ...]) -> None:
    assert memoro(*arguments, code=2).stderr
    assert not memoro.server.calls


def test_help_shows_no_key(memoro: CommandLine) -> None:
    for arguments in ((), ("add",), ("jobs", "watch"), ("admin", "keys", "create"), ("demo",)):
        assert "mk_cli" not in memoro(*arguments, "--help").output
