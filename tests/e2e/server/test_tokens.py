"""Tokens of an issuer through the server and the SDK."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from memoro import AsyncClient, MemoroError
from memoro.v1 import admin_service_pb2 as admin
from memoro.v1 import billing_pb2
from memoro.v1 import billing_service_pb2 as billing
from memoro.v1 import jobs_service_pb2 as jobs
from memoro.v1 import memory_service_pb2 as memory
from memoro.v1 import webhooks_service_pb2 as webhooks
from memoro_core.container import open_container
from memoro_core.errors import Code
from memoro_core.errors import MemoroError as CoreError
from memoro_core.settings import Settings
from tests.support.deployment import Caller, Deployment, deployed
from tests.support.domain import fresh_name
from tests.support.issuer import AUDIENCE, ISSUER, Issuer, claims, issuing, signed

LIST = memory.ListMemoriesRequest()


@pytest_asyncio.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with issuing() as running:
        yield running


@pytest.fixture
def settings(settings: Settings, issuer: Issuer) -> Settings:
    return settings.model_copy(update={"jwt_issuer": ISSUER, "jwt_audience": AUDIENCE, "jwt_jwks": issuer.url})


@pytest_asyncio.fixture
async def deployment(settings: Settings) -> AsyncIterator[Deployment]:
    async with deployed(settings) as running:
        yield running


async def _name(deployment: Deployment) -> str:
    return (await deployment.bootstrap.tenant(fresh_name(), "")).name


async def test_the_sdk_takes_a_token_for_a_key(deployment: Deployment, issuer: Issuer) -> None:
    assert issuer.asked == 1
    token = signed(claims(await _name(deployment)))
    async with AsyncClient(f"127.0.0.1:{deployment.server.port}", api_key=token) as client:
        created = await client.memories.create(user_id="ann", text="hello")
        assert (await client.memories.get(created.memory.id)).text == "hello"
        with pytest.raises(MemoroError) as caught:
            await client.jobs.cancel(created.job.id)
        assert caught.value.reason == "SCOPE_MISSING"
    bad = signed(claims("acme", aud="another"))
    async with AsyncClient(f"127.0.0.1:{deployment.server.port}", api_key=bad) as client:
        with pytest.raises(MemoroError) as caught:
            await client.memories.get(created.memory.id)
        assert (caught.value.reason, caught.value.message) == ("CREDENTIALS_INVALID", "the key is not valid")


async def test_every_service_serves_who_shows_a_token(deployment: Deployment) -> None:
    tenant = await deployment.bootstrap.tenant(fresh_name(), "")
    everything = "read write jobs billing admin"
    caller = Caller(deployment.channel, tenant.id, signed(claims(tenant.name, scope=everything)))
    endpoint = "https://hooks.invalid/memoro"
    for method, request in (
        ("MemoryService/ListMemories", LIST),
        ("JobsService/ListJobs", jobs.ListJobsRequest()),
        ("BillingService/GetBalance", billing.GetBalanceRequest()),
        ("WebhooksService/CreateWebhookEndpoint", webhooks.CreateWebhookEndpointRequest(url=endpoint)),
    ):
        await caller.ask(method, request)
    refused = await caller.call("AdminService/ListTenants", admin.ListTenantsRequest())
    assert (refused.code, refused.info.reason) == (grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING")


async def test_an_operators_token_does_what_an_operators_key_does(deployment: Deployment) -> None:
    operators = await deployment.bootstrap.operator()
    caller = Caller(deployment.channel, operators.id, signed(claims(operators.name, sub="root", scope="memoro:admin")))
    tenant = await deployment.bootstrap.tenant(fresh_name(), "")
    with capture_logs() as logs:
        await caller.ask("BillingService/AddCredits", billing.AddCreditsRequest(tenant_id=str(tenant.id), amount=7))
        await caller.ask("AdminService/PauseQueue", admin.PauseQueueRequest(queue="pro"))
        await caller.ask("AdminService/ResumeQueue", admin.ResumeQueueRequest(queue="pro"))
        budget = admin.SetBudgetRequest(scope=billing_pb2.BUDGET_SCOPE_TENANT, tenant_id=str(tenant.id), limit=7)
        await caller.ask("AdminService/SetBudget", budget)
        await caller.ask("AdminService/SendTestAlert", admin.SendTestAlertRequest())
    told = [line for line in logs if line["event"] in ("credits_added", "budget_set", "test_alert_sent", "call")]
    assert len(told) == 8
    assert all(line["subject"] == "root" and "api_key_id" not in line for line in told)


async def test_a_server_does_not_start_without_the_file_of_its_keys(settings: Settings) -> None:
    missing = settings.model_copy(update={"jwt_jwks": "/nowhere/keys.json"})
    with pytest.raises(CoreError) as caught:
        async with open_container(missing):
            pass
    assert caught.value.code is Code.FAILED_PRECONDITION
    async with open_container(missing, takes_jobs=True):
        pass


async def test_a_server_starts_while_the_issuer_is_away(settings: Settings) -> None:
    async with deployed(settings.model_copy(update={"jwt_jwks": "http://127.0.0.1:9/keys"})) as deployment:
        tenant = await deployment.bootstrap.tenant(fresh_name(), "")
        caller = Caller(deployment.channel, tenant.id, signed(claims(tenant.name)))
        outcome = await caller.call("MemoryService/ListMemories", LIST)
        assert (outcome.code, outcome.info.reason) == (grpc.StatusCode.UNAVAILABLE, "DEPENDENCY_UNAVAILABLE")
        assert (await (await deployment.caller()).call("MemoryService/ListMemories", LIST)).code is grpc.StatusCode.OK
