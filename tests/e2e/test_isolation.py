"""Nothing of one tenant is there for another: every method of the contract, tried with the other's key.

A method without a row in the table fails here, so that none can be added without saying how it keeps tenants apart.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from memoro.v1 import admin_pb2, billing_pb2, memory_pb2
from memoro.v1 import admin_service_pb2 as admin
from memoro.v1 import billing_service_pb2 as billing
from memoro.v1 import jobs_service_pb2 as jobs
from memoro.v1 import memory_service_pb2 as pb
from memoro.v1 import webhooks_service_pb2 as webhooks
from memoro_core.embedded.stack import Stack
from memoro_core.settings import Settings
from memoro_core.tenancy.model import Scope
from memoro_server.policy import POLICIES
from tests.support.deployment import LOADING, METHODS, Caller, Deployment, deployed
from tests.support.interception import Outcome

pytestmark = pytest.mark.asyncio(loop_scope="module")

USER = "john"
CONVERSATION = "talk"
REQUEST_ID = "the-same-id"
TEXT = "John Doe bought an iPhone 15 from Apple Store. He works at TechCorp."


@dataclass(frozen=True)
class Things:
    """What the first tenant has."""

    tenant_id: str
    memory_id: str
    message_id: str
    job_id: str
    entity_id: str
    entity_name: str
    memories_token: str
    resume_token: str
    feed_token: str
    ledger_token: str
    endpoint_id: str
    event_id: str


@dataclass(frozen=True)
class Row:
    """How a method is tried: with which request, and what the stranger must be told."""

    request: Callable[[Things], Message]
    verdict: Callable[[Outcome, Any, Things], None]


def not_found(reason: str) -> Callable[[Outcome, Any, Things], None]:
    """NOT_FOUND, worded as for a thing that exists nowhere."""

    def verdict(outcome: Outcome, response: Any, things: Things) -> None:
        assert (outcome.code, outcome.info.reason) == (grpc.StatusCode.NOT_FOUND, reason)

    return verdict


def nothing(field: str) -> Callable[[Outcome, Any, Things], None]:
    """An answer that holds nothing."""

    def verdict(outcome: Outcome, response: Any, things: Things) -> None:
        assert outcome.code is grpc.StatusCode.OK, outcome
        assert not getattr(response, field)
        assert response.ByteSize() == 0

    return verdict


def denied(outcome: Outcome, response: Any, things: Things) -> None:
    """No key of a tenant may administer, whatever it asks for."""
    assert (outcome.code, outcome.info.reason) == (grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING")


def a_memory_of_its_own(outcome: Outcome, response: Any, things: Things) -> None:
    """Neither the same names nor the same request id reach the first tenant's memory."""
    assert outcome.code is grpc.StatusCode.OK, outcome
    assert response.memory.id != things.memory_id
    assert response.job.id != things.job_id


def memories_of_its_own(outcome: Outcome, response: Any, things: Things) -> None:
    assert outcome.code is grpc.StatusCode.OK, outcome
    assert response.results[0].created.memory.id not in {"", things.memory_id}


def a_conversation_of_its_own(outcome: Outcome, response: Any, things: Things) -> None:
    """The same name is another conversation: its positions begin at 0."""
    assert outcome.code is grpc.StatusCode.OK, outcome
    assert [(it.position, it.id != things.message_id) for it in response.memories] == [(0, True)]


def an_endpoint_of_its_own(outcome: Outcome, response: Any, things: Things) -> None:
    assert outcome.code is grpc.StatusCode.OK, outcome
    assert response.endpoint.id not in {"", things.endpoint_id}


def nothing_under_way(outcome: Outcome, response: Any, things: Things) -> None:
    """No snapshot, though the first tenant has a job that waits: at once the heartbeat that ends the snapshots."""
    assert outcome.code is grpc.StatusCode.OK, outcome
    assert response.HasField("heartbeat")


def a_balance_of_its_own(outcome: Outcome, response: Any, things: Things) -> None:
    """Empty, whatever the first tenant was given."""
    assert outcome.code is grpc.StatusCode.OK, outcome
    assert response.balance == billing_pb2.Balance(tenant_id=response.balance.tenant_id)
    assert response.balance.tenant_id not in {"", things.tenant_id}


def an_estimate_of_its_own(outcome: Outcome, response: Any, things: Things) -> None:
    assert outcome.code is grpc.StatusCode.OK, outcome
    assert response.lines
    assert response.available == 0


def the_same_for_all(outcome: Outcome, response: Any, things: Things) -> None:
    """Prices are the deployment's."""
    assert outcome.code is grpc.StatusCode.OK, outcome
    assert response.prices


def _create(text: str = TEXT) -> pb.CreateMemoryRequest:
    return pb.CreateMemoryRequest(request_id=REQUEST_ID, user_id=USER, text=text)


def _conversation() -> pb.AddConversationRequest:
    return pb.AddConversationRequest(user_id=USER, conversation_id=CONVERSATION, messages=[pb.Message(text="Hello!")])


MEMORY, JOBS, ADMIN = "/memoro.v1.MemoryService/", "/memoro.v1.JobsService/", "/memoro.v1.AdminService/"
BILLING, WEBHOOKS = "/memoro.v1.BillingService/", "/memoro.v1.WebhooksService/"
TENANT, USERS = billing_pb2.BUDGET_SCOPE_TENANT, billing_pb2.BUDGET_SCOPE_USER
EMBED = billing_pb2.AI_OPERATION_EMBED
NO_ENDPOINT, URL = not_found("WEBHOOK_NOT_FOUND"), "https://hooks.invalid/memoro"
NO_MEMORY, NO_JOB = not_found("MEMORY_NOT_FOUND"), not_found("JOB_NOT_FOUND")
TABLE: dict[str, Row] = {
    MEMORY + "CreateMemory": Row(lambda a: _create(), a_memory_of_its_own),
    MEMORY + "BatchCreateMemories": Row(
        lambda a: pb.BatchCreateMemoriesRequest(requests=[_create()]), memories_of_its_own
    ),
    MEMORY + "AddConversation": Row(lambda a: _conversation(), a_conversation_of_its_own),
    MEMORY + "GetMemory": Row(lambda a: pb.GetMemoryRequest(memory_id=a.memory_id), NO_MEMORY),
    MEMORY + "ListMemories": Row(lambda a: pb.ListMemoriesRequest(user_id=USER), nothing("memories")),
    MEMORY + "UpdateMemory": Row(lambda a: pb.UpdateMemoryRequest(memory_id=a.memory_id, text="mine"), NO_MEMORY),
    MEMORY + "DeleteMemory": Row(lambda a: pb.DeleteMemoryRequest(memory_id=a.memory_id), NO_MEMORY),
    MEMORY + "SearchMemories": Row(
        lambda a: pb.SearchMemoriesRequest(user_id=USER, query="What did John Doe buy?"), nothing("hits")
    ),
    MEMORY + "ListEntities": Row(lambda a: pb.ListEntitiesRequest(user_id=USER), nothing("entities")),
    MEMORY + "GetEntity": Row(lambda a: pb.GetEntityRequest(entity_id=a.entity_id), not_found("ENTITY_NOT_FOUND")),
    MEMORY + "TraverseGraph": Row(
        lambda a: pb.TraverseGraphRequest(
            user_id=USER, entity_ids=[a.entity_id], entity_names=[a.entity_name], include_memories=True
        ),
        not_found("ENTITY_NOT_FOUND"),
    ),
    JOBS + "GetJob": Row(lambda a: jobs.GetJobRequest(job_id=a.job_id), NO_JOB),
    JOBS + "ListJobs": Row(lambda a: jobs.ListJobsRequest(user_id=USER), nothing("jobs")),
    JOBS + "WatchJob": Row(lambda a: jobs.WatchJobRequest(job_id=a.job_id), NO_JOB),
    JOBS + "WatchJobs": Row(lambda a: jobs.WatchJobsRequest(user_id=USER), nothing_under_way),
    JOBS + "CancelJob": Row(lambda a: jobs.CancelJobRequest(job_id=a.job_id), NO_JOB),
    JOBS + "RetryJob": Row(lambda a: jobs.RetryJobRequest(job_id=a.job_id), NO_JOB),
    WEBHOOKS + "CreateWebhookEndpoint": Row(
        lambda a: webhooks.CreateWebhookEndpointRequest(request_id=REQUEST_ID, url=URL), an_endpoint_of_its_own
    ),
    WEBHOOKS + "ListWebhookEndpoints": Row(lambda a: webhooks.ListWebhookEndpointsRequest(), nothing("endpoints")),
    WEBHOOKS + "DeleteWebhookEndpoint": Row(
        lambda a: webhooks.DeleteWebhookEndpointRequest(endpoint_id=a.endpoint_id), NO_ENDPOINT
    ),
    WEBHOOKS + "RotateWebhookSecret": Row(
        lambda a: webhooks.RotateWebhookSecretRequest(endpoint_id=a.endpoint_id), NO_ENDPOINT
    ),
    WEBHOOKS + "ListDeliveries": Row(
        lambda a: webhooks.ListDeliveriesRequest(endpoint_id=a.endpoint_id), nothing("deliveries")
    ),
    WEBHOOKS + "RedeliverEvent": Row(
        lambda a: webhooks.RedeliverEventRequest(event_id=a.event_id, endpoint_id=a.endpoint_id),
        not_found("DELIVERY_NOT_FOUND"),
    ),
    BILLING + "GetBalance": Row(lambda a: billing.GetBalanceRequest(), a_balance_of_its_own),
    BILLING + "AddCredits": Row(lambda a: billing.AddCreditsRequest(tenant_id=a.tenant_id, amount=1), denied),
    BILLING + "SetBalance": Row(lambda a: billing.SetBalanceRequest(tenant_id=a.tenant_id, available=0), denied),
    BILLING + "ListLedgerEntries": Row(lambda a: billing.ListLedgerEntriesRequest(), nothing("entries")),
    BILLING + "GetUsage": Row(lambda a: billing.GetUsageRequest(user_id=USER), nothing("rows")),
    BILLING + "EstimateCost": Row(
        lambda a: billing.EstimateCostRequest(create_memory=_create()), an_estimate_of_its_own
    ),
    BILLING + "ListPrices": Row(lambda a: billing.ListPricesRequest(), the_same_for_all),
    ADMIN + "CreateTenant": Row(lambda a: admin.CreateTenantRequest(name="never-made"), denied),
    ADMIN + "GetTenant": Row(lambda a: admin.GetTenantRequest(tenant_id=a.tenant_id), denied),
    ADMIN + "ListTenants": Row(lambda a: admin.ListTenantsRequest(), denied),
    ADMIN + "UpdateTenant": Row(lambda a: admin.UpdateTenantRequest(tenant_id=a.tenant_id, tier="free"), denied),
    ADMIN + "SuspendTenant": Row(lambda a: admin.SuspendTenantRequest(tenant_id=a.tenant_id), denied),
    ADMIN + "ResumeTenant": Row(lambda a: admin.ResumeTenantRequest(tenant_id=a.tenant_id), denied),
    ADMIN + "CreateApiKey": Row(lambda a: admin.CreateApiKeyRequest(tenant_id=a.tenant_id), denied),
    ADMIN + "ListApiKeys": Row(lambda a: admin.ListApiKeysRequest(tenant_id=a.tenant_id), denied),
    ADMIN + "RevokeApiKey": Row(
        lambda a: admin.RevokeApiKeyRequest(tenant_id=a.tenant_id, api_key_id=a.memory_id), denied
    ),
    ADMIN + "RotateApiKey": Row(
        lambda a: admin.RotateApiKeyRequest(tenant_id=a.tenant_id, api_key_id=a.memory_id), denied
    ),
    ADMIN + "ListTiers": Row(lambda a: admin.ListTiersRequest(), denied),
    ADMIN + "PutTier": Row(
        lambda a: admin.PutTierRequest(
            tier=admin_pb2.Tier(name="free", weight=1, tenant_in_flight=1, user_in_flight=1, shadow=True)
        ),
        denied,
    ),
    ADMIN + "ListAuditEvents": Row(lambda a: admin.ListAuditEventsRequest(tenant_id=a.tenant_id), denied),
    ADMIN + "GetWorkers": Row(lambda a: admin.GetWorkersRequest(), denied),
    ADMIN + "PauseQueue": Row(lambda a: admin.PauseQueueRequest(), denied),
    ADMIN + "ResumeQueue": Row(lambda a: admin.ResumeQueueRequest(), denied),
    ADMIN + "RequeueJobs": Row(lambda a: admin.RequeueJobsRequest(tenant_id=a.tenant_id), denied),
    ADMIN + "ClearQueue": Row(lambda a: admin.ClearQueueRequest(tenant_id=a.tenant_id, deferred=True), denied),
    ADMIN + "TriggerProcessing": Row(lambda a: admin.TriggerProcessingRequest(tenant_id=a.tenant_id), denied),
    ADMIN + "GetAiCosts": Row(lambda a: admin.GetAiCostsRequest(tenant_id=a.tenant_id), denied),
    ADMIN + "GetCircuitBreaker": Row(lambda a: admin.GetCircuitBreakerRequest(tenant_id=a.tenant_id), denied),
    ADMIN + "ResetCircuitBreaker": Row(
        lambda a: admin.ResetCircuitBreakerRequest(scope=USERS, tenant_id=a.tenant_id, user_id=USER), denied
    ),
    ADMIN + "SetBudget": Row(lambda a: admin.SetBudgetRequest(scope=TENANT, tenant_id=a.tenant_id, limit=0), denied),
    ADMIN + "SetPrice": Row(lambda a: admin.SetPriceRequest(provider="openai", model="m", operation=EMBED), denied),
    ADMIN + "VerifyLedger": Row(lambda a: admin.VerifyLedgerRequest(tenant_id=a.tenant_id), denied),
    ADMIN + "DiagnoseDeployment": Row(lambda a: admin.DiagnoseDeploymentRequest(), denied),
    ADMIN + "SendTestAlert": Row(lambda a: admin.SendTestAlertRequest(message="nobody's"), denied),
}


@dataclass(frozen=True)
class Two:
    """The tenant that has things, and its things."""

    deployment: Deployment
    owner: Caller
    things: Things


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def two(stack: Stack) -> AsyncIterator[Two]:
    settings = Settings.model_validate(
        {"database_url": stack.database_url, "redis_url": stack.redis_url, "grpc_port": 0}
    )
    async with deployed(settings) as deployment:
        owner = await deployment.caller()
        yield Two(deployment, owner, await _things_of(owner, await deployment.operator()))


async def _things_of(owner: Caller, operator: Caller) -> Things:
    for _ in range(2):
        await operator.ask(
            "BillingService/AddCredits", billing.AddCreditsRequest(tenant_id=str(owner.tenant_id), amount=1_000)
        )
    entries = await owner.ask("BillingService/ListLedgerEntries", billing.ListLedgerEntriesRequest(page_size=1))
    assert entries.next_page_token
    endpoint = await owner.ask("WebhooksService/CreateWebhookEndpoint", webhooks.CreateWebhookEndpointRequest(url=URL))
    request = _create()
    request.processing_mode = memory_pb2.PROCESSING_MODE_SYNC
    made = await owner.ask("MemoryService/CreateMemory", request, timeout=LOADING)
    talk = await owner.ask("MemoryService/AddConversation", _conversation())
    entities = (await owner.ask("MemoryService/ListEntities", pb.ListEntitiesRequest(user_id=USER))).entities
    assert entities, "the owner's graph is empty, so that hiding it proves nothing"
    page = await owner.ask("MemoryService/ListMemories", pb.ListMemoriesRequest(page_size=1))
    watching = owner.stream("JobsService/WatchJob", jobs.WatchJobRequest(job_id=made.job.id))
    snapshot = await watching.read()
    watching.cancel()
    following = owner.stream("JobsService/WatchJobs", jobs.WatchJobsRequest())
    under_way = await following.read()
    assert under_way.HasField("snapshot"), "the owner has no job under way, so that hiding it proves nothing"
    following.cancel()
    usage = await owner.ask("BillingService/GetUsage", billing.GetUsageRequest(user_id=USER))
    assert usage.rows, "the owner has used nothing, so that hiding it proves nothing"
    # The event that the job above has ended; no worker runs, so it stays to be sent.
    deliveries = await owner.ask("WebhooksService/ListDeliveries", webhooks.ListDeliveriesRequest())
    return Things(
        tenant_id=str(owner.tenant_id),
        memory_id=made.memory.id,
        message_id=talk.memories[0].id,
        job_id=made.job.id,
        entity_id=entities[0].id,
        entity_name=entities[0].name,
        memories_token=page.next_page_token,
        resume_token=snapshot.resume_token,
        feed_token=under_way.resume_token,
        ledger_token=entries.next_page_token,
        endpoint_id=endpoint.endpoint.id,
        event_id=deliveries.deliveries[0].event_id,
    )


async def test_every_method_of_the_contract_has_a_row() -> None:
    assert TABLE.keys() == METHODS.keys()


@pytest.mark.parametrize("path", METHODS)
async def test_a_stranger_finds_nothing(two: Two, path: str) -> None:
    row = TABLE[path]
    method = path.removeprefix("/memoro.v1.")
    before = await _everything_of(two.owner)
    # With every scope that a tenant's key can have.
    stranger = await two.deployment.caller()
    outcome = await stranger.call(method, _request(row, two.things))
    response = GetMessageClass(METHODS[path].output_type).FromString(outcome.response)
    row.verdict(outcome, response, two.things)
    for value in (two.things.memory_id, two.things.message_id, two.things.job_id, TEXT):
        if not _said_by_the_stranger(row, two.things, value):
            assert value not in repr(outcome)
    assert await _everything_of(two.owner) == before


def _request(row: Row, things: Things) -> Message:
    """The row's request, with the id that the first tenant has used for another one: here it is a new one."""
    request: Any = row.request(things)
    if "request_id" in request.DESCRIPTOR.fields_by_name:
        request.request_id = REQUEST_ID
    return request  # type: ignore[no-any-return]


def _said_by_the_stranger(row: Row, things: Things, value: str) -> bool:
    return value.encode() in row.request(things).SerializeToString()


async def _everything_of(owner: Caller) -> list[bytes]:
    """All that a tenant can read of its own, to see that nobody has changed it."""
    answers = [
        await owner.ask("MemoryService/ListMemories", pb.ListMemoriesRequest()),
        await owner.ask("MemoryService/ListEntities", pb.ListEntitiesRequest()),
        await owner.ask("JobsService/ListJobs", jobs.ListJobsRequest()),
        await owner.ask("WebhooksService/ListWebhookEndpoints", webhooks.ListWebhookEndpointsRequest()),
        await owner.ask("WebhooksService/ListDeliveries", webhooks.ListDeliveriesRequest()),
        await owner.ask("BillingService/GetBalance", billing.GetBalanceRequest()),
        await owner.ask("BillingService/ListLedgerEntries", billing.ListLedgerEntriesRequest()),
        await owner.ask("BillingService/GetUsage", billing.GetUsageRequest()),
    ]
    return [answer.SerializeToString(deterministic=True) for answer in answers]


async def test_tokens_of_one_tenant_are_none_of_another(two: Two) -> None:
    page = pb.ListMemoriesRequest(page_size=1, page_token=two.things.memories_token)
    assert (await two.owner.call("MemoryService/ListMemories", page)).code is grpc.StatusCode.OK
    stranger = await two.deployment.caller()
    outcome = await stranger.call("MemoryService/ListMemories", page)
    assert outcome.info.reason == "PAGE_TOKEN_INVALID"

    ledger = billing.ListLedgerEntriesRequest(page_size=1, page_token=two.things.ledger_token)
    assert (await two.owner.call("BillingService/ListLedgerEntries", ledger)).code is grpc.StatusCode.OK
    outcome = await stranger.call("BillingService/ListLedgerEntries", ledger)
    assert outcome.info.reason == "PAGE_TOKEN_INVALID"

    theirs = await stranger.ask("MemoryService/CreateMemory", _create())
    watch = jobs.WatchJobRequest(job_id=theirs.job.id, resume_token=two.things.resume_token)
    outcome = await stranger.call("JobsService/WatchJob", watch)
    assert outcome.info.reason == "RESUME_TOKEN_INVALID"
    follow = jobs.WatchJobsRequest(resume_token=two.things.feed_token)
    assert (await two.owner.call("JobsService/WatchJobs", follow)).code is grpc.StatusCode.OK
    outcome = await stranger.call("JobsService/WatchJobs", follow)
    assert outcome.info.reason == "RESUME_TOKEN_INVALID"


@pytest.mark.parametrize("scope", [Scope.READ, Scope.WRITE, Scope.JOBS, Scope.BILLING])
async def test_a_key_does_only_what_its_scope_says(two: Two, scope: Scope) -> None:
    deployment = two.deployment
    tenant = await deployment.container.tenancy.get_tenant((await deployment.caller()).tenant_id)
    key = await deployment.caller_of(tenant, (scope,))
    for path in METHODS:
        outcome = await key.call(path.removeprefix("/memoro.v1."), TABLE[path].request(two.things))
        refused = outcome.code is grpc.StatusCode.PERMISSION_DENIED and outcome.info.reason == "SCOPE_MISSING"
        assert refused == (POLICIES[path].scope is not scope), path


async def test_no_filter_reaches_what_another_tenant_has(two: Two) -> None:
    stranger = await two.deployment.caller()
    of_theirs = pb.MemoryFilter(conversation_id=CONVERSATION)
    listed = pb.ListMemoriesRequest(filter=of_theirs)
    assert (await two.owner.ask("MemoryService/ListMemories", listed)).memories
    assert not (await stranger.ask("MemoryService/ListMemories", listed)).memories
    searched = pb.SearchMemoriesRequest(user_id=USER, query="Hello!", filter=of_theirs)
    assert (await two.owner.ask("MemoryService/SearchMemories", searched)).hits
    assert not (await stranger.ask("MemoryService/SearchMemories", searched)).hits


OF_A_TENANT: dict[str, Callable[[str], Message]] = {
    "BillingService/GetBalance": lambda tenant_id: billing.GetBalanceRequest(tenant_id=tenant_id),
    "BillingService/ListLedgerEntries": lambda tenant_id: billing.ListLedgerEntriesRequest(tenant_id=tenant_id),
    "BillingService/GetUsage": lambda tenant_id: billing.GetUsageRequest(tenant_id=tenant_id),
}
"""Where a tenant may be named without the scope admin: one's own."""


@pytest.mark.parametrize("method", OF_A_TENANT)
async def test_only_operators_name_another_tenant(two: Two, method: str) -> None:
    stranger, operator = await two.deployment.caller(), await two.deployment.operator()
    of_the_owner = OF_A_TENANT[method](two.things.tenant_id)
    outcome = await stranger.call(method, of_the_owner)
    assert (outcome.code, outcome.info.reason) == (grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING")
    assert dict(outcome.info.metadata) == {"scope": "admin"}
    # One that does not exist, too: nothing tells which ids are tenants.
    assert (await stranger.call(method, OF_A_TENANT[method](two.things.job_id))).message == outcome.message
    own = await two.owner.ask(method, OF_A_TENANT[method](""))
    assert own.ByteSize()
    assert await two.owner.ask(method, of_the_owner) == own
    assert await operator.ask(method, of_the_owner) == own


async def test_every_request_that_may_name_a_tenant_is_tried_with_another(two: Two) -> None:
    named = {
        path.removeprefix("/memoro.v1.")
        for path, method in METHODS.items()
        if "tenant_id" in method.input_type.fields_by_name and POLICIES[path].scope is not Scope.ADMIN
    }
    assert named == OF_A_TENANT.keys()


async def test_no_job_leads_to_another_tenants_ledger(two: Two) -> None:
    stranger = await two.deployment.caller()
    asked = billing.ListLedgerEntriesRequest(job_id=two.things.job_id)
    assert not (await stranger.ask("BillingService/ListLedgerEntries", asked)).entries
