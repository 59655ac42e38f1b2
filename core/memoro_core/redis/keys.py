"""Every key in Redis is built here. What stands in braces keeps keys that belong together on one node of a cluster."""

from __future__ import annotations

from datetime import date
from typing import Final

from memoro_core.ids import TenantId
from memoro_core.tenancy.model import BUILT_IN_TIERS, TierName

PREFIX: Final = "memoro:"
HINT_GROUP: Final = "workers"
"""The consumer group of all workers, on each stream of hints."""
BACKLOG_STREAM: Final = f"{PREFIX}{{hints}}:backlog"
"""The stream of hints to jobs that the scheduler chose."""
CUSTOM_STREAM: Final = f"{PREFIX}{{hints}}:custom"
"""The stream of fresh hints to the jobs of tiers that operators made: workers read a fixed list of streams."""
EVENT_CONTROL: Final = f"{PREFIX}events"
"""A channel without messages, which keeps a subscriber's connection open while it watches no tenant."""

SERVERS: Final = f"{PREFIX}servers"
"""The servers that live, by when they last said so."""


def hint_stream(tier: TierName) -> str:
    """The stream of fresh hints to a tier's jobs: each built-in tier has one, and all others share one."""
    return f"{PREFIX}{{hints}}:{tier}" if tier in BUILT_IN_TIERS else CUSTOM_STREAM


def event_channel(tenant_id: TenantId) -> str:
    """The channel of a tenant's job events."""
    return f"{PREFIX}{{{tenant_id}}}:events"


def limit_bucket(tenant_id: TenantId, name: str) -> str:
    """One of a tenant's buckets of tokens."""
    return f"{PREFIX}{{{tenant_id}}}:limit:{name}"


def limit_units(tenant_id: TenantId, day: date) -> str:
    """The units that a tenant has used on a day."""
    return f"{PREFIX}{{{tenant_id}}}:units:{day}"


def open_streams(tenant_id: TenantId) -> str:
    """How many streams of a tenant each server has open."""
    return f"{PREFIX}{{{tenant_id}}}:streams"
