"""What limiters count."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class LimitCounts:
    """Since the process started: decisions by what made them, refusals by limit, and how the shared buckets are.

    `leased`: paid from leases, or refused by what is remembered; `shared`: by the buckets in Redis; `local`: by this
    process alone.
    """

    leased: int = 0
    shared: int = 0
    local: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    outages: int = 0
    away: bool = False
    servers: int = 1
