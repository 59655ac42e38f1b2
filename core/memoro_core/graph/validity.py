"""Which facts end when a newer one of their kind begins."""

from __future__ import annotations

from typing import Final

ONE_AT_A_TIME: Final = frozenset(
    {
        "BASED_IN",
        "DATES",
        "DATING",
        "EMPLOYED_AT",
        "EMPLOYED_BY",
        "ENGAGED_TO",
        "HEADQUARTERED_IN",
        "IS_BASED_IN",
        "IS_DATING",
        "IS_EMPLOYED_AT",
        "IS_EMPLOYED_BY",
        "IS_ENGAGED_TO",
        "IS_LIVING_IN",
        "IS_LIVING_WITH",
        "IS_MARRIED_TO",
        "LIVES_IN",
        "LIVING_IN",
        "MARRIED_TO",
        "RESIDES_IN",
        "WORKS_AT",
        "WORKS_FOR",
    }
)
"""Predicates that hold one target at a time.

Short on purpose: a fact that wrongly ends is worse than two that stand side by side. Whatever may have several targets
(friends, hobbies, things owned) and whatever tells of an event (BOUGHT, MOVED_TO, MET) is not here.
"""
