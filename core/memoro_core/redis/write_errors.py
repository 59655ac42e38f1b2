"""What redis-py raises when a connection is closed while something is written to it.

Version 8.1.0 lets an AttributeError of its own out, or with Python 3.12 a TypeError of asyncio's, which neither its
retries nor its callers take for a lost connection (redis-py #4287, mended by #4288). To be deleted with the release
that has it.
"""

from __future__ import annotations

from collections.abc import Iterable

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError

_send = AbstractConnection.send_packed_command


async def _send_or_lose(
    self: AbstractConnection, command: bytes | str | Iterable[bytes], check_health: bool = True
) -> None:
    try:
        await _send(self, command, check_health)
    except (AttributeError, TypeError) as error:
        # What is sent is packed already, so that nothing of the caller's can raise these.
        raise RedisConnectionError("the connection was closed while a command was written to it") from error


def mend_write_errors() -> None:
    """From now on every connection raises redis-py's ConnectionError then."""
    AbstractConnection.send_packed_command = _send_or_lose  # type: ignore[method-assign]
