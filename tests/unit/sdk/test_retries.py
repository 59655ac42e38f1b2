"""Which calls are repeated, and how."""

from __future__ import annotations

import asyncio
import json

import grpc
import pytest

from memoro import AsyncClient, Client, MemoroError, Unavailable, methods
from memoro.v1 import (
    admin_service_pb2,
    billing_service_pb2,
    jobs_service_pb2,
    memory_pb2,
    memory_service_pb2,
    webhooks_service_pb2,
)
from memoro_server.policy import POLICIES
from tests.support.scripted_server import Failure, ScriptedServer

DOWN = Failure(grpc.StatusCode.UNAVAILABLE, "DEPENDENCY_UNAVAILABLE")
CREATED = memory_service_pb2.CreateMemoryResponse(memory=memory_pb2.Memory(id="m1"))
GOT = memory_service_pb2.GetMemoryResponse(memory=memory_pb2.Memory(id="m1"))


async def test_a_repeated_call_keeps_its_request_id(server: ScriptedServer, client: AsyncClient) -> None:
    server.script("CreateMemory", DOWN, DOWN, CREATED)
    added = await client.memories.create(user_id="ann", text="hello")
    assert added.memory.id == "m1"
    ids = [request.request_id for request in server.requests("CreateMemory")]
    assert len(ids) == 3
    assert len(set(ids)) == 1
    assert ids[0]
    await client.memories.create(user_id="ann", text="hello")
    assert server.requests("CreateMemory")[-1].request_id != ids[0]


def test_the_blocking_client_repeats_too(server: ScriptedServer, blocking_client: Client) -> None:
    server.script("CreateMemory", DOWN, CREATED)
    blocking_client.memories.create(user_id="ann", text="hello")
    first, second = server.requests("CreateMemory")
    assert first == second


async def test_a_call_outlasts_the_restart_of_a_server(server: ScriptedServer, client: AsyncClient) -> None:
    server.script("GetMemory", GOT)
    await client.memories.get("m1")
    server.stop()
    call = asyncio.ensure_future(client.memories.get("m1"))
    await asyncio.sleep(0.3)
    server.start()
    assert (await call).id == "m1"


async def test_other_failures_are_not_repeated(server: ScriptedServer, client: AsyncClient) -> None:
    server.script("CreateMemory", Failure(grpc.StatusCode.INTERNAL))
    with pytest.raises(MemoroError):
        await client.memories.create(user_id="ann", text="hello")
    server.script("CreateApiKey", DOWN)
    with pytest.raises(Unavailable):
        await client.admin.keys.create("t1")
    assert [call.method for call in server.calls] == ["CreateMemory", "CreateApiKey"]


def test_the_table_has_every_method_with_its_messages() -> None:
    described = {
        f"/{service.full_name}/{method.name}": (method.input_type.full_name, method.output_type.full_name)
        for module in (
            *(memory_service_pb2, jobs_service_pb2, billing_service_pb2, admin_service_pb2, webhooks_service_pb2),
        )
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    table = {
        method.path: (method.request.DESCRIPTOR.full_name, method.response.DESCRIPTOR.full_name)
        for method in methods.METHODS
    }
    assert table == described


def test_the_table_agrees_with_the_servers_policy() -> None:
    for method in methods.METHODS:
        policy = POLICIES[method.path]
        assert method.retry == (policy.idempotent and not policy.streaming), method.path
        assert method.deadline <= policy.longest_deadline, method.path
    assert POLICIES[methods.CREATE_MEMORY.path].longest_deadline >= methods.SYNC_DEADLINE


def test_the_service_config_names_what_is_repeated() -> None:
    [config] = json.loads(methods.service_config())["methodConfig"]
    named = {f"/{name['service']}/{name['method']}" for name in config["name"]}
    assert named == {method.path for method in methods.METHODS if method.retry}
    assert set(config["retryPolicy"]["retryableStatusCodes"]) == {"UNAVAILABLE"}
