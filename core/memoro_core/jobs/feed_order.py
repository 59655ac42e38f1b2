"""In which order a reader is told of events, and which of them he can do without."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Sequence, Set
from typing import TypeVar
from uuid import UUID

from memoro_core.jobs.feed_ports import FeedEvent
from memoro_core.jobs.model import JobEvent, JobState

T = TypeVar("T")


def in_order(events: Sequence[FeedEvent]) -> Sequence[FeedEvent]:
    """These events if those of each job stand by number, else with their places changed so that they do.

    A transaction that has waited for another may stand before it in the order of the feed, though it wrote after it.
    """
    latest: dict[UUID, int] = {}
    for event in events:
        _, job_id, seq = event.position
        if latest.get(job_id, 0) > seq:
            break
        latest[job_id] = seq
    else:
        return events
    by_job: defaultdict[UUID, deque[FeedEvent]] = defaultdict(deque)
    for event in sorted(events, key=lambda one: one.position.seq):
        by_job[event.position.job_id].append(event)
    return [by_job[event.position.job_id].popleft() for event in events]


def beginning(events: Sequence[FeedEvent], count: int, later: Set[tuple[UUID, int]] = frozenset()) -> int:
    """How many of the first `count` events can be told before all others: none of whose job a lower number comes after.

    `later` names, by job and number, events that come after all of these.
    """
    places = {(event.position.job_id, event.position.seq): place for place, event in enumerate(events)}
    while True:
        for place, event in enumerate(events[:count]):
            before = event.position.job_id, event.position.seq - 1
            if before in later or places.get(before, place) >= count:
                count = place
                break
        else:
            return count


def without_overtaken(events: Sequence[FeedEvent]) -> Sequence[FeedEvent]:
    """These events without progress of a stage of which another tells later in the same attempt."""
    return _kept(events, lambda event: (event.job_id, event.change))


def without_overtaken_progress(events: Sequence[JobEvent]) -> Sequence[JobEvent]:
    """The same of one job's events."""
    return _kept(events, lambda event: (None, event))


def _kept(events: Sequence[T], told: Callable[[T], tuple[UUID | None, JobEvent]]) -> Sequence[T]:
    latest: set[tuple[object, ...]] = set()
    kept: list[T] = []
    for event in reversed(events):
        job_id, change = told(event)
        if change.stage is not None and change.state is JobState.RUNNING:
            stage = (job_id, change.attempt, change.stage.stage)
            if stage in latest:
                continue
            latest.add(stage)
        kept.append(event)
    kept.reverse()
    return kept
