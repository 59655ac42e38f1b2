"""Embedded servers for tests, in folders of their own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

from memoro_core.embedded.stack import Stack, open_stack

StackFactory = Callable[[], Awaitable[Stack]]


@contextmanager
def temporary_data_dir() -> Iterator[Path]:
    """A folder that is removed at the end.

    Not pytest's own, whose parents a second run of pytest makes private again, while PostgreSQL, which does not run as
    root, may need to pass them.
    """
    folder = Path(tempfile.mkdtemp(prefix="memoro-test-")).resolve()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def temporary_stack(*, durable: bool) -> AsyncIterator[Stack]:
    """PostgreSQL, migrated, and Redis, both empty, stopped and removed at the end."""
    with temporary_data_dir() as folder:
        async with open_stack(folder, durable=durable) as stack:
            yield stack


@asynccontextmanager
async def stack_maker() -> AsyncIterator[StackFactory]:
    """Makes durable stacks on demand, each its own, for tests that kill them; all stopped and removed at the end."""
    async with AsyncExitStack() as stacks:

        async def make() -> Stack:
            return await stacks.enter_async_context(temporary_stack(durable=True))

        yield make
