"""Tenants, keys, and who a caller is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NewType

from memoro_core.ids import ApiKeyId, TenantId
from memoro_core.limits.model import NO_LIMITS, Limits, TenantLimits


class Scope(StrEnum):
    """What a key may do."""

    READ = "read"
    WRITE = "write"
    JOBS = "jobs"
    ADMIN = "admin"
    BILLING = "billing"


DEFAULT_SCOPES: Final = (Scope.READ, Scope.WRITE, Scope.JOBS, Scope.BILLING)
"""What a key may do when its maker does not say."""


TierName = NewType("TierName", str)
"""Which limits apply to a tenant: the name of a tier, of which operators may make more."""
FREE_TIER: Final = TierName("free")
PRO_TIER: Final = TierName("pro")
ENTERPRISE_TIER: Final = TierName("enterprise")
BUILT_IN_TIERS: Final = (FREE_TIER, PRO_TIER, ENTERPRISE_TIER)


@dataclass(frozen=True, slots=True)
class Tier:
    """What each of its tenants may do, and how they share the workers.

    With `shadow` calls beyond a limit are counted, not refused. `weight` is a tenant's share in the workers against
    tenants of other tiers. Ended jobs are kept as long as `kept_…` says; None: as the settings say.
    """

    name: TierName
    limits: Limits
    shadow: bool
    weight: int
    tenant_in_flight: int
    user_in_flight: int
    kept_succeeded: timedelta | None
    kept_failed: timedelta | None
    version: int
    updated_at: datetime


class TenantState(StrEnum):
    """Whether a tenant may call."""

    ACTIVE = "ACTIVE"
    SUSPENDED = "SUSPENDED"


@dataclass(frozen=True, slots=True)
class Tenant:
    """A team or product whose data is walled off. `is_operator` marks the one tenant of the service's own people.

    `limits` are those of its own, in the place of its tier's.
    """

    id: TenantId
    name: str
    display_name: str
    tier: TierName
    state: TenantState
    is_operator: bool
    limits: Limits
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
class RotatedKey:
    """A new key with its secret, and the key that it takes the place of; for a repeated request without the secret."""

    key: ApiKey
    secret: str = field(repr=False)
    replaced: ApiKey


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls: the tenant and the credential it showed, with what that may do and what the tenant may.

    The credential is an API key, or a token with a `subject`. `jobs_kept`: how long the tenant's ended jobs are kept;
    None: as the settings say.
    """

    tenant_id: TenantId
    api_key_id: ApiKeyId | None
    scopes: frozenset[Scope]
    tier: TierName
    limits: TenantLimits = NO_LIMITS
    jobs_kept: timedelta | None = None
    subject: str = ""

    @property
    def credential(self) -> Mapping[str, str]:
        """What it showed, as logs name it: `api_key_id` or `subject`."""
        return {"subject": self.subject} if self.api_key_id is None else {"api_key_id": str(self.api_key_id)}
