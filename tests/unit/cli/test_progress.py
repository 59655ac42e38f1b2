"""Bars on a terminal."""

from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console

from memoro import Job, JobError, JobState, JobUpdate, JobUsage, Stage, StageProgress, StageStatus
from memoro.cli.output import Output
from memoro.cli.progress import Frame, show_frames
from memoro.enums import JobKind
from memoro.watching import apply_update

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


def frames(*stages: StageProgress, state: JobState = JobState.RUNNING) -> list[Frame]:
    """A snapshot, a change for each stage, and the change to the state."""
    job = JOB
    told = [(JobUpdate("j1", 1, "t", JobState.QUEUED, 0, snapshot=job), job)]
    for sequence, stage in enumerate([*stages, None], 2):
        last = JobState.RUNNING if stage else state
        update = JobUpdate("j1", sequence, "t", last, 1, stage=stage)
        job = apply_update(job, update)
        told.append((update, job))
    return told


def shown(told: list[Frame], *, terminal: bool) -> str:
    screen = io.StringIO()
    output = Output(as_json=False)
    output.console = Console(file=screen, force_terminal=terminal, width=100, highlight=False)
    show_frames(output, told)
    return screen.getvalue()


def test_a_terminal_shows_a_bar_for_each_stage() -> None:
    screen = shown(
        frames(
            StageProgress(Stage.SCREEN, StageStatus.SUCCEEDED, 24, 24),
            StageProgress(Stage.EMBED, StageStatus.FAILED, 7, 24),
            StageProgress(Stage.EXTRACT, StageStatus.PARTIAL, 23, 24),
            StageProgress(Stage.RESOLVE, StageStatus.SKIPPED, 0, 0),
            StageProgress(Stage.COMMIT, StageStatus.RUNNING, 5, 24),
        ),
        terminal=True,
    )
    last = screen.rpartition("screen")[2]
    assert " 5/24" in last
    for mark, stage in zip("✓✗~-…", ("screen", "embed", "extract", "resolve", "commit"), strict=True):
        assert mark in screen
        assert stage in screen


def test_elsewhere_each_change_takes_a_line() -> None:
    told = shown(
        frames(
            StageProgress(Stage.EMBED, StageStatus.RUNNING, 1, 2),
            StageProgress(Stage.EMBED, StageStatus.SUCCEEDED, 2, 2),
            StageProgress(Stage.COMMIT, StageStatus.RUNNING, 0, 2),
            state=JobState.SUCCEEDED,
        ),
        terminal=False,
    )
    assert [line[10:] for line in told.splitlines()] == [
        "QUEUED",
        "RUNNING",
        "embed    running 1/2",
        "embed    succeeded 2/2",
        "commit   running 0/2",
        # It ends with the job.
        "commit   succeeded 2/2",
        "SUCCEEDED",
    ]


def test_a_terminal_says_what_a_job_waits_for() -> None:
    waiting = replace(JOB, state=JobState.QUEUED, attempt=1, error=JobError("PROVIDER_FAILED", "it answered 503", True))
    screen = shown([(JobUpdate("j1", 2, "t", JobState.QUEUED, 1), waiting)] * 2, terminal=True)
    assert screen.count("QUEUED after attempt 1 of 5: it answered 503 (PROVIDER_FAILED)") == 1
