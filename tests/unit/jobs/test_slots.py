"""Slots: never more jobs than there are, none lost, and always one for who is fresh."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoro_core.jobs.hints import HintClass
from memoro_core.jobs.slots import Reservation, Slots

FRESH, BACKLOG = HintClass.FRESH, HintClass.BACKLOG


async def settle() -> None:
    """Lets every task go as far as it can."""
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.parametrize(("total", "reserve"), [(1, 0), (2, 1), (8, 1), (15, 1), (16, 2), (100, 12)])
def test_an_eighth_is_kept_free_of_the_backlog(total: int, reserve: int) -> None:
    slots = Slots(total)
    assert (slots.room(FRESH), slots.room(BACKLOG)) == (total, total - reserve)


async def test_room_is_waited_for_without_polling() -> None:
    slots = Slots(1)
    reservation = slots.hold(FRESH, 1)
    waiting = asyncio.create_task(slots.wait_for_room(FRESH))
    await reservation.take()
    await settle()
    assert not waiting.done()
    slots.release()
    assert await waiting == 1


async def test_a_reservation_that_is_not_needed_gives_its_room_back() -> None:
    slots = Slots(4, prefetch=1)
    reservation = slots.hold(FRESH, 8)
    assert slots.room(FRESH) == slots.room(BACKLOG) == 0
    await reservation.take()
    reservation.close()
    reservation.close()
    assert (slots.free, slots.room(FRESH)) == (3, 4)


async def test_who_is_fresh_goes_first() -> None:
    slots = Slots(2)
    for _ in range(2):
        await slots.hold(FRESH, 1).take()
    backlog = asyncio.create_task(slots.hold(BACKLOG, 1).take())
    fresh = asyncio.create_task(slots.hold(FRESH, 1).take())
    await settle()
    slots.release()
    await settle()
    assert (fresh.done(), backlog.done()) == (True, False)
    slots.release()
    await settle()
    assert not backlog.done(), "one slot stays free of the backlog"
    slots.release()
    await settle()
    assert backlog.done()


async def test_more_jobs_than_were_reserved_get_slots_too() -> None:
    slots = Slots(3)
    reservation = slots.hold(FRESH, 1)
    for _ in range(3):
        await reservation.take()
    assert slots.free == 0
    assert slots.room(FRESH) == 0


@given(
    total=st.integers(1, 20),
    steps=st.lists(st.tuples(st.sampled_from(["hold", "take", "cancel", "release", "close"]), st.integers(0, 50))),
)
def test_whatever_happens_slots_are_neither_lost_nor_made(total: int, steps: list[tuple[str, int]]) -> None:
    asyncio.run(_whatever_happens(total, steps))


async def _whatever_happens(total: int, steps: list[tuple[str, int]]) -> None:
    slots = Slots(total, prefetch=2)
    held: list[Reservation] = []
    taking: list[asyncio.Task[None]] = []
    for step, number in steps:
        match step:
            case "hold":
                held.append(slots.hold(list(HintClass)[number % 2], number % 16 + 1))
            case "take" if held:
                taking.append(asyncio.create_task(held[number % len(held)].take()))
            case "cancel" if taking:
                task = taking.pop(number % len(taking))
                task.cancel()
                await settle()
                if not task.cancelled():
                    slots.release()
            case "release":
                done = [task for task in taking if task.done()]
                if done:
                    taking.remove(done[number % len(done)])
                    slots.release()
            case "close" if held:
                held.pop(number % len(held)).close()
        if number % 3:
            await settle()
        assert 0 <= slots.free <= total
    for reservation in held:
        reservation.close()
    await settle()
    while taking:
        done = [task for task in taking if task.done()]
        assert done, "somebody waits though slots are free"
        for task in done:
            taking.remove(task)
            slots.release()
        await settle()
    assert slots.free == total
    assert slots.room(FRESH) == total + 2
    assert slots.room(BACKLOG) == total + 2 - slots.reserve
