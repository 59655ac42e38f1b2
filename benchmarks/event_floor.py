"""The floor under every event: a bare grpc.aio server that writes the entries of one Redis stream to bare streams.

A caller names a stream; the first message says that it is open, and then each entry of that name is written to it.
"""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc.aio
import uvloop
from redis.asyncio import Redis

METHOD: Final = "/benchmarks.Floor/Watch"
STREAM: Final = "benchmarks:floor"
OPEN: Final = b"open"


class _Floor(grpc.GenericRpcHandler):
    def __init__(self) -> None:
        self._watchers: defaultdict[bytes, asyncio.Queue[bytes]] = defaultdict(asyncio.Queue)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        return grpc.unary_stream_rpc_method_handler(self._watch)

    async def _watch(self, name: bytes, _: grpc.aio.ServicerContext[bytes, bytes]) -> AsyncIterator[bytes]:
        entries = self._watchers[name]
        yield OPEN
        while True:
            yield await entries.get()

    async def read(self, redis: Redis) -> None:
        """Hands entries out, for ever."""
        last: bytes | str = "$"
        while True:
            answer: Any = await redis.xread({STREAM: last}, count=1000, block=1000)
            for _, entries in answer:
                for entry_id, fields in entries:
                    last = entry_id
                    self._watchers[fields[b"name"]].put_nowait(fields[b"message"])


async def _serve(port: int, redis_url: str) -> None:
    floor = _Floor()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((floor,))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    async with Redis.from_url(redis_url, protocol=2) as redis:
        await floor.read(redis)


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), sys.argv[2]))
