"""Tenants and keys, and how soon they take effect."""

from __future__ import annotations

import asyncio
import time
from uuid import UUID

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from memoro.v1 import admin_pb2
from memoro.v1 import admin_service_pb2 as pb
from memoro.v1 import memory_service_pb2 as memory
from memoro_core.ids import TenantId
from tests.support.deployment import Caller, Deployment
from tests.support.domain import fresh_name

LIST = memory.ListMemoriesRequest()
EFFECTIVE_WITHIN = 1.0


async def _refused_within(caller: Caller, seconds: float) -> str:
    """The reason of the first refusal."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        outcome = await caller.call("MemoryService/ListMemories", LIST)
        if outcome.code is not grpc.StatusCode.OK:
            return str(outcome.info.reason)
        await asyncio.sleep(0.05)
    raise AssertionError(f"still served after {seconds} s")


async def test_a_tenant_and_its_key_from_first_to_last(deployment: Deployment) -> None:
    operator = await deployment.operator()
    name = fresh_name()
    create = pb.CreateTenantRequest(request_id=name, name=name, tier="pro")
    tenant = (await operator.ask("AdminService/CreateTenant", create)).tenant
    assert (tenant.name, tenant.display_name, tenant.tier) == (name, name, "pro")
    assert tenant.state == admin_pb2.TENANT_STATE_ACTIVE
    assert (await operator.ask("AdminService/CreateTenant", create)).tenant.id == tenant.id
    taken = await operator.call("AdminService/CreateTenant", pb.CreateTenantRequest(name=name))
    assert (taken.code, taken.info.reason) == (grpc.StatusCode.ALREADY_EXISTS, "TENANT_EXISTS")

    make_key = pb.CreateApiKeyRequest(request_id="key", tenant_id=tenant.id, display_name="first")
    made = await operator.ask("AdminService/CreateApiKey", make_key)
    assert list(made.api_key.scopes) == [
        admin_pb2.SCOPE_READ,
        admin_pb2.SCOPE_WRITE,
        admin_pb2.SCOPE_JOBS,
        admin_pb2.SCOPE_BILLING,
    ]
    again = await operator.ask("AdminService/CreateApiKey", make_key)
    assert (again.api_key.id, again.secret) == (made.api_key.id, "")
    caller = Caller(deployment.channel, TenantId(UUID(tenant.id)), made.secret)
    assert (await caller.call("MemoryService/ListMemories", LIST)).code is grpc.StatusCode.OK

    revoke = pb.RevokeApiKeyRequest(tenant_id=tenant.id, api_key_id=made.api_key.id)
    revoked = (await operator.ask("AdminService/RevokeApiKey", revoke)).api_key
    assert await _refused_within(caller, EFFECTIVE_WITHIN) == "CREDENTIALS_INVALID"
    assert (await operator.ask("AdminService/RevokeApiKey", revoke)).api_key.revoke_time == revoked.revoke_time
    listed = await operator.ask("AdminService/ListApiKeys", pb.ListApiKeysRequest(tenant_id=tenant.id))
    assert [(key.id, key.HasField("revoke_time")) for key in listed.api_keys] == [(made.api_key.id, True)]


async def test_a_suspended_tenant_is_refused_until_it_is_resumed(deployment: Deployment) -> None:
    operator, caller = await deployment.operator(), await deployment.caller()
    tenant_id = str(caller.tenant_id)
    assert (await caller.call("MemoryService/ListMemories", LIST)).code is grpc.StatusCode.OK
    suspended = await operator.ask("AdminService/SuspendTenant", pb.SuspendTenantRequest(tenant_id=tenant_id))
    assert suspended.tenant.state == admin_pb2.TENANT_STATE_SUSPENDED
    assert await _refused_within(caller, EFFECTIVE_WITHIN) == "TENANT_SUSPENDED"
    await operator.ask("AdminService/ResumeTenant", pb.ResumeTenantRequest(tenant_id=tenant_id))
    await asyncio.sleep(deployment.container.settings.auth_cache_ttl)
    assert (await caller.call("MemoryService/ListMemories", LIST)).code is grpc.StatusCode.OK


async def test_a_tenant_changes_only_from_the_etag_that_was_read(deployment: Deployment) -> None:
    operator, caller = await deployment.operator(), await deployment.caller()
    tenant_id = str(caller.tenant_id)
    read = (await operator.ask("AdminService/GetTenant", pb.GetTenantRequest(tenant_id=tenant_id))).tenant
    change = pb.UpdateTenantRequest(tenant_id=tenant_id, display_name="New", etag=read.etag)
    changed = (await operator.ask("AdminService/UpdateTenant", change)).tenant
    assert (changed.display_name, changed.tier) == ("New", read.tier)
    stale = await operator.call("AdminService/UpdateTenant", change)
    assert (stale.code, stale.info.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")


async def test_a_tier_that_nobody_made_is_not_found(deployment: Deployment) -> None:
    operator, caller = await deployment.operator(), await deployment.caller()
    for method, request in {
        "CreateTenant": pb.CreateTenantRequest(name=fresh_name(), tier="gold-x"),
        "UpdateTenant": pb.UpdateTenantRequest(tenant_id=str(caller.tenant_id), tier="gold-x"),
        "PauseQueue": pb.PauseQueueRequest(queue="gold-x"),
        "ResumeQueue": pb.ResumeQueueRequest(queue="gold-x"),
        "ClearQueue": pb.ClearQueueRequest(queue="gold-x"),
    }.items():
        outcome = await operator.call(f"AdminService/{method}", request)
        assert (outcome.code, outcome.info.reason) == (grpc.StatusCode.NOT_FOUND, "TIER_NOT_FOUND"), method
        assert outcome.message == "no tier gold-x"


async def test_tenants_are_listed_by_name_page_by_page(deployment: Deployment) -> None:
    operator = await deployment.operator()
    for _ in range(3):
        await deployment.caller()
    names: list[str] = []
    token = ""
    while True:
        page = await operator.ask("AdminService/ListTenants", pb.ListTenantsRequest(page_size=2, page_token=token))
        names += [tenant.name for tenant in page.tenants]
        token = page.next_page_token
        if not token:
            break
    assert len(names) >= 4
    assert names == sorted(set(names))


async def test_a_key_can_not_begin_in_the_past_or_for_nobody(deployment: Deployment) -> None:
    operator, caller = await deployment.operator(), await deployment.caller()
    past = pb.CreateApiKeyRequest(tenant_id=str(caller.tenant_id), expire_time=Timestamp(seconds=1))
    outcome = await operator.call("AdminService/CreateApiKey", past)
    assert (outcome.info.reason, outcome.message) == ("INVALID_FIELD", "expire_time: must be in the future")
    admin_key = pb.CreateApiKeyRequest(tenant_id=str(caller.tenant_id), scopes=[admin_pb2.SCOPE_ADMIN])
    assert (await operator.call("AdminService/CreateApiKey", admin_key)).info.reason == "INVALID_FIELD"
    nobody = pb.CreateApiKeyRequest(tenant_id="01a2012f-a9df-728a-a291-38569757a412")
    assert (await operator.call("AdminService/CreateApiKey", nobody)).info.reason == "TENANT_NOT_FOUND"
