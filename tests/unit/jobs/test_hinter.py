"""How hints are gathered into messages."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoro_core.errors import unavailable
from memoro_core.ids import JobId, TenantId
from memoro_core.jobs.hinter import BackgroundHinter, grouped
from memoro_core.jobs.hints import HINT_SIZE, HintClass
from memoro_core.jobs.model import JobRef
from memoro_core.tenancy.model import FREE_TIER, PRO_TIER, TierName


@dataclass
class SlowQueue:
    """Notes what is sent, and takes its time."""

    sent: list[tuple[TierName, Sequence[Sequence[JobRef]]]] = field(default_factory=list)
    away: bool = False

    async def send_fresh(self, groups: Sequence[Sequence[JobRef]], tier: TierName) -> None:
        await asyncio.sleep(0.01)
        if self.away:
            raise unavailable("redis")
        self.sent.append((tier, groups))

    async def send_backlog(self, groups: Sequence[Sequence[JobRef]]) -> None:
        raise NotImplementedError

    async def oldest(self) -> Mapping[HintClass, datetime | None]:
        raise NotImplementedError


def new_refs(count: int) -> list[JobRef]:
    return [JobRef(TenantId(uuid4()), JobId(uuid4())) for _ in range(count)]


@given(st.integers(1, 500))
def test_groups_hold_every_job_once_and_in_order(count: int) -> None:
    refs = new_refs(count)
    groups = grouped(refs)
    assert [ref for group in groups for ref in group] == refs
    assert all(1 <= len(group) <= 8 <= HINT_SIZE for group in groups)


@pytest.mark.parametrize(("jobs", "messages"), [(1, 1), (8, 8), (16, 8), (64, 8), (500, 63)])
def test_a_burst_spreads_over_workers_before_its_messages_grow(jobs: int, messages: int) -> None:
    assert len(grouped(new_refs(jobs))) == messages


async def test_what_gathers_while_a_send_is_under_way_goes_out_together_by_tier() -> None:
    queue, refs = SlowQueue(), new_refs(33)
    tiers = {ref.tenant_id: (FREE_TIER, PRO_TIER)[number % 2] for number, ref in enumerate(refs)}
    hinter = BackgroundHinter(queue, tiers.__getitem__)
    hinter.hint(refs[0])
    await asyncio.sleep(0.005)
    for ref in refs[1:]:
        hinter.hint(ref)
    await hinter.close()
    assert [(tier, [len(group) for group in groups]) for tier, groups in queue.sent] == [
        (FREE_TIER, [1]),
        (PRO_TIER, [2] * 8),
        (FREE_TIER, [2] * 8),
    ]


async def test_what_can_t_be_sent_is_left_to_the_scheduler() -> None:
    queue = SlowQueue(away=True)
    hinter = BackgroundHinter(queue, lambda _: FREE_TIER)
    hinter.hint(new_refs(1)[0])
    await hinter.close()
    queue.away = False
    hinter.hint(new_refs(1)[0])
    await hinter.close()
    assert len(queue.sent) == 1
