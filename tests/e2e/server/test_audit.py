"""The audit log through the server."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import grpc
import pytest
from google.protobuf.message_factory import GetMessageClass
from structlog.testing import capture_logs

from memoro.v1 import admin_pb2
from memoro.v1 import admin_service_pb2 as pb
from memoro.v1 import webhooks_service_pb2 as webhooks
from memoro_core.errors import unavailable
from memoro_core.tenancy.model import Scope
from memoro_server.policy import POLICIES, is_audited
from tests.support.deployment import METHODS, Caller, Deployment
from tests.support.domain import fresh_name

AUDITED = [path for path in METHODS if is_audited(path, POLICIES[path])]


async def events(operator: Caller, **which: Any) -> list[Any]:
    answer = await operator.ask("AdminService/ListAuditEvents", pb.ListAuditEventsRequest(**which))
    return list(answer.events)


async def test_every_attempt_of_a_stranger_is_written(deployment: Deployment) -> None:
    stranger, operator = await deployment.caller((Scope.READ,)), await deployment.operator()
    for path in AUDITED:
        request = GetMessageClass(METHODS[path].input_type)()
        outcome = await stranger.call(path.removeprefix("/memoro.v1."), request)
        assert outcome.info.reason == "SCOPE_MISSING", path
    recent = [one for one in await events(operator, page_size=500) if one.actor_tenant_id == str(stranger.tenant_id)]
    assert [f"/memoro.v1.{one.method}" for one in reversed(recent)] == AUDITED
    assert {(one.code, one.reason) for one in recent} == {("PERMISSION_DENIED", "SCOPE_MISSING")}


async def test_what_a_suspended_tenant_tries_is_written(deployment: Deployment) -> None:
    operator, caller = await deployment.operator(), await deployment.caller()
    tenant_id = str(caller.tenant_id)
    await operator.ask("AdminService/SuspendTenant", pb.SuspendTenantRequest(tenant_id=tenant_id))
    create = webhooks.CreateWebhookEndpointRequest(url="https://hooks.invalid/memoro")
    with capture_logs() as logs:
        async with asyncio.timeout(5):
            while (outcome := await caller.call("WebhooksService/CreateWebhookEndpoint", create)).info.reason != (
                "TENANT_SUSPENDED"
            ):
                await asyncio.sleep(0.02)
    assert outcome.code is grpc.StatusCode.PERMISSION_DENIED
    last = (await events(operator, tenant_id=tenant_id))[0]
    assert (last.method, last.code, last.reason, last.actor_tenant_id) == (
        "WebhooksService/CreateWebhookEndpoint",
        "PERMISSION_DENIED",
        "TENANT_SUSPENDED",
        tenant_id,
    )
    assert last.actor_api_key_id
    # The server's log says who it was, too.
    [line] = [line for line in logs if line["event"] == "call" and line["reason"] == "TENANT_SUSPENDED"]
    assert (line["tenant_id"], line["api_key_id"]) == (tenant_id, last.actor_api_key_id)


async def test_reads_are_not_written(deployment: Deployment) -> None:
    operator, caller = await deployment.operator(), await deployment.caller()
    tenant_id = str(caller.tenant_id)
    for method, request in (
        ("AdminService/GetTenant", pb.GetTenantRequest(tenant_id=tenant_id)),
        ("AdminService/ListApiKeys", pb.ListApiKeysRequest(tenant_id=tenant_id)),
        ("AdminService/VerifyLedger", pb.VerifyLedgerRequest(tenant_id=tenant_id)),
    ):
        await operator.ask(method, request)
    assert await events(operator, tenant_id=tenant_id) == []


async def test_the_life_of_a_key_is_written_without_its_secrets(deployment: Deployment) -> None:
    operator, caller = await deployment.operator(), await deployment.caller()
    tenant_id = str(caller.tenant_id)
    make = pb.CreateApiKeyRequest(tenant_id=tenant_id, display_name="hunter2", scopes=[admin_pb2.SCOPE_READ])
    made = await operator.ask("AdminService/CreateApiKey", make)
    rotate = pb.RotateApiKeyRequest(tenant_id=tenant_id, api_key_id=made.api_key.id, request_id="rotate-1")
    rotated = await operator.ask("AdminService/RotateApiKey", rotate)
    revoke = pb.RevokeApiKeyRequest(tenant_id=tenant_id, api_key_id=rotated.api_key.id)
    await operator.ask("AdminService/RevokeApiKey", revoke)
    gone = await operator.call(
        "AdminService/RotateApiKey", pb.RotateApiKeyRequest(tenant_id=tenant_id, api_key_id=rotated.api_key.id)
    )
    assert gone.info.reason == "API_KEY_NOT_FOUND"
    told = await events(operator, tenant_id=tenant_id)
    assert [(one.method.partition("/")[2], one.code, one.reason) for one in reversed(told)] == [
        ("CreateApiKey", "OK", ""),
        ("RotateApiKey", "OK", ""),
        ("RevokeApiKey", "OK", ""),
        ("RotateApiKey", "NOT_FOUND", "API_KEY_NOT_FOUND"),
    ]
    assert all(one.actor_api_key_id and one.event_time.seconds and one.request_id for one in told)
    assert json.loads(told[2].request) == {
        "request_id": "rotate-1",
        "tenant_id": tenant_id,
        "api_key_id": made.api_key.id,
    }
    for secret in (made.secret, rotated.secret, made.secret.rsplit("_", 1)[1], "hunter2"):
        assert secret not in repr(told)


async def test_a_tenants_webhook_secrets_are_its_own_doing(deployment: Deployment) -> None:
    operator, caller = await deployment.operator(), await deployment.caller()
    url = "https://hooks.invalid/?token=hunter2"
    made = await caller.ask("WebhooksService/CreateWebhookEndpoint", webhooks.CreateWebhookEndpointRequest(url=url))
    rotate = webhooks.RotateWebhookSecretRequest(endpoint_id=made.endpoint.id)
    rotated = await caller.ask("WebhooksService/RotateWebhookSecret", rotate)
    told = await events(operator, tenant_id=str(caller.tenant_id))
    assert [one.method for one in told] == [
        "WebhooksService/RotateWebhookSecret",
        "WebhooksService/CreateWebhookEndpoint",
    ]
    assert {one.actor_tenant_id for one in told} == {str(caller.tenant_id)}
    for secret in (made.secret, rotated.secret, "hunter2"):
        assert secret not in repr(told)


async def test_pages_and_filters(deployment: Deployment) -> None:
    operator, caller = await deployment.operator(), await deployment.caller()
    tenant_id = str(caller.tenant_id)
    for _ in range(2):
        await operator.ask("AdminService/SuspendTenant", pb.SuspendTenantRequest(tenant_id=tenant_id))
        await operator.ask("AdminService/ResumeTenant", pb.ResumeTenantRequest(tenant_id=tenant_id))
    everything = await events(operator, tenant_id=tenant_id)
    assert len(everything) == 4
    first = await operator.ask(
        "AdminService/ListAuditEvents", pb.ListAuditEventsRequest(tenant_id=tenant_id, page_size=3)
    )
    rest = await events(operator, tenant_id=tenant_id, page_size=3, page_token=first.next_page_token)
    assert [*first.events, *rest] == everything
    other = pb.ListAuditEventsRequest(page_size=3, page_token=first.next_page_token)
    assert (await operator.call("AdminService/ListAuditEvents", other)).info.reason == "PAGE_TOKEN_INVALID"
    suspended = await events(operator, tenant_id=tenant_id, method="AdminService/SuspendTenant")
    assert suspended == everything[1::2]
    until = everything[1].event_time
    assert await events(operator, tenant_id=tenant_id, until_time=until) == everything[2:]
    assert await events(operator, tenant_id=tenant_id, from_time=until) == everything[:2]
    bad = await operator.call("AdminService/ListAuditEvents", pb.ListAuditEventsRequest(method="nonsense"))
    assert bad.info.reason == "INVALID_FIELD"


async def test_what_can_not_be_written_is_unavailable_and_may_be_repeated(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator = await deployment.operator()
    name = fresh_name()
    create = pb.CreateTenantRequest(request_id=name, name=name)

    async def failing(_: object) -> None:
        raise unavailable("database")

    with monkeypatch.context() as patched:
        patched.setattr(deployment.container.audit._store, "add", failing)
        outcome = await operator.call("AdminService/CreateTenant", create)
        assert (outcome.code, outcome.info.reason) == (grpc.StatusCode.UNAVAILABLE, "DEPENDENCY_UNAVAILABLE")
    assert (await operator.ask("AdminService/CreateTenant", create)).tenant.name == name


async def test_a_caller_who_goes_away_is_written(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    operator, caller = await deployment.operator(), await deployment.caller()
    tenant_id = str(caller.tenant_id)
    began = asyncio.Event()

    async def slow(*_: object, **__: object) -> None:
        began.set()
        await asyncio.sleep(60)

    monkeypatch.setattr(deployment.container.tenancy._store, "revoke_api_key", slow)
    revoke = pb.RevokeApiKeyRequest(tenant_id=tenant_id, api_key_id=tenant_id)
    calling = asyncio.create_task(operator.call("AdminService/RevokeApiKey", revoke))
    await began.wait()
    calling.cancel()
    async with asyncio.timeout(10):
        while not (told := await events(operator, tenant_id=tenant_id)):
            await asyncio.sleep(0.02)
    assert [(one.method, one.code) for one in told] == [("AdminService/RevokeApiKey", "CANCELLED")]


async def test_only_operators_read_it(deployment: Deployment) -> None:
    everything = [scope for scope in Scope if scope is not Scope.ADMIN]
    caller = await deployment.caller(everything)
    outcome = await caller.call("AdminService/ListAuditEvents", pb.ListAuditEventsRequest())
    assert outcome.info.reason == "SCOPE_MISSING"
