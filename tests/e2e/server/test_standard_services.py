"""Health and reflection, for clients that know nothing of the contract."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from pydantic import PostgresDsn

from memoro.v1 import memory_service_pb2
from memoro_core.settings import Settings
from tests.support.deployment import Deployment, deployed
from tests.support.stacks import StackFactory

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICES = tuple(f"memoro.v1.{name}Service" for name in ("Memory", "Jobs", "Billing", "Admin", "Webhooks"))


def health_of(deployment: Deployment) -> Any:
    return HealthStub(deployment.channel)


@pytest.mark.parametrize("service", ["", *SERVICES])
async def test_every_service_serves(deployment: Deployment, service: str) -> None:
    answer = await health_of(deployment).Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
    assert answer.status == SERVING


async def test_an_unknown_service_is_not_found(deployment: Deployment) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await health_of(deployment).Check(health_pb2.HealthCheckRequest(service="memoro.v1.Nothing"), timeout=5)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_health_follows_the_database(settings: Settings, stack_factory: StackFactory) -> None:
    stack = await stack_factory()
    own = {"database_url": PostgresDsn(stack.database_url), "redis_url": stack.redis_url}
    async with deployed(settings.model_copy(update=own)) as deployment:
        caller = await deployment.caller()
        watching = health_of(deployment).Watch(health_pb2.HealthCheckRequest(service=SERVICES[0]), timeout=60)
        assert (await watching.read()).status == SERVING
        await stack.postgres.stop()
        assert (await watching.read()).status == NOT_SERVING
        outcome = await caller.call("MemoryService/ListMemories", memory_service_pb2.ListMemoriesRequest())
        assert (outcome.code, outcome.info.reason) == (grpc.StatusCode.UNAVAILABLE, "DEPENDENCY_UNAVAILABLE")
        await stack.postgres.start()
        assert (await watching.read()).status == SERVING
        await caller.ask("MemoryService/ListMemories", memory_service_pb2.ListMemoriesRequest())
        watching.cancel()


def _with_reflection_only(target: str, key: str) -> dict[str, Any]:
    """What a generic client does: it asks the server what there is, and builds its messages from that."""
    with grpc.insecure_channel(target) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        pool = DescriptorPool(database)
        service = pool.FindServiceByName("memoro.v1.MemoryService")
        results: dict[str, Any] = {"services": set(database.get_services())}

        def call(name: str, **fields: Any) -> Any:
            method = service.methods_by_name[name]
            invoke: Any = channel.unary_unary(
                f"/{service.full_name}/{name}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=GetMessageClass(method.output_type).FromString,
            )
            request = GetMessageClass(method.input_type)(**fields)
            return invoke(request, metadata=(("authorization", f"Bearer {key}"),), timeout=10)

        results["created"] = call("CreateMemory", user_id="ann", text="I live in Oslo.")
        results["found"] = call("SearchMemories", user_id="ann", query="Oslo")
        jobs = pool.FindServiceByName("memoro.v1.JobsService").methods_by_name["WatchJob"]
        watch: Any = channel.unary_stream(
            "/memoro.v1.JobsService/WatchJob",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(jobs.output_type).FromString,
        )
        request = GetMessageClass(jobs.input_type)(job_id=results["created"].job.id)
        stream = watch(request, metadata=(("authorization", f"Bearer {key}"),), timeout=10)
        results["watched"] = next(stream)
        stream.cancel()
        return results


async def test_reflection_is_all_that_a_client_needs(deployment: Deployment) -> None:
    caller = await deployment.caller()
    target = f"127.0.0.1:{deployment.server.port}"
    results = await asyncio.to_thread(_with_reflection_only, target, caller.key)
    assert {*SERVICES, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"} == results["services"]
    assert [hit.memory.id for hit in results["found"].hits] == [results["created"].memory.id]
    assert results["watched"].snapshot.id == results["created"].job.id


async def test_reflection_can_be_turned_off(settings: Settings) -> None:
    async with deployed(settings.model_copy(update={"reflection": False})) as deployment:
        start: Any = deployment.channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await start(iter([b""]), timeout=5).read()
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
