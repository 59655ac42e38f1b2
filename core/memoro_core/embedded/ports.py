"""Ports on the loopback interface: which are free, and which one a data directory used last."""

from __future__ import annotations

import asyncio
import secrets
import socket
from pathlib import Path

from memoro_core.embedded.errors import PortTakenError

LOOPBACK = "127.0.0.1"

# Below the range from which systems take the ports of outgoing connections: while a server is down, a client that keeps
# trying could otherwise be given the server's own port, connect to itself, and keep the server from coming back.
PORTS = range(15_000, 32_000)
ATTEMPTS = 200
PATIENCE = 5.0


def is_free(port: int) -> bool:
    """Whether a server could listen on the port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do it: connections that linger after their end do not count as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_port(preferred: int | None = None) -> int:
    """The preferred port if it is free, else a free one by chance.

    Raises `PortTakenError` when none was found.
    """
    if preferred and is_free(preferred):
        return preferred
    for _ in range(ATTEMPTS):
        port = PORTS[secrets.randbelow(len(PORTS))]
        if is_free(port):
            return port
    raise PortTakenError(f"No port between {PORTS.start} and {PORTS.stop} is free.")


def remembered_port(file: Path) -> int | None:
    """The port written in the file, or None when there is none worth trying."""
    try:
        port = int(file.read_text())
    except (FileNotFoundError, ValueError):
        return None
    return port if 0 < port <= 65_535 else None


async def wait_until_free(port: int) -> int:
    """The port itself, as soon as it is free: a server that was killed may take a moment to let go of it.

    Raises `PortTakenError` after five seconds.
    """
    try:
        async with asyncio.timeout(PATIENCE):
            while not is_free(port):
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise PortTakenError(f"({LOOPBACK}:{port})") from None
    return port
