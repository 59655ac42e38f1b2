"""A call's trace is found again in the lines of the worker that runs its job."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc.aio
import pytest

from memoro.v1 import memory_service_pb2 as pb
from memoro_core.clock import SystemClock
from memoro_core.embedded.ports import free_port
from memoro_core.ids import parse_id
from memoro_core.settings import Settings
from memoro_core.tenancy.bootstrap import Bootstrap
from memoro_core.tenancy.model import DEFAULT_SCOPES
from tests.support.deployment import Caller
from tests.support.domain import Domain, fresh_name
from tests.support.jobs import until
from tests.support.processes import lines_of, running

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


@pytest.mark.parametrize("header", [PARENT, "not-a-trace", None])
async def test_server_and_worker_log_one_trace_and_one_job(
    domain: Domain, settings: Settings, tmp_path: Path, header: str | None
) -> None:
    server_log, worker_log = tmp_path / "server", tmp_path / "worker"
    port = free_port()
    bootstrap = Bootstrap(domain.tenancy_store, SystemClock())
    tenant = await bootstrap.tenant(fresh_name(), "A test's")
    key = await bootstrap.key(tenant, "A test's", DEFAULT_SCOPES)
    server = running(
        "memoro_server", settings, server_log, MEMORO_GRPC_PORT=str(port), MEMORO_SERVER_OPS_PORT=str(free_port())
    )
    worker = running("memoro_worker", settings, worker_log, MEMORO_WORKER_OPS_PORT="0")
    async with server, worker, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        async with asyncio.timeout(60):
            await channel.channel_ready()
        caller = Caller(channel, tenant.id, key)
        metadata = [*caller.metadata, *((("traceparent", header),) if header else ())]
        request = pb.CreateMemoryRequest(user_id="alice", text="I moved to Lyon last week.")
        outcome = await caller.call("MemoryService/CreateMemory", request, metadata=metadata)
        job_id = pb.CreateMemoryResponse.FromString(outcome.response).job.id

        async def ended() -> bool:
            return bool(lines_of(worker_log, event="attempt_ended", job_id=job_id))

        await until(ended)
        (call,) = lines_of(server_log, event="call", job_id=job_id)
        (end,) = lines_of(worker_log, event="attempt_ended", job_id=job_id)
    trace_id = TRACE if header == PARENT else None
    assert (call.get("trace_id"), end.get("trace_id"), end["state"]) == (trace_id, trace_id, "SUCCEEDED")
    async with domain.database.tenant_tx(tenant.id) as connection:
        stored = await connection.fetchval("SELECT trace_parent FROM jobs WHERE job_id = $1", parse_id(job_id))
    assert stored == (PARENT if trace_id else None)
