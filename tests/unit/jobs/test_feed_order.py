"""The order of what a feed tells."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from memoro_core.jobs.feed_order import beginning, in_order, without_overtaken
from memoro_core.jobs.feed_ports import FeedEvent, FeedPosition
from memoro_core.jobs.model import JobEvent, JobState, Stage, StageProgress

AT = datetime(2026, 1, 1, tzinfo=UTC)


def event_at(
    transaction_id: int, job: int, seq: int, state: JobState = JobState.RUNNING, stage: Stage | None = None
) -> FeedEvent:
    progress = None if stage is None else StageProgress(stage)
    change = JobEvent(seq, state, 1, AT, stage=progress)
    return FeedEvent(FeedPosition(transaction_id, UUID(int=job), seq), None, None, change)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5)), unique=True, max_size=20))
def test_events_of_each_job_come_by_number_and_each_once(places: list[tuple[int, int]]) -> None:
    events = [event_at(place, job, seq) for place, (job, seq) in enumerate(places)]
    told = in_order(events)
    assert sorted(told, key=id) == sorted(events, key=id)
    assert [event.job_id for event in told] == [event.job_id for event in events]
    by_job: dict[UUID, list[int]] = defaultdict(list)
    for event in told:
        by_job[event.job_id].append(event.position.seq)
    assert all(numbers == sorted(numbers) for numbers in by_job.values())
    assert (told is events) == (told == events)


JOBS_AND_NUMBERS = st.tuples(st.integers(0, 3), st.integers(1, 5))


@given(st.lists(JOBS_AND_NUMBERS, unique=True, max_size=12), st.integers(0, 12), st.sets(JOBS_AND_NUMBERS, max_size=3))
def test_a_beginning_is_the_longest_that_leaves_no_lower_number_behind(
    places: list[tuple[int, int]], most: int, others: set[tuple[int, int]]
) -> None:
    events = [event_at(place, job, seq) for place, (job, seq) in enumerate(places)]
    later = others - set(places)

    def leaves_none(count: int) -> bool:
        behind = later | set(places[count:])
        return not any((job, seq - 1) in behind for job, seq in places[:count])

    longest = max(count for count in range(min(most, len(places)) + 1) if leaves_none(count))
    assert beginning(events, min(most, len(places)), {(UUID(int=job), seq) for job, seq in later}) == longest


STATES = st.sampled_from(JobState)
STAGES = st.none() | st.sampled_from(Stage)


@given(st.lists(st.tuples(st.integers(0, 2), STATES, STAGES), max_size=30))
def test_only_progress_that_is_overtaken_is_left_out(changes: list[tuple[int, JobState, Stage | None]]) -> None:
    events = [event_at(place, job, place, state, stage) for place, (job, state, stage) in enumerate(changes)]
    kept = without_overtaken(events)
    assert list(kept) == [event for event in events if event in kept]
    for place, event in enumerate(events):
        change = event.change
        later = [
            one
            for one in events[place + 1 :]
            if one.job_id == event.job_id
            and one.change.state is change.state is JobState.RUNNING
            and one.change.stage == change.stage is not None
        ]
        assert (event in kept) == (not later)
