"""What runs over memories tell of their stages."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from memoro_core.jobs.model import Finish, JobResult, Stage, StageProgress, StageStatus
from memoro_core.jobs.run_ports import RunContext


async def begin(context: RunContext, stage: Stage, total: int) -> None:
    """A stage over so many items begins."""
    await context.report(StageProgress(stage, StageStatus.RUNNING, 0, total))


async def skip(context: RunContext, stage: Stage) -> None:
    """A stage has nothing to do."""
    await context.report(StageProgress(stage, StageStatus.SKIPPED))


def ending(context: RunContext, committed: int, *, partial: bool) -> Callable[[JobResult], Finish]:
    """The run's last write, which tells of the commit that it is part of."""

    def finish(result: JobResult) -> Finish:
        done = StageProgress(Stage.COMMIT, StageStatus.SUCCEEDED, committed, committed)
        end = context.success(result, partial=partial)
        return dataclasses.replace(
            end, stages=tuple(done if stage.stage is Stage.COMMIT else stage for stage in end.stages)
        )

    return finish
