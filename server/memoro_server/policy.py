"""One table: what each method needs, what it weighs, whether it may be repeated, and how long it may take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from memoro_core.tenancy.model import Scope


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules of one method.

    `scope` None: no credentials are needed (health and reflection only). `weight`: tokens that a call takes from its
    rate bucket. `idempotent`: the same request may be sent again, so that a client may retry. `longest_deadline`, in
    seconds: the deadline of a call that sets none, and of one that sets a longer one. `streaming`: it answers with a
    stream. `operators`: the scope admin is as good as `scope`, because operators call it for any tenant.
    """

    scope: Scope | None
    weight: int
    idempotent: bool
    longest_deadline: float
    streaming: bool = False
    operators: bool = False


_DAY: Final = 86_400.0
_MEMORY: Final = "/memoro.v1.MemoryService/"
_JOBS: Final = "/memoro.v1.JobsService/"
_BILLING: Final = "/memoro.v1.BillingService/"
_ADMIN: Final = "/memoro.v1.AdminService/"
_WEBHOOKS: Final = "/memoro.v1.WebhooksService/"
_HEALTH: Final = "/grpc.health.v1.Health/"
_REFLECTION: Final = "/grpc.reflection.v1alpha.ServerReflection/"

POLICIES: Final[Mapping[str, Policy]] = {
    # A SYNC create runs the pipeline in the call, and a job may take 120 s.
    _MEMORY + "CreateMemory": Policy(Scope.WRITE, 1, True, 130.0),
    _MEMORY + "BatchCreateMemories": Policy(Scope.WRITE, 20, True, 60.0),
    _MEMORY + "AddConversation": Policy(Scope.WRITE, 10, True, 60.0),
    _MEMORY + "GetMemory": Policy(Scope.READ, 1, True, 30.0),
    _MEMORY + "ListMemories": Policy(Scope.READ, 2, True, 30.0),
    _MEMORY + "UpdateMemory": Policy(Scope.WRITE, 1, True, 30.0),
    _MEMORY + "DeleteMemory": Policy(Scope.WRITE, 1, True, 30.0),
    _MEMORY + "SearchMemories": Policy(Scope.READ, 5, True, 30.0),
    _MEMORY + "ListEntities": Policy(Scope.READ, 2, True, 30.0),
    _MEMORY + "GetEntity": Policy(Scope.READ, 1, True, 30.0),
    _MEMORY + "TraverseGraph": Policy(Scope.READ, 5, True, 30.0),
    _JOBS + "GetJob": Policy(Scope.READ, 1, True, 30.0),
    _JOBS + "ListJobs": Policy(Scope.READ, 2, True, 30.0),
    _JOBS + "WatchJob": Policy(Scope.READ, 1, True, _DAY, streaming=True),
    _JOBS + "WatchJobs": Policy(Scope.READ, 5, True, _DAY, streaming=True),
    _JOBS + "CancelJob": Policy(Scope.JOBS, 1, True, 30.0),
    _JOBS + "RetryJob": Policy(Scope.JOBS, 1, True, 30.0),
    _BILLING + "GetBalance": Policy(Scope.BILLING, 1, True, 30.0, operators=True),
    _BILLING + "AddCredits": Policy(Scope.ADMIN, 1, True, 30.0),
    _BILLING + "SetBalance": Policy(Scope.ADMIN, 1, True, 30.0),
    _BILLING + "ListLedgerEntries": Policy(Scope.BILLING, 2, True, 30.0, operators=True),
    _BILLING + "GetUsage": Policy(Scope.BILLING, 5, True, 30.0, operators=True),
    _BILLING + "EstimateCost": Policy(Scope.READ, 5, True, 30.0),
    _BILLING + "ListPrices": Policy(Scope.READ, 2, True, 30.0, operators=True),
    _ADMIN + "CreateTenant": Policy(Scope.ADMIN, 1, True, 30.0),
    _ADMIN + "GetTenant": Policy(Scope.ADMIN, 1, True, 30.0),
    _ADMIN + "ListTenants": Policy(Scope.ADMIN, 1, True, 30.0),
    _ADMIN + "UpdateTenant": Policy(Scope.ADMIN, 1, True, 30.0),
    _ADMIN + "SuspendTenant": Policy(Scope.ADMIN, 1, True, 30.0),
    _ADMIN + "ResumeTenant": Policy(Scope.ADMIN, 1, True, 30.0),
    # A repeated call finds the key but can't give its secret again, so a client must not repeat these unasked.
    _ADMIN + "CreateApiKey": Policy(Scope.ADMIN, 1, False, 30.0),
    _ADMIN + "RotateApiKey": Policy(Scope.ADMIN, 1, False, 30.0),
    _ADMIN + "ListApiKeys": Policy(Scope.ADMIN, 1, True, 30.0),
    _ADMIN + "RevokeApiKey": Policy(Scope.ADMIN, 1, True, 30.0),
    _ADMIN + "ListTiers": Policy(Scope.ADMIN, 1, True, 30.0),
    _ADMIN + "PutTier": Policy(Scope.ADMIN, 1, True, 30.0),
    _ADMIN + "GetWorkers": Policy(Scope.ADMIN, 1, True, 30.0),
    _ADMIN + "PauseQueue": Policy(Scope.ADMIN, 1, True, 30.0),
    _ADMIN + "ResumeQueue": Policy(Scope.ADMIN, 1, True, 30.0),
    # These work in batches, and answer before their deadline with what they have done by then.
    _ADMIN + "RequeueJobs": Policy(Scope.ADMIN, 20, True, 60.0),
    _ADMIN + "ClearQueue": Policy(Scope.ADMIN, 20, True, 60.0),
    _ADMIN + "TriggerProcessing": Policy(Scope.ADMIN, 20, True, 60.0),
    _ADMIN + "GetAiCosts": Policy(Scope.ADMIN, 5, True, 30.0),
    _ADMIN + "GetCircuitBreaker": Policy(Scope.ADMIN, 1, True, 30.0),
    _ADMIN + "ResetCircuitBreaker": Policy(Scope.ADMIN, 1, True, 30.0),
    _ADMIN + "SetBudget": Policy(Scope.ADMIN, 1, True, 30.0),
    _ADMIN + "SetPrice": Policy(Scope.ADMIN, 1, True, 30.0),
    # It reads a whole ledger, and answers before its deadline with what it has checked by then.
    _ADMIN + "VerifyLedger": Policy(Scope.ADMIN, 20, True, 60.0),
    # It waits for mail servers.
    _ADMIN + "SendTestAlert": Policy(Scope.ADMIN, 5, True, 60.0),
    # A repeated call finds the endpoint but can't give its secret again, so a client must not repeat it unasked.
    _WEBHOOKS + "CreateWebhookEndpoint": Policy(Scope.WRITE, 1, False, 30.0),
    _WEBHOOKS + "ListWebhookEndpoints": Policy(Scope.READ, 2, True, 30.0),
    _WEBHOOKS + "DeleteWebhookEndpoint": Policy(Scope.WRITE, 1, True, 30.0),
    _WEBHOOKS + "RotateWebhookSecret": Policy(Scope.WRITE, 1, False, 30.0),
    _WEBHOOKS + "ListDeliveries": Policy(Scope.READ, 2, True, 30.0),
    _WEBHOOKS + "RedeliverEvent": Policy(Scope.WRITE, 1, True, 30.0),
    _HEALTH + "Check": Policy(None, 0, True, 30.0),
    _HEALTH + "List": Policy(None, 0, True, 30.0),
    _HEALTH + "Watch": Policy(None, 0, True, _DAY, streaming=True),
    _REFLECTION + "ServerReflectionInfo": Policy(None, 0, True, 600.0, streaming=True),
}
