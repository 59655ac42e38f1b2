"""How bulk operations cut their work, and when a day begins."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoro_core.ids import JobId, TenantId
from memoro_core.jobs.model import JobRef
from memoro_core.jobs.operation_model import MAX_BATCH_JOBS, MAX_BATCH_MEMORIES, Candidate, batches
from memoro_core.jobs.operations import day_start

CANDIDATES = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from([1, 1, 1, 20, 500, MAX_BATCH_MEMORIES + 1])), max_size=1_500
).map(
    lambda pairs: [
        Candidate(JobRef(TenantId(UUID(int=tenant)), JobId(UUID(int=place))), memories)
        for place, (tenant, memories) in enumerate(pairs)
    ]
)


@given(CANDIDATES)
def test_batches_hold_every_job_once_in_order_and_are_bounded(candidates: list[Candidate]) -> None:
    memories = {candidate.ref.job_id: candidate.memories for candidate in candidates}
    seen: dict[TenantId, list[JobId]] = {}
    for tenant_id, job_ids in batches(candidates):
        assert 0 < len(job_ids) <= MAX_BATCH_JOBS
        assert len(job_ids) == 1 or sum(memories[job_id] for job_id in job_ids) <= MAX_BATCH_MEMORIES
        seen.setdefault(tenant_id, []).extend(job_ids)
    expected: dict[TenantId, list[JobId]] = {}
    for candidate in candidates:
        expected.setdefault(candidate.ref.tenant_id, []).append(candidate.ref.job_id)
    assert seen == expected


@pytest.mark.parametrize(
    ("now", "zone", "start"),
    [
        ("2026-03-10T12:00+00:00", "UTC", "2026-03-10T00:00+00:00"),
        ("2026-03-10T23:30+00:00", "Europe/Berlin", "2026-03-10T23:00+00:00"),
        ("2026-03-10T22:30+00:00", "Europe/Berlin", "2026-03-09T23:00+00:00"),
        # Clocks went forward and back in the night, after the day had begun.
        ("2026-03-29T12:00+00:00", "Europe/Berlin", "2026-03-28T23:00+00:00"),
        ("2026-10-25T12:00+00:00", "Europe/Berlin", "2026-10-24T22:00+00:00"),
        ("2026-01-01T05:00+00:00", "America/New_York", "2026-01-01T05:00+00:00"),
        ("2026-01-01T04:59+00:00", "America/New_York", "2025-12-31T05:00+00:00"),
    ],
)
def test_a_day_begins_at_midnight_of_its_time_zone(now: str, zone: str, start: str) -> None:
    assert day_start(datetime.fromisoformat(now), ZoneInfo(zone)) == datetime.fromisoformat(start).astimezone(UTC)
