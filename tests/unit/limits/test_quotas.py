"""What fits into a quota, decided over one after the other."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoro_core.errors import Code, Reason
from memoro_core.ids import JobId, UserId, new_id
from memoro_core.limits.model import Limits, Quota, TenantLimits, TenantUsage
from memoro_core.memory.drafting import draft_text
from memoro_core.memory.model import NewMemory
from memoro_core.memory.quotas import judge, size_of

SIZES = st.lists(st.builds(TenantUsage, st.integers(1, 5), st.integers(0, 100)), max_size=20)


@given(st.integers(0, 30), st.integers(0, 500), st.integers(0, 30), st.integers(0, 500), SIZES)
def test_what_is_accepted_never_goes_beyond_and_nothing_is_refused_that_fits(
    most: int, most_bytes: int, memories: int, stored: int, sizes: list[TenantUsage]
) -> None:
    for size, error in zip(sizes, judge(Quota(most, most_bytes), TenantUsage(memories, stored), sizes), strict=True):
        fits = memories + size.memories <= most and stored + size.bytes <= most_bytes
        assert fits == (error is None)
        if fits:
            memories, stored = memories + size.memories, stored + size.bytes


def test_a_refusal_says_of_what_there_is_too_much() -> None:
    (memories,) = judge(Quota(3, None), TenantUsage(3, 0), [TenantUsage(1, 5)])
    (large,) = judge(Quota(None, 9), TenantUsage(3, 5), [TenantUsage(1, 5)])
    assert memories is not None
    assert large is not None
    assert (memories.code, memories.reason) == (Code.RESOURCE_EXHAUSTED, Reason.QUOTA_EXCEEDED)
    assert memories.metadata == {"limit": "max_memories", "maximum": "3"}
    assert large.metadata == {"limit": "max_bytes", "maximum": "9"}


@pytest.mark.parametrize(
    ("limits", "quota"),
    [
        (TenantLimits(Limits(), ""), None),
        (TenantLimits(Limits(max_memories=5), ""), Quota(5, None)),
        (TenantLimits(Limits(max_bytes=5), ""), Quota(None, 5)),
        (TenantLimits(Limits(max_memories=5), "", shadow=True), None),
    ],
)
def test_only_who_is_limited_has_a_quota(limits: TenantLimits, quota: Quota | None) -> None:
    assert limits.quota == quota


def test_a_memory_takes_its_text_and_its_metadata() -> None:
    new = NewMemory(UserId("ann"), "Zoë", metadata={"where": ["Köln", 1], "so": True})
    memory = draft_text(new, JobId(new_id()), datetime.now(UTC))
    assert size_of([memory]) == TenantUsage(1, 4 + len('{"so": true, "where": ["Köln", 1]}'.encode()))
