"""What tenants may do, and what is decided about a call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from memoro_core.ids import TenantId, UserId


class MethodClass(StrEnum):
    """Kinds of calls that have a limit of their own."""

    READ = "reads"
    WRITE = "writes"
    SEARCH = "searches"
    ADMIN = "admin"
    """Calls of operators: the limit of all requests is theirs."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A bucket of tokens: so many come per minute, and so many it holds."""

    per_minute: int
    burst: int


@dataclass(frozen=True, slots=True)
class Limits:
    """What is limited, as the message Limits of the contract says; None is not limited."""

    requests: Rate | None = None
    reads: Rate | None = None
    writes: Rate | None = None
    searches: Rate | None = None
    user_requests: Rate | None = None
    daily_units: int | None = None
    open_streams: int | None = None
    relation_detections: int | None = None
    max_memories: int | None = None
    max_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Quota:
    """How much a tenant may have stored; None is not limited."""

    max_memories: int | None = None
    max_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class TenantUsage:
    """What a tenant has stored: its memories, and the bytes of their texts and of their metadata as JSON."""

    memories: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class TenantLimits:
    """The limits in force for a tenant: its tier's, with its own in their place.

    `version` changes whenever any of it does. With `shadow` nothing is refused, only counted.
    """

    limits: Limits
    version: str
    shadow: bool = False

    @property
    def quota(self) -> Quota | None:
        """How much may be stored; None where that is not limited."""
        limits = self.limits
        if self.shadow or (limits.max_memories is None and limits.max_bytes is None):
            return None
        return Quota(limits.max_memories, limits.max_bytes)


NO_LIMITS: Final = TenantLimits(Limits(), "")
"""Of a tenant that may do as it likes."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A call that wants to go on: it takes `weight` tokens, and of each user that it names as many as `users` says."""

    tenant_id: TenantId
    limits: TenantLimits
    method_class: MethodClass
    weight: int
    users: Mapping[UserId, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is decided about a call, and how the limit that is nearest to being used up then stands.

    `maximum`: its tokens at most, `remaining`: those left, `reset`: seconds until it is whole again. A call that is not
    allowed has `refused_by`, the name of the limit (`requests`, `writes`, `user_requests`, `daily_units` …), and
    `retry_after`, the seconds after which it may pass; None where that is the next day.
    """

    allowed: bool
    maximum: int
    remaining: int
    reset: float
    refused_by: str = ""
    retry_after: float | None = None


UNLIMITED: Final = Verdict(True, 0, 0, 0.0)
"""Of a call for which there is no limit: nothing is told of it."""
