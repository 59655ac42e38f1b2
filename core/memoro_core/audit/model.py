"""What the audit log holds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from memoro_core.ids import ApiKeyId, AuditEventId, TenantId


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """A call that changed something or was to: who made it, about whom, and how it ended.

    `method` is `AdminService/CreateApiKey`; `code` the name of a status code, `reason` that of a call which failed.
    `tenant_id`: whom it was about; None: the whole deployment. `request` is JSON without texts and secrets.
    """

    id: AuditEventId
    at: datetime
    method: str
    code: str
    reason: str
    actor_tenant_id: TenantId
    actor_api_key_id: ApiKeyId | None
    actor_subject: str
    tenant_id: TenantId | None
    request: str
    request_id: str


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which events: all that is not None must hold. `until` itself is not in."""

    tenant_id: TenantId | None = None
    method: str | None = None
    at_from: datetime | None = None
    until: datetime | None = None
