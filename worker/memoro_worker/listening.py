"""Hints in, runs of jobs out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

import structlog
from taskiq import Context, TaskiqDepends

from memoro_core.errors import MemoroError
from memoro_core.jobs.model import JobRef, JobState
from memoro_core.jobs.slots import Slots
from memoro_core.queue.broker import READ_TIMEOUT, HintBroker, current_reservation
from memoro_core.queue.tasks import RUN_JOBS, decode
from memoro_core.redis.client import open_redis
from memoro_core.settings import Settings
from memoro_core.tasks import end_task
from memoro_worker.metrics import WorkerMetrics

_log = structlog.get_logger("memoro.worker")


class Runner(Protocol):
    """What runs jobs: a `JobRunner`."""

    async def run(self, ref: JobRef, *, claimed: Callable[[], Awaitable[None]] | None = None) -> JobState | None:
        """One attempt of a job; `claimed` is called once its claim is decided. Raises UNAVAILABLE when it can't be."""
        ...

    async def stop(self, *, grace: float) -> None:
        """Claims nothing more, and ends what runs."""
        ...


@asynccontextmanager
async def open_broker(settings: Settings, slots: Slots, stop: asyncio.Event) -> AsyncIterator[HintBroker]:
    """A broker over connections of its own, which wait for hints."""
    async with open_redis(settings, command_timeout=READ_TIMEOUT) as redis:
        yield HintBroker(redis, slots, stop)


async def listen(
    broker: HintBroker, runner: Runner, metrics: WorkerMetrics, slots: Slots, stop: asyncio.Event, *, grace: float
) -> None:
    """Runs the jobs of the hints that come, until `stop` is set; then those under way have `grace` seconds to end."""

    # Whatever a message's arguments are, it must get here: what fails before that is never acknowledged.
    async def run_jobs(*jobs: object, context: Context = TaskiqDepends(), **_: object) -> None:  # noqa: B008
        await _HintRun(runner, metrics, slots, context).run(decode(*jobs[:1]))

    broker.register_task(run_jobs, task_name=RUN_JOBS)
    receiving = asyncio.create_task(broker.receiver(grace=grace).listen(stop))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({receiving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stop.set()
        await runner.stop(grace=grace)
        await receiving
    finally:
        await end_task(stopping)
        await end_task(receiving)
        await broker.shutdown()


class _HintRun:
    """The jobs of one hint: each runs in a slot, and the hint is acknowledged once all of their claims are decided.

    While one can't be decided, the hint stays unacknowledged and comes back.
    """

    def __init__(self, runner: Runner, metrics: WorkerMetrics, slots: Slots, context: Context) -> None:
        self._runner = runner
        self._metrics = metrics
        self._slots = slots
        self._context = context
        self._undecided = 0

    async def run(self, refs: Sequence[JobRef]) -> None:
        reservation = current_reservation()
        self._undecided = len(refs)
        if not refs:
            await self._context.ack()
        async with asyncio.TaskGroup() as running:
            for ref in refs:
                await reservation.take()
                running.create_task(self._run(ref))

    async def _run(self, ref: JobRef) -> None:
        started = time.perf_counter()
        try:
            state = await self._runner.run(ref, claimed=self._decided)
        except MemoroError as error:
            _log.warning("job_not_claimed", job_id=str(ref.job_id), reason=error.message)
            self._metrics.hints.labels("not claimed").inc()
            return
        except Exception:  # noqa: BLE001 - the other jobs of the hint go on
            _log.exception("job_not_run", job_id=str(ref.job_id))
            return
        finally:
            self._slots.release()
        self._metrics.hints.labels("run" if state else "nothing to run").inc()
        if state is not None:
            self._metrics.attempts.labels(state).inc()
            self._metrics.seconds.observe(time.perf_counter() - started)

    async def _decided(self) -> None:
        self._undecided -= 1
        if not self._undecided:
            await self._context.ack()
