"""Every call of the contract as the client makes it: path, messages, deadline, and whether it is repeated."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

from memoro.v1 import admin_service_pb2 as admin
from memoro.v1 import billing_service_pb2 as billing
from memoro.v1 import jobs_service_pb2 as jobs
from memoro.v1 import memory_service_pb2 as memories
from memoro.v1 import webhooks_service_pb2 as webhooks

Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)


@dataclass(frozen=True, slots=True)
class Method(Generic[Q, R]):
    """One call: where it goes, what goes in and comes back, and for how many seconds by default."""

    path: str
    request: type[Q]
    response: type[R]
    deadline: float = 10.0
    retry: bool = True
    """Repeat it on the channel when the server can't be reached: safe, as it only reads or carries a request id."""


_MEMORY = "/memoro.v1.MemoryService"
_JOBS = "/memoro.v1.JobsService"
_ADMIN = "/memoro.v1.AdminService"
_BILLING = "/memoro.v1.BillingService"
_WEBHOOKS = "/memoro.v1.WebhooksService"

CREATE_MEMORY = Method(f"{_MEMORY}/CreateMemory", memories.CreateMemoryRequest, memories.CreateMemoryResponse)
BATCH_CREATE_MEMORIES = Method(
    f"{_MEMORY}/BatchCreateMemories",
    memories.BatchCreateMemoriesRequest,
    memories.BatchCreateMemoriesResponse,
    deadline=30.0,
)
ADD_CONVERSATION = Method(
    f"{_MEMORY}/AddConversation", memories.AddConversationRequest, memories.AddConversationResponse, deadline=30.0
)
GET_MEMORY = Method(f"{_MEMORY}/GetMemory", memories.GetMemoryRequest, memories.GetMemoryResponse)
LIST_MEMORIES = Method(f"{_MEMORY}/ListMemories", memories.ListMemoriesRequest, memories.ListMemoriesResponse)
UPDATE_MEMORY = Method(f"{_MEMORY}/UpdateMemory", memories.UpdateMemoryRequest, memories.UpdateMemoryResponse)
DELETE_MEMORY = Method(f"{_MEMORY}/DeleteMemory", memories.DeleteMemoryRequest, memories.DeleteMemoryResponse)
SEARCH_MEMORIES = Method(f"{_MEMORY}/SearchMemories", memories.SearchMemoriesRequest, memories.SearchMemoriesResponse)
LIST_ENTITIES = Method(f"{_MEMORY}/ListEntities", memories.ListEntitiesRequest, memories.ListEntitiesResponse)
GET_ENTITY = Method(f"{_MEMORY}/GetEntity", memories.GetEntityRequest, memories.GetEntityResponse)
TRAVERSE_GRAPH = Method(f"{_MEMORY}/TraverseGraph", memories.TraverseGraphRequest, memories.TraverseGraphResponse)

GET_JOB = Method(f"{_JOBS}/GetJob", jobs.GetJobRequest, jobs.GetJobResponse)
LIST_JOBS = Method(f"{_JOBS}/ListJobs", jobs.ListJobsRequest, jobs.ListJobsResponse)
# The client takes up a broken watch itself, with the resume token; and it takes it up after each deadline, so that a
# server that has gone silent holds a watcher for five minutes at most.
WATCH_JOB = Method(f"{_JOBS}/WatchJob", jobs.WatchJobRequest, jobs.WatchJobResponse, deadline=300.0, retry=False)
WATCH_JOBS = Method(f"{_JOBS}/WatchJobs", jobs.WatchJobsRequest, jobs.WatchJobsResponse, deadline=300.0, retry=False)
CANCEL_JOB = Method(f"{_JOBS}/CancelJob", jobs.CancelJobRequest, jobs.CancelJobResponse)
RETRY_JOB = Method(f"{_JOBS}/RetryJob", jobs.RetryJobRequest, jobs.RetryJobResponse)

CREATE_TENANT = Method(f"{_ADMIN}/CreateTenant", admin.CreateTenantRequest, admin.CreateTenantResponse)
GET_TENANT = Method(f"{_ADMIN}/GetTenant", admin.GetTenantRequest, admin.GetTenantResponse)
LIST_TENANTS = Method(f"{_ADMIN}/ListTenants", admin.ListTenantsRequest, admin.ListTenantsResponse)
UPDATE_TENANT = Method(f"{_ADMIN}/UpdateTenant", admin.UpdateTenantRequest, admin.UpdateTenantResponse)
SUSPEND_TENANT = Method(f"{_ADMIN}/SuspendTenant", admin.SuspendTenantRequest, admin.SuspendTenantResponse)
RESUME_TENANT = Method(f"{_ADMIN}/ResumeTenant", admin.ResumeTenantRequest, admin.ResumeTenantResponse)
# A repeated call of these two finds the key, but its secret is given once.
CREATE_API_KEY = Method(f"{_ADMIN}/CreateApiKey", admin.CreateApiKeyRequest, admin.CreateApiKeyResponse, retry=False)
ROTATE_API_KEY = Method(f"{_ADMIN}/RotateApiKey", admin.RotateApiKeyRequest, admin.RotateApiKeyResponse, retry=False)
LIST_API_KEYS = Method(f"{_ADMIN}/ListApiKeys", admin.ListApiKeysRequest, admin.ListApiKeysResponse)
REVOKE_API_KEY = Method(f"{_ADMIN}/RevokeApiKey", admin.RevokeApiKeyRequest, admin.RevokeApiKeyResponse)
LIST_TIERS = Method(f"{_ADMIN}/ListTiers", admin.ListTiersRequest, admin.ListTiersResponse)
PUT_TIER = Method(f"{_ADMIN}/PutTier", admin.PutTierRequest, admin.PutTierResponse)
LIST_AUDIT_EVENTS = Method(f"{_ADMIN}/ListAuditEvents", admin.ListAuditEventsRequest, admin.ListAuditEventsResponse)
GET_WORKERS = Method(f"{_ADMIN}/GetWorkers", admin.GetWorkersRequest, admin.GetWorkersResponse)
PAUSE_QUEUE = Method(f"{_ADMIN}/PauseQueue", admin.PauseQueueRequest, admin.PauseQueueResponse)
RESUME_QUEUE = Method(f"{_ADMIN}/ResumeQueue", admin.ResumeQueueRequest, admin.ResumeQueueResponse)
# These three may touch thousands of jobs.
REQUEUE_JOBS = Method(f"{_ADMIN}/RequeueJobs", admin.RequeueJobsRequest, admin.RequeueJobsResponse, deadline=60.0)
CLEAR_QUEUE = Method(f"{_ADMIN}/ClearQueue", admin.ClearQueueRequest, admin.ClearQueueResponse, deadline=60.0)
TRIGGER_PROCESSING = Method(
    f"{_ADMIN}/TriggerProcessing", admin.TriggerProcessingRequest, admin.TriggerProcessingResponse, deadline=60.0
)

GET_AI_COSTS = Method(f"{_ADMIN}/GetAiCosts", admin.GetAiCostsRequest, admin.GetAiCostsResponse, deadline=30.0)
GET_CIRCUIT_BREAKER = Method(
    f"{_ADMIN}/GetCircuitBreaker", admin.GetCircuitBreakerRequest, admin.GetCircuitBreakerResponse
)
RESET_CIRCUIT_BREAKER = Method(
    f"{_ADMIN}/ResetCircuitBreaker", admin.ResetCircuitBreakerRequest, admin.ResetCircuitBreakerResponse
)
SET_BUDGET = Method(f"{_ADMIN}/SetBudget", admin.SetBudgetRequest, admin.SetBudgetResponse)
SET_PRICE = Method(f"{_ADMIN}/SetPrice", admin.SetPriceRequest, admin.SetPriceResponse)
# It reads the ledger from its beginning.
VERIFY_LEDGER = Method(f"{_ADMIN}/VerifyLedger", admin.VerifyLedgerRequest, admin.VerifyLedgerResponse, deadline=60.0)
# It waits for mail servers and the like.
SEND_TEST_ALERT = Method(
    f"{_ADMIN}/SendTestAlert", admin.SendTestAlertRequest, admin.SendTestAlertResponse, deadline=60.0
)
DIAGNOSE_DEPLOYMENT = Method(
    f"{_ADMIN}/DiagnoseDeployment", admin.DiagnoseDeploymentRequest, admin.DiagnoseDeploymentResponse, deadline=30.0
)

GET_BALANCE = Method(f"{_BILLING}/GetBalance", billing.GetBalanceRequest, billing.GetBalanceResponse)
ADD_CREDITS = Method(f"{_BILLING}/AddCredits", billing.AddCreditsRequest, billing.AddCreditsResponse)
SET_BALANCE = Method(f"{_BILLING}/SetBalance", billing.SetBalanceRequest, billing.SetBalanceResponse)
LIST_LEDGER_ENTRIES = Method(
    f"{_BILLING}/ListLedgerEntries", billing.ListLedgerEntriesRequest, billing.ListLedgerEntriesResponse
)
GET_USAGE = Method(f"{_BILLING}/GetUsage", billing.GetUsageRequest, billing.GetUsageResponse, deadline=30.0)
ESTIMATE_COST = Method(f"{_BILLING}/EstimateCost", billing.EstimateCostRequest, billing.EstimateCostResponse)
LIST_PRICES = Method(f"{_BILLING}/ListPrices", billing.ListPricesRequest, billing.ListPricesResponse)

# A repeated call finds the endpoint, but its secret is given once.
CREATE_WEBHOOK_ENDPOINT = Method(
    f"{_WEBHOOKS}/CreateWebhookEndpoint",
    webhooks.CreateWebhookEndpointRequest,
    webhooks.CreateWebhookEndpointResponse,
    retry=False,
)
LIST_WEBHOOK_ENDPOINTS = Method(
    f"{_WEBHOOKS}/ListWebhookEndpoints", webhooks.ListWebhookEndpointsRequest, webhooks.ListWebhookEndpointsResponse
)
DELETE_WEBHOOK_ENDPOINT = Method(
    f"{_WEBHOOKS}/DeleteWebhookEndpoint", webhooks.DeleteWebhookEndpointRequest, webhooks.DeleteWebhookEndpointResponse
)
ROTATE_WEBHOOK_SECRET = Method(
    f"{_WEBHOOKS}/RotateWebhookSecret",
    webhooks.RotateWebhookSecretRequest,
    webhooks.RotateWebhookSecretResponse,
    retry=False,
)
LIST_DELIVERIES = Method(f"{_WEBHOOKS}/ListDeliveries", webhooks.ListDeliveriesRequest, webhooks.ListDeliveriesResponse)
REDELIVER_EVENT = Method(f"{_WEBHOOKS}/RedeliverEvent", webhooks.RedeliverEventRequest, webhooks.RedeliverEventResponse)

SYNC_DEADLINE = 120.0
"""For `CreateMemory` with ProcessingMode.SYNC, which answers after the pipeline has run."""

METHODS: tuple[Method[Any, Any], ...] = (
    CREATE_MEMORY,
    BATCH_CREATE_MEMORIES,
    ADD_CONVERSATION,
    GET_MEMORY,
    LIST_MEMORIES,
    UPDATE_MEMORY,
    DELETE_MEMORY,
    SEARCH_MEMORIES,
    LIST_ENTITIES,
    GET_ENTITY,
    TRAVERSE_GRAPH,
    GET_JOB,
    LIST_JOBS,
    WATCH_JOB,
    WATCH_JOBS,
    CANCEL_JOB,
    RETRY_JOB,
    CREATE_TENANT,
    GET_TENANT,
    LIST_TENANTS,
    UPDATE_TENANT,
    SUSPEND_TENANT,
    RESUME_TENANT,
    CREATE_API_KEY,
    ROTATE_API_KEY,
    LIST_API_KEYS,
    REVOKE_API_KEY,
    LIST_TIERS,
    PUT_TIER,
    LIST_AUDIT_EVENTS,
    GET_WORKERS,
    PAUSE_QUEUE,
    RESUME_QUEUE,
    REQUEUE_JOBS,
    CLEAR_QUEUE,
    TRIGGER_PROCESSING,
    GET_AI_COSTS,
    GET_CIRCUIT_BREAKER,
    RESET_CIRCUIT_BREAKER,
    SET_BUDGET,
    SET_PRICE,
    VERIFY_LEDGER,
    SEND_TEST_ALERT,
    DIAGNOSE_DEPLOYMENT,
    GET_BALANCE,
    ADD_CREDITS,
    SET_BALANCE,
    LIST_LEDGER_ENTRIES,
    GET_USAGE,
    ESTIMATE_COST,
    LIST_PRICES,
    CREATE_WEBHOOK_ENDPOINT,
    LIST_WEBHOOK_ENDPOINTS,
    DELETE_WEBHOOK_ENDPOINT,
    ROTATE_WEBHOOK_SECRET,
    LIST_DELIVERIES,
    REDELIVER_EVENT,
)


def service_config() -> str:
    """The gRPC service config, as JSON, by which the channel repeats calls that find no server.

    What a limit refuses is not left to the channel, which repeats no more than four times: see `memoro.patience`.
    """
    names = [
        {"service": service.lstrip("/"), "method": name}
        for method in METHODS
        if method.retry
        for service, name in [method.path.rsplit("/", 1)]
    ]
    return json.dumps(
        {
            "loadBalancingConfig": [{"round_robin": {}}],
            "methodConfig": [
                {
                    "name": names,
                    "retryPolicy": {
                        "maxAttempts": 5,
                        "initialBackoff": "0.2s",
                        "maxBackoff": "3s",
                        "backoffMultiplier": 2,
                        "retryableStatusCodes": ["UNAVAILABLE"],
                    },
                }
            ],
            # When most calls fail, stop adding to the load.
            "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.5},
        }
    )
