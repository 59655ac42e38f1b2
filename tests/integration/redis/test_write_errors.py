"""What a connection raises that is closed while something is written to it."""

from __future__ import annotations

import asyncio

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from memoro_core.redis.client import open_redis
from memoro_core.settings import Settings


@pytest.mark.parametrize("turns", range(6))
async def test_a_connection_closed_under_a_command_counts_as_lost(settings: Settings, turns: int) -> None:
    async with open_redis(settings) as redis:
        connection = await redis.connection_pool.get_connection()  # type: ignore[no-untyped-call]
        sending = asyncio.create_task(connection.send_command("PING"))
        for _ in range(turns):
            await asyncio.sleep(0)
        await connection.disconnect(nowait=True)
        lost = (await asyncio.gather(sending, return_exceptions=True))[0]
        assert lost is None or isinstance(lost, RedisConnectionError)
        await redis.connection_pool.release(connection)
