"""Concurrent calls gathered into batches."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from memoro_core.batching import Coalescer


class Recorder:
    """A flush that notes its batches, and waits to be let go on."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, list[int]]] = []
        self.go_on = asyncio.Event()
        self.running = 0
        self.most_running = 0

    async def flush(self, key: str, items: Sequence[int]) -> Sequence[int | Exception]:
        self.batches.append((key, list(items)))
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        await self.go_on.wait()
        self.running -= 1
        return [ValueError(str(item)) if item < 0 else item * 10 for item in items]


async def test_a_lone_item_waits_for_nobody() -> None:
    recorder = Recorder()
    recorder.go_on.set()
    coalescer: Coalescer[str, int, int] = Coalescer(recorder.flush)
    assert await asyncio.wait_for(coalescer.submit("a", 1), 1) == 10


async def test_items_gather_while_a_flush_is_under_way() -> None:
    recorder = Recorder()
    coalescer: Coalescer[str, int, int] = Coalescer(recorder.flush, max_items=3)
    first = asyncio.create_task(coalescer.submit("a", 0))
    await asyncio.sleep(0.01)
    rest = [asyncio.create_task(coalescer.submit("a", n)) for n in range(1, 8)]
    await asyncio.sleep(0.01)
    recorder.go_on.set()
    assert await asyncio.gather(first, *rest) == [n * 10 for n in range(8)]
    assert recorder.batches == [("a", [0]), ("a", [1, 2, 3]), ("a", [4, 5, 6]), ("a", [7])]
    assert recorder.most_running == 1


async def test_keys_do_not_wait_for_each_other() -> None:
    recorder = Recorder()
    coalescer: Coalescer[str, int, int] = Coalescer(recorder.flush)
    tasks = [asyncio.create_task(coalescer.submit(key, 1)) for key in "abc"]
    await asyncio.sleep(0.01)
    assert recorder.most_running == 3
    recorder.go_on.set()
    await asyncio.gather(*tasks)


async def test_a_key_flushes_in_parallel_up_to_its_bound() -> None:
    recorder = Recorder()
    coalescer: Coalescer[str, int, int] = Coalescer(recorder.flush, max_items=1, max_parallel=2)
    tasks = [asyncio.create_task(coalescer.submit("a", n)) for n in range(6)]
    await asyncio.sleep(0.01)
    assert recorder.most_running == 2
    recorder.go_on.set()
    assert await asyncio.gather(*tasks) == [n * 10 for n in range(6)]


async def test_one_items_exception_is_its_own() -> None:
    recorder = Recorder()
    recorder.go_on.set()
    coalescer: Coalescer[str, int, int] = Coalescer(recorder.flush)
    good, bad = await asyncio.gather(coalescer.submit("a", 1), coalescer.submit("a", -1), return_exceptions=True)
    assert good == 10
    assert isinstance(bad, ValueError)


async def test_a_failed_flush_fails_its_items_and_not_the_next() -> None:
    failures = [OSError("away")]

    async def flush(_: str, items: Sequence[int]) -> Sequence[int | Exception]:
        if failures:
            raise failures.pop()
        return list(items)

    coalescer: Coalescer[str, int, int] = Coalescer(flush)
    with pytest.raises(OSError, match="away"):
        await coalescer.submit("a", 1)
    assert await coalescer.submit("a", 2) == 2


async def test_a_caller_that_leaves_does_not_disturb_the_others() -> None:
    recorder = Recorder()
    coalescer: Coalescer[str, int, int] = Coalescer(recorder.flush)
    leaver = asyncio.create_task(coalescer.submit("a", 1))
    stayer = asyncio.create_task(coalescer.submit("a", 2))
    await asyncio.sleep(0.01)
    leaver.cancel()
    recorder.go_on.set()
    assert await stayer == 20
    with pytest.raises(asyncio.CancelledError):
        await leaver


async def test_close_waits_for_what_was_submitted() -> None:
    recorder = Recorder()
    coalescer: Coalescer[str, int, int] = Coalescer(recorder.flush)
    waiting = asyncio.create_task(coalescer.submit("a", 1))
    await asyncio.sleep(0.01)
    closing = asyncio.create_task(coalescer.close())
    await asyncio.sleep(0.01)
    assert not closing.done()
    recorder.go_on.set()
    await closing
    assert await waiting == 10


async def test_a_crowded_key_lingers_for_more_and_a_lone_caller_only_once() -> None:
    recorder = Recorder()
    recorder.go_on.set()
    coalescer: Coalescer[str, int, int] = Coalescer(recorder.flush, linger=0.05)
    loop = asyncio.get_running_loop()

    async def submit_later(number: int, delay: float) -> int:
        await asyncio.sleep(delay)
        return await coalescer.submit("a", number)

    await asyncio.gather(coalescer.submit("a", 0), coalescer.submit("a", 1))
    await asyncio.gather(submit_later(2, 0), submit_later(3, 0.02))
    assert [items for _, items in recorder.batches] == [[0, 1], [2, 3]]
    await coalescer.submit("a", 4)
    began = loop.time()
    await coalescer.submit("a", 5)
    assert loop.time() - began < 0.04
