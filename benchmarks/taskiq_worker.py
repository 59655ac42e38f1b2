"""The floor of `lifecycle`: a bare Taskiq worker on a Redis stream, whose task does nothing.

Prints tasks per second, and per second of the process's own processor time. Arguments: the URL of Redis, how many
tasks, how many at once.
"""

from __future__ import annotations

import asyncio
import sys
import time

import uvloop
from taskiq.receiver import Receiver
from taskiq_redis import RedisStreamBroker


async def main(url: str, tasks: int, concurrency: int) -> tuple[float, float]:
    """Tasks that one process consumes per second, and per second of its processor time."""
    broker = RedisStreamBroker(url, queue_name="floor", consumer_id="0", xread_count=concurrency)
    left = tasks
    done = asyncio.Event()

    @broker.task
    async def nothing(number: int) -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set()

    broker.is_worker_process = True
    await broker.startup()
    for first in range(0, tasks, 100):
        await asyncio.gather(*(nothing.kiq(number) for number in range(first, min(first + 100, tasks))))
    stop = asyncio.Event()
    receiver = Receiver(broker, max_async_tasks=concurrency, max_prefetch=concurrency)
    started, worked = time.perf_counter(), time.process_time()
    listening = asyncio.create_task(receiver.listen(stop))
    await done.wait()
    seconds, processor = time.perf_counter() - started, time.process_time() - worked
    stop.set()
    await listening
    await broker.shutdown()
    return tasks / seconds, tasks / processor


if __name__ == "__main__":
    print(*uvloop.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
