"""Bars on a terminal."""

from __future__ import annotations

import io

from rich.console import Console

from memoro import Job, JobState, JobUpdate, JobUsage, Stage, StageProgress, StageStatus
from memoro.cli.output import Output
from memoro.cli.progress import ending, show_updates
from memoro.enums import JobKind

STAGES = tuple(StageProgress(stage, StageStatus.PENDING, 0, 0) for stage in Stage if stage is not Stage.UNKNOWN)
JOB = Job(
    id="j1",
    kind=JobKind.MEMORY_ENRICH,
    state=JobState.QUEUED,
    priority=None,
    user_id="ann",
    memory_ids=("m1",),
    stages=STAGES,
    partial=False,
    attempt=0,
    max_attempts=5,
    error=None,
    result=None,
    usage=JobUsage(),
    cancel_requested=False,
    sequence=1,
    create_time=None,
    run_time=None,
    start_time=None,
    end_time=None,
)


def update(sequence: int, stage: StageProgress | None = None, snapshot: Job | None = None) -> JobUpdate:
    return JobUpdate("j1", sequence, "t", JobState.RUNNING, 1, snapshot=snapshot, stage=stage)


def test_a_terminal_shows_a_bar_for_each_stage() -> None:
    screen = io.StringIO()
    output = Output(as_json=False)
    output.console = Console(file=screen, force_terminal=True, width=100)
    moved = [
        StageProgress(Stage.SCREEN, StageStatus.SUCCEEDED, 24, 24),
        StageProgress(Stage.EMBED, StageStatus.RUNNING, 7, 24),
        StageProgress(Stage.EXTRACT, StageStatus.FAILED, 3, 24),
        StageProgress(Stage.RESOLVE, StageStatus.SKIPPED, 0, 0),
    ]
    show_updates(output, [update(1, snapshot=JOB), *(update(n, stage) for n, stage in enumerate(moved, 2))])
    last = screen.getvalue().rpartition("screen")[2]
    assert "24/24" in last
    assert "7/24" in last
    for stage in Stage:
        if stage is not Stage.UNKNOWN:
            assert stage.lower() in screen.getvalue()
    for mark in "✓…✗-":
        assert mark in screen.getvalue()


def test_elsewhere_each_change_takes_a_line() -> None:
    screen = io.StringIO()
    output = Output(as_json=False)
    output.console = Console(file=screen, width=100)
    show_updates(output, [update(1, snapshot=JOB), update(2, StageProgress(Stage.EMBED, StageStatus.RUNNING, 1, 2))])
    first, second = screen.getvalue().splitlines()
    assert first.endswith("RUNNING")
    assert second.endswith("embed    running 1/2")


def test_an_ending_says_what_there_is_to_say() -> None:
    assert ending(JOB) == "job j1 QUEUED"
