"""Stands for a server or a worker where only their being processes matters: `python stub_service.py server|worker DIR`.

Writes its pid and that of a child of its own to DIR/NAME, answers `/readyz` on its operations port, and on SIGTERM
writes DIR/NAME.stopped and exits with 0.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    await writer.drain()
    writer.close()


async def serve(name: str, directory: Path) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    child = subprocess.Popen(["sleep", "600"])
    port = int(os.environ[f"MEMORO_{name.upper()}_OPS_PORT"])
    server = await asyncio.start_server(answer, "127.0.0.1", port)
    print(f"{name} writes to its standard output", flush=True)
    fresh = directory / f"{name}.new"
    fresh.write_text(f"{os.getpid()} {child.pid}")
    fresh.replace(directory / name)
    await stop.wait()
    server.close()
    child.kill()
    child.wait()
    (directory / f"{name}.stopped").touch()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], Path(sys.argv[2])))
