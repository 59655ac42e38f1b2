"""What tenants may do."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A bucket that gets so many tokens per minute and holds `burst`; a call takes as many as its method weighs."""

    per_minute: int
    burst: int
    """20 at least."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What is limited. None: it is not, or as the tier says where these are a tenant's own."""

    requests: RateLimit | None = None
    """All calls of the tenant together."""
    reads: RateLimit | None = None
    writes: RateLimit | None = None
    searches: RateLimit | None = None
    user_requests: RateLimit | None = None
    """The calls that name a user, of each user."""
    daily_units: int | None = None
    """The weight of all calls of a day."""
    open_streams: int | None = None
    relation_detections: int | None = None
    """For how many jobs of a user entities and facts are found in an hour; of more they are found later."""
    max_memories: int | None = None
    max_bytes: int | None = None
    """Of text and metadata of all the tenant's memories."""


@dataclass(frozen=True, slots=True)
class Tier:
    """What each tenant of a tier may do, and how they share the workers."""

    name: str
    limits: Limits = field(default_factory=Limits)
    shadow: bool = False
    """Calls beyond a limit are counted, not refused."""
    weight: int = 1
    """The share of a tenant in the workers against tenants of other tiers, when all have jobs waiting."""
    tenant_in_flight: int = 8
    """Jobs of one tenant that may be in flight at once."""
    user_in_flight: int = 4
    kept_succeeded: timedelta | None = None
    """How long jobs are kept that succeeded or were cancelled; None: as long as the deployment's setting says."""
    kept_failed: timedelta | None = None
    etag: str = ""
    """Changes with each update."""
    update_time: datetime | None = None
