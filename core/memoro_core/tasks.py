"""Ending tasks for certain."""

from __future__ import annotations

import asyncio
from typing import Any, Final

_PATIENCE: Final = 0.5


async def end_task(task: asyncio.Task[Any]) -> None:
    """Cancels a task and waits until it has ended, whatever it ends with.

    Once is not always enough: `asyncio.wait_for` of Python 3.11, which drivers use, loses a cancellation that comes
    just when what it waits for is done.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=_PATIENCE)
    if not task.cancelled():
        task.exception()  # seen, so that nobody is told that it was not
