"""One worker process, from its settings to its end."""

from __future__ import annotations

import asyncio
import gc
import signal
from contextlib import AsyncExitStack

import structlog

from memoro_core.container import MakeHandlers, open_container
from memoro_core.errors import MemoroError
from memoro_core.jobs.dispatch import Dispatcher
from memoro_core.jobs.slots import Slots
from memoro_core.ops.http import OpsServer
from memoro_core.postgres.leader import SCHEDULER_LOCK, Leadership
from memoro_core.redis.client import ping
from memoro_core.settings import Settings
from memoro_core.tasks import end_task
from memoro_worker.listening import HintRun, listen, open_broker
from memoro_worker.metrics import WorkerMetrics
from memoro_worker.scheduling import keep_scheduling
from memoro_worker.standing_in import OwnQueue, stand_in

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


async def work(settings: Settings, stop: asyncio.Event, *, handlers: MakeHandlers | None = None) -> int:
    """Works until `stop` is set, SIGTERM or SIGINT, then stops taking jobs and ends those under way; the exit code.

    `handlers` are for another way to do the work than the memory pipeline.
    """
    logger = structlog.get_logger("memoro.worker")
    loop = asyncio.get_running_loop()
    for number in _STOP_SIGNALS:
        loop.add_signal_handler(number, stop.set)
    failed = False
    try:
        async with AsyncExitStack() as stack:
            container = await stack.enter_async_context(open_container(settings, takes_jobs=True, handlers=handlers))
            metrics = WorkerMetrics(lambda: container.job_runner.running)
            checks = {"database": container.pings.ping, "redis": lambda: ping(container.redis)}
            ops = OpsServer(settings.ops_host, settings.worker_ops_port, checks, metrics.registry)
            await stack.enter_async_context(ops)
            scheduling = asyncio.create_task(
                keep_scheduling(
                    container.scheduler,
                    Dispatcher(container.waiting, container.hints, container.clock),
                    container.recurring,
                    container.queue_monitor,
                    Leadership(settings, SCHEDULER_LOCK),
                    interval=settings.scheduler_interval,
                    poll=settings.scheduler_poll,
                    leads=metrics.leads,
                )
            )
            stack.push_async_callback(end_task, scheduling)
            delivering = asyncio.create_task(
                container.webhook_deliverer.run(
                    stop, grace=settings.drain_grace, told=lambda state: metrics.webhook_attempts.labels(state).inc()
                )
            )
            stack.push_async_callback(end_task, delivering)
            alerting = asyncio.create_task(
                container.alert_deliverer.run(
                    stop, grace=settings.drain_grace, told=lambda state: metrics.alert_attempts.labels(state).inc()
                )
            )
            stack.push_async_callback(end_task, alerting)
            slots = Slots(settings.worker_concurrency, prefetch=settings.worker_prefetch)
            broker = await stack.enter_async_context(open_broker(settings, slots, stop))
            own_queue = OwnQueue(
                slots, lambda refs, held: HintRun(container.job_runner, metrics, slots, _nobody).run(refs, held)
            )
            stack.push_async_callback(own_queue.close)
            standing_in = asyncio.create_task(
                stand_in(
                    broker,
                    Dispatcher(container.waiting, own_queue, container.clock),
                    slots,
                    interval=settings.scheduler_poll,
                )
            )
            stack.push_async_callback(end_task, standing_in)
            # What was loaded to start stays for good. Looking at it again, each full collection of garbage would hold
            # all jobs up for a tenth of a second.
            gc.collect()
            gc.freeze()
            listening = asyncio.create_task(
                listen(broker, container.job_runner, metrics, slots, stop, grace=settings.drain_grace)
            )
            logger.info("working", ops_port=ops.port, concurrency=settings.worker_concurrency)
            parts = {
                "listening": listening,
                "scheduling": scheduling,
                "delivering": delivering,
                "alerting": alerting,
                "standing in": standing_in,
            }
            await asyncio.wait(parts.values(), return_when=asyncio.FIRST_COMPLETED)
            if not stop.is_set():
                # None of them ends by itself: let whoever keeps workers running start another.
                for name, part in parts.items():
                    if part.done():
                        logger.error("a part of the worker ended", part=name, exc_info=part.exception())
                failed = True
            stop.set()
            await asyncio.gather(listening, delivering, alerting, return_exceptions=failed)
    except (MemoroError, OSError) as error:
        logger.error("the worker can't run", reason=str(error))
        return 1
    logger.info("stopped")
    return int(failed)


async def _nobody() -> None:
    """Whom the claim of a job need not be told that nobody hinted."""
