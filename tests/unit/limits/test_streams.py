"""The cap on open streams."""

from __future__ import annotations

from contextlib import AsyncExitStack
from uuid import uuid4

import pytest

from memoro_core.errors import Code, MemoroError, Reason
from memoro_core.ids import TenantId
from memoro_core.limits.streams import LocalOpenStreams

MINE, THEIRS = TenantId(uuid4()), TenantId(uuid4())


async def test_one_stream_too_many_is_refused_until_another_ends() -> None:
    streams = LocalOpenStreams()
    async with AsyncExitStack() as held:
        for _ in range(3):
            await held.enter_async_context(streams.one_more(MINE, maximum=3))
        with pytest.raises(MemoroError) as refused:
            await held.enter_async_context(streams.one_more(MINE, maximum=3))
        assert (refused.value.code, refused.value.reason) == (Code.RESOURCE_EXHAUSTED, Reason.RATE_LIMITED)
        assert refused.value.metadata == {"limit": "open_streams", "maximum": "3"}
        assert refused.value.retry_after
        async with streams.one_more(THEIRS, maximum=1):
            pass
    async with streams.one_more(MINE, maximum=1):
        pass


async def test_a_stream_that_breaks_is_counted_no_longer() -> None:
    streams = LocalOpenStreams()
    for _ in range(3):
        with pytest.raises(RuntimeError):
            async with streams.one_more(MINE, maximum=1):
                raise RuntimeError
    async with streams.one_more(MINE, maximum=1):
        pass
