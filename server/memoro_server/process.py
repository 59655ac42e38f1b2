"""One server process, from its settings to its end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
from contextlib import AsyncExitStack
from typing import Any

import structlog

from memoro_core.container import open_container
from memoro_core.errors import MemoroError, unavailable
from memoro_core.llm.factory import MissingProviderError
from memoro_core.ops.http import Check, OpsServer
from memoro_core.settings import Settings
from memoro_server.app import MemoroServer
from memoro_server.metrics import ServerMetrics
from memoro_server.serving import Serving

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


async def serve(settings: Settings, parent: socket.socket | None = None) -> int:
    """Serves until SIGTERM or SIGINT, then drains; a second signal stops at once. The exit code.

    With a `parent` the process is one of several on a shared port: it tells the parent over that socket whether it
    serves (`1` or `0`), leaves operations over HTTP to it, and drains when the parent is gone.
    """
    logger = structlog.get_logger("memoro.server")
    stop, stop_now = asyncio.Event(), asyncio.Event()
    _on_signals(stop, stop_now)
    try:
        async with AsyncExitStack() as stack:
            container = await stack.enter_async_context(open_container(settings))
            metrics = ServerMetrics()
            server = await stack.enter_async_context(MemoroServer(container, metrics, shared_port=parent is not None))
            if parent is None:
                ops = OpsServer(
                    settings.ops_host, settings.server_ops_port, {"serving": _check(server.serving)}, metrics.registry
                )
                await stack.enter_async_context(ops)
                logger.info("serving", port=server.port, ops_port=ops.port, pid=os.getpid())
            else:
                reporting = asyncio.create_task(_report(server.serving, parent))
                stack.push_async_callback(_end, reporting)
                watching = asyncio.create_task(_wait_for_end(parent, stop))
                stack.push_async_callback(_end, watching)
                logger.info("serving", port=server.port, pid=os.getpid())
            # What was loaded to start stays for good: no collection of garbage need look at it again.
            gc.collect()
            gc.freeze()
            await stop.wait()
            logger.info("draining", port=server.port)
            await _drain(server, stop_now)
    except (MemoroError, MissingProviderError, OSError) as error:
        logger.error("the server can't run", reason=str(error))
        return 1
    logger.info("stopped")
    return 0


def _on_signals(stop: asyncio.Event, stop_now: asyncio.Event) -> None:
    def on_signal() -> None:
        (stop_now if stop.is_set() else stop).set()

    loop = asyncio.get_running_loop()
    for number in _STOP_SIGNALS:
        loop.add_signal_handler(number, on_signal)


def _check(serving: Serving) -> Check:
    async def check() -> None:
        if not serving:
            raise unavailable("server")

    return check


async def _report(serving: Serving, parent: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(ConnectionError):
        while True:
            change = serving.next_change()
            await loop.sock_sendall(parent, b"1" if serving else b"0")
            await change.wait()


async def _wait_for_end(parent: socket.socket, stop: asyncio.Event) -> None:
    """The parent sends nothing: what can be read is that it is gone."""
    with contextlib.suppress(ConnectionError):
        await asyncio.get_running_loop().sock_recv(parent, 1)
    stop.set()


async def _drain(server: MemoroServer, stop_now: asyncio.Event) -> None:
    """Drains to the end, or until a second signal."""
    draining, asked = asyncio.create_task(server.drain()), asyncio.create_task(stop_now.wait())
    try:
        await asyncio.wait((draining, asked), return_when=asyncio.FIRST_COMPLETED)
        if draining.done():
            draining.result()
    finally:
        await _end(draining)
        await _end(asked)


async def _end(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
