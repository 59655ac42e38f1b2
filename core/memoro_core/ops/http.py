"""Health and metrics over HTTP: `/healthz`, `/readyz`, `/metrics`. Small, because it answers operators only."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Final

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from memoro_core.errors import MemoroError

Check = Callable[[], Awaitable[None]]
"""Returns when the thing it checks is well, and raises when it is not."""

CHECK_TIMEOUT: Final = 2.0
_READ_TIMEOUT: Final = 5.0
_MAX_HEAD: Final = 16 * 1024
_JSON: Final = "application/json"
_log = structlog.get_logger(__name__)


class OpsServer:
    """Answers operators while the block is entered.

    `/healthz` says that the event loop turns; `/readyz` runs the checks, each within CHECK_TIMEOUT, and answers 503
    with the names of those that fail (never with their causes, which go to the log); `/metrics` is the registry in the
    Prometheus format. Port 0 takes a free one: see `port`. Raises OSError when the port is taken.
    """

    def __init__(self, host: str, port: int, checks: Mapping[str, Check], registry: CollectorRegistry) -> None:
        self._host = host
        self._port = port
        self._checks = dict(checks)
        self._registry = registry
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._port

    async def __aenter__(self) -> OpsServer:
        self._server = await asyncio.start_server(self._accept, self._host, self._port, limit=_MAX_HEAD)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
            for task in self._open:
                task.cancel()
            await asyncio.gather(*self._open, return_exceptions=True)
            await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._open.add(task)
            task.add_done_callback(self._open.discard)
        try:
            async with asyncio.timeout(_READ_TIMEOUT):
                head = await reader.readuntil(b"\r\n\r\n")
            writer.write(await self._answer(head.decode("latin-1")))
            await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            return  # The other side went away, is too slow or speaks no HTTP: it gets no answer.
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(self, head: str) -> bytes:
        request, *lines = head.split("\r\n")
        method, _, target = request.partition(" ")
        path = target.partition(" ")[0].partition("?")[0]
        if method not in {"GET", "HEAD"}:
            return _response(HTTPStatus.METHOD_NOT_ALLOWED, _JSON, _body("GET or HEAD"), method)
        match path:
            case "/healthz":
                return _response(HTTPStatus.OK, _JSON, _body("ok"), method)
            case "/readyz":
                failed = await self.failed_checks()
                status = HTTPStatus.SERVICE_UNAVAILABLE if failed else HTTPStatus.OK
                return _response(status, _JSON, _body("not ready" if failed else "ok", failed), method)
            case "/metrics":
                accept = next((line[7:] for line in lines if line.lower().startswith("accept:")), "")
                encode, content_type = choose_encoder(accept)
                return _response(HTTPStatus.OK, content_type, encode(self._registry), method)
        return _response(HTTPStatus.NOT_FOUND, _JSON, _body("no such page"), method)

    async def failed_checks(self) -> list[str]:
        """The names of the checks that fail now."""
        results = await asyncio.gather(*(self._passes(name, check) for name, check in self._checks.items()))
        return [name for name, passes in zip(self._checks, results, strict=True) if not passes]

    async def _passes(self, name: str, check: Check) -> bool:
        try:
            async with asyncio.timeout(CHECK_TIMEOUT):
                await check()
        except Exception as error:  # noqa: BLE001 - whatever it is, the check fails
            reason = error.message if isinstance(error, MemoroError) else type(error).__name__
            _log.warning("check_failed", check=name, reason=reason)
            return False
        return True


def _body(status: str, failed: list[str] | None = None) -> bytes:
    return json.dumps({"status": status, "failed": failed or []}).encode()


def _response(status: HTTPStatus, content_type: str, body: bytes, method: str) -> bytes:
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\n"
        f"content-type: {content_type}\r\ncontent-length: {len(body)}\r\n"
        "cache-control: no-store\r\nx-content-type-options: nosniff\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + (b"" if method == "HEAD" else body)
