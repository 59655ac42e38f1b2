"""Asking a process over its operations port whether it is ready."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from memoro_core.embedded.ports import LOOPBACK

ANSWER_TIMEOUT = 2.0
OK = b"200"


async def is_ready(port: int) -> bool:
    """Whether `/readyz` on the port answers 200."""
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT):
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
            try:
                writer.write(f"GET /readyz HTTP/1.1\r\nHost: {LOOPBACK}:{port}\r\nConnection: close\r\n\r\n".encode())
                await writer.drain()
                status = (await reader.readline()).split()
            finally:
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()
    except (OSError, TimeoutError):
        return False
    return status[1:2] == [OK]
