"""Tenants, keys, and who a caller is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from memoro_core.ids import ApiKeyId, TenantId
from memoro_core.limits.model import NO_LIMITS, TenantLimits


class Scope(StrEnum):
    """What a key may do."""

    READ = "read"
    WRITE = "write"
    JOBS = "jobs"
    ADMIN = "admin"
    BILLING = "billing"


DEFAULT_SCOPES: Final = (Scope.READ, Scope.WRITE, Scope.JOBS, Scope.BILLING)
"""What a key may do when its maker does not say."""


class Tier(StrEnum):
    """Which limits apply to a tenant."""

    FREE = "free"
    PRO = "pro"
    ENTERPRISE = "enterprise"


class TenantState(StrEnum):
    """Whether a tenant may call."""

    ACTIVE = "ACTIVE"
    SUSPENDED = "SUSPENDED"


@dataclass(frozen=True, slots=True)
class Tenant:
    """A team or product whose data is walled off. `is_operator` marks the one tenant of the service's own people."""

    id: TenantId
    name: str
    display_name: str
    tier: Tier
    state: TenantState
    is_operator: bool
    version: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A credential, without its secret. `prefix` is public and unique over all tenants."""

    id: ApiKeyId
    tenant_id: TenantId
    display_name: str
    prefix: str
    scopes: Sequence[Scope]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls: the tenant and the key it showed, with what that key may do and what the tenant may.

    `jobs_kept`: how long the tenant's ended jobs are kept; None: as the settings say.
    """

    tenant_id: TenantId
    api_key_id: ApiKeyId
    scopes: frozenset[Scope]
    tier: Tier
    limits: TenantLimits = NO_LIMITS
    jobs_kept: timedelta | None = None
