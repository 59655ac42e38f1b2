"""One table: what each method needs, what it weighs, whether it may be repeated, and how long it may take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from memoro_core.limits.model import MethodClass
from memoro_core.tenancy.model import Scope


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules of one method.

    `scope` None: no credentials are needed (health and reflection only). `method_class`: which limit is the call's own,
    beside those of all calls; None: it has none at all (health and reflection). `weight`: tokens that a call takes from
    each of its limits; 20 at most, which the smallest bucket holds. `idempotent`: the same request may be sent again,
    so that a client may retry. `longest_deadline`, in seconds: the deadline of a call that sets none, and of one that
    sets a longer one. `streaming`: it answers with a stream. `operators`: the scope admin is as good as `scope`,
    because operators call it for any tenant.
    """

    scope: Scope | None
    method_class: MethodClass | None
    weight: int
    idempotent: bool
    longest_deadline: float
    streaming: bool = False
    operators: bool = False


_DAY: Final = 86_400.0
_READ: Final = MethodClass.READ
_WRITE: Final = MethodClass.WRITE
_SEARCH: Final = MethodClass.SEARCH
_ADMINISTER: Final = MethodClass.ADMIN
_MEMORY: Final = "/memoro.v1.MemoryService/"
_JOBS: Final = "/memoro.v1.JobsService/"
_BILLING: Final = "/memoro.v1.BillingService/"
_ADMIN: Final = "/memoro.v1.AdminService/"
_WEBHOOKS: Final = "/memoro.v1.WebhooksService/"
_HEALTH: Final = "/grpc.health.v1.Health/"
_REFLECTION: Final = "/grpc.reflection.v1alpha.ServerReflection/"

POLICIES: Final[Mapping[str, Policy]] = {
    # A SYNC create runs the pipeline in the call, and a job may take 120 s.
    _MEMORY + "CreateMemory": Policy(Scope.WRITE, _WRITE, 1, True, 130.0),
    _MEMORY + "BatchCreateMemories": Policy(Scope.WRITE, _WRITE, 20, True, 60.0),
    _MEMORY + "AddConversation": Policy(Scope.WRITE, _WRITE, 10, True, 60.0),
    _MEMORY + "GetMemory": Policy(Scope.READ, _READ, 1, True, 30.0),
    _MEMORY + "ListMemories": Policy(Scope.READ, _READ, 2, True, 30.0),
    _MEMORY + "UpdateMemory": Policy(Scope.WRITE, _WRITE, 1, True, 30.0),
    _MEMORY + "DeleteMemory": Policy(Scope.WRITE, _WRITE, 1, True, 30.0),
    _MEMORY + "SearchMemories": Policy(Scope.READ, _SEARCH, 5, True, 30.0),
    _MEMORY + "ListEntities": Policy(Scope.READ, _READ, 2, True, 30.0),
    _MEMORY + "GetEntity": Policy(Scope.READ, _READ, 1, True, 30.0),
    _MEMORY + "TraverseGraph": Policy(Scope.READ, _SEARCH, 5, True, 30.0),
    _JOBS + "GetJob": Policy(Scope.READ, _READ, 1, True, 30.0),
    _JOBS + "ListJobs": Policy(Scope.READ, _READ, 2, True, 30.0),
    _JOBS + "WatchJob": Policy(Scope.READ, _READ, 1, True, _DAY, streaming=True),
    _JOBS + "WatchJobs": Policy(Scope.READ, _READ, 5, True, _DAY, streaming=True),
    _JOBS + "CancelJob": Policy(Scope.JOBS, _WRITE, 1, True, 30.0),
    _JOBS + "RetryJob": Policy(Scope.JOBS, _WRITE, 1, True, 30.0),
    _BILLING + "GetBalance": Policy(Scope.BILLING, _READ, 1, True, 30.0, operators=True),
    _BILLING + "AddCredits": Policy(Scope.ADMIN, _ADMINISTER, 1, True, 30.0),
    _BILLING + "SetBalance": Policy(Scope.ADMIN, _ADMINISTER, 1, True, 30.0),
    _BILLING + "ListLedgerEntries": Policy(Scope.BILLING, _READ, 2, True, 30.0, operators=True),
    _BILLING + "GetUsage": Policy(Scope.BILLING, _SEARCH, 5, True, 30.0, operators=True),
    _BILLING + "EstimateCost": Policy(Scope.READ, _SEARCH, 2, True, 30.0),
    _BILLING + "ListPrices": Policy(Scope.READ, _READ, 1, True, 30.0, operators=True),
    _ADMIN + "CreateTenant": Policy(Scope.ADMIN, _ADMINISTER, 1, True, 30.0),
    _ADMIN + "GetTenant": Policy(Scope.ADMIN, _ADMINISTER, 1, True, 30.0),
    _ADMIN + "ListTenants": Policy(Scope.ADMIN, _ADMINISTER, 2, True, 30.0),
    _ADMIN + "UpdateTenant": Policy(Scope.ADMIN, _ADMINISTER, 1, True, 30.0),
    _ADMIN + "SuspendTenant": Policy(Scope.ADMIN, _ADMINISTER, 1, True, 30.0),
    _ADMIN + "ResumeTenant": Policy(Scope.ADMIN, _ADMINISTER, 1, True, 30.0),
    # A repeated call finds the key but can't give its secret again, so a client must not repeat these unasked.
    _ADMIN + "CreateApiKey": Policy(Scope.ADMIN, _ADMINISTER, 1, False, 30.0),
    _ADMIN + "RotateApiKey": Policy(Scope.ADMIN, _ADMINISTER, 1, False, 30.0),
    _ADMIN + "ListApiKeys": Policy(Scope.ADMIN, _ADMINISTER, 2, True, 30.0),
    _ADMIN + "RevokeApiKey": Policy(Scope.ADMIN, _ADMINISTER, 1, True, 30.0),
    _ADMIN + "ListTiers": Policy(Scope.ADMIN, _ADMINISTER, 1, True, 30.0),
    _ADMIN + "PutTier": Policy(Scope.ADMIN, _ADMINISTER, 1, True, 30.0),
    _ADMIN + "ListAuditEvents": Policy(Scope.ADMIN, _ADMINISTER, 5, True, 30.0),
    _ADMIN + "GetWorkers": Policy(Scope.ADMIN, _ADMINISTER, 2, True, 30.0),
    _ADMIN + "PauseQueue": Policy(Scope.ADMIN, _ADMINISTER, 1, True, 30.0),
    _ADMIN + "ResumeQueue": Policy(Scope.ADMIN, _ADMINISTER, 1, True, 30.0),
    # These work in batches, and answer before their deadline with what they have done by then.
    _ADMIN + "RequeueJobs": Policy(Scope.ADMIN, _ADMINISTER, 20, True, 60.0),
    _ADMIN + "ClearQueue": Policy(Scope.ADMIN, _ADMINISTER, 20, True, 60.0),
    _ADMIN + "TriggerProcessing": Policy(Scope.ADMIN, _ADMINISTER, 20, True, 60.0),
    _ADMIN + "GetAiCosts": Policy(Scope.ADMIN, _ADMINISTER, 5, True, 30.0),
    _ADMIN + "GetCircuitBreaker": Policy(Scope.ADMIN, _ADMINISTER, 1, True, 30.0),
    _ADMIN + "ResetCircuitBreaker": Policy(Scope.ADMIN, _ADMINISTER, 1, True, 30.0),
    _ADMIN + "SetBudget": Policy(Scope.ADMIN, _ADMINISTER, 1, True, 30.0),
    _ADMIN + "SetPrice": Policy(Scope.ADMIN, _ADMINISTER, 1, True, 30.0),
    # It reads a whole ledger, and answers before its deadline with what it has checked by then.
    _ADMIN + "VerifyLedger": Policy(Scope.ADMIN, _ADMINISTER, 20, True, 60.0),
    # It waits for mail servers.
    _ADMIN + "SendTestAlert": Policy(Scope.ADMIN, _ADMINISTER, 5, True, 60.0),
    _ADMIN + "DiagnoseDeployment": Policy(Scope.ADMIN, _ADMINISTER, 5, True, 30.0),
    # A repeated call finds the endpoint but can't give its secret again, so a client must not repeat it unasked.
    _WEBHOOKS + "CreateWebhookEndpoint": Policy(Scope.WRITE, _WRITE, 1, False, 30.0),
    _WEBHOOKS + "ListWebhookEndpoints": Policy(Scope.READ, _READ, 2, True, 30.0),
    _WEBHOOKS + "DeleteWebhookEndpoint": Policy(Scope.WRITE, _WRITE, 1, True, 30.0),
    _WEBHOOKS + "RotateWebhookSecret": Policy(Scope.WRITE, _WRITE, 1, False, 30.0),
    _WEBHOOKS + "ListDeliveries": Policy(Scope.READ, _READ, 2, True, 30.0),
    _WEBHOOKS + "RedeliverEvent": Policy(Scope.WRITE, _WRITE, 1, True, 30.0),
    _HEALTH + "Check": Policy(None, None, 0, True, 30.0),
    _HEALTH + "List": Policy(None, None, 0, True, 30.0),
    _HEALTH + "Watch": Policy(None, None, 0, True, _DAY, streaming=True),
    _REFLECTION + "ServerReflectionInfo": Policy(None, None, 0, True, 600.0, streaming=True),
}

_READING: Final = ("Get", "List", "Verify", "Diagnose")
_OF_CREDENTIALS: Final = frozenset(
    {_WEBHOOKS + "CreateWebhookEndpoint", _WEBHOOKS + "RotateWebhookSecret", _WEBHOOKS + "DeleteWebhookEndpoint"}
)
"""What tenants do to credentials themselves."""


def is_audited(path: str, policy: Policy) -> bool:
    """Whether calls of a method go into the audit log: those of operators that change something, and of credentials."""
    name = path.rpartition("/")[2]
    return path in _OF_CREDENTIALS or (policy.scope is Scope.ADMIN and not name.startswith(_READING))
