"""A real HTTP receiver of webhooks that verifies every signature with the library, and answers as it is told.

`async with Receiver() as receiver`, then `receiver.url`; `receiver.secrets` are those it takes; `receiver.script(...)`
says what the next requests get, one answer each, before it is itself again and answers 204; `receiver.received` holds
what came and was signed by one of the secrets, `receiver.refused` counts what was not.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

from standardwebhooks.webhooks import Webhook, WebhookVerificationError


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request gets. `hang` waits so many seconds first; `drop` closes the connection instead; `endless` never
    ends its body.
    """

    status: int = 204
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    hang: float = 0.0
    drop: bool = False
    endless: bool = False


@dataclass(frozen=True, slots=True)
class Received:
    """One event as it came."""

    id: str
    path: str
    headers: Mapping[str, str]
    body: Any
    text: str

    def verified_by(self, secret: str) -> bool:
        """Whether one of its signatures is made with this secret."""
        try:
            Webhook(secret).verify(self.text, dict(self.headers))
        except WebhookVerificationError:
            return False
        return True


class Receiver:
    """The receiver; an async context manager."""

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._answers: deque[Answer] = deque()
        self._connections: set[asyncio.Task[None]] = set()
        self._came = asyncio.Event()
        self.secrets: list[str] = []
        self.received: list[Received] = []
        self.refused = 0
        self.requests = 0
        self.connections = 0
        self.always: Answer | None = None
        self.sent = 0

    @property
    def port(self) -> int:
        """The port it listens on."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def url(self) -> str:
        """Where it takes events."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}/hook?from=memoro"

    def script(self, *answers: Answer) -> None:
        """What the next requests get."""
        self._answers.extend(answers)

    async def wait_for(self, count: int, *, seconds: float = 20.0) -> list[Received]:
        """All that came, once that is so many. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while len(self.received) < count:
                self._came.clear()
                await self._came.wait()
        return self.received

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=self._tls)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        self.connections += 1
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while await self._serve(reader, writer):
                    pass
        finally:
            self._connections.discard(task)
            writer.close()
            with suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        text = (await reader.readexactly(int(headers["content-length"]))).decode()
        self.requests += 1
        self._note(Received(headers.get("webhook-id", ""), head[0].split()[1], headers, json.loads(text), text))
        answer = self._answers.popleft() if self._answers else self.always or Answer()
        await asyncio.sleep(answer.hang)
        if answer.drop:
            return False
        length = {} if answer.endless or answer.status == 204 else {"content-length": str(len(answer.body))}
        lines = "".join(f"{name}: {value}\r\n" for name, value in {**length, **answer.headers}.items())
        writer.write(f"HTTP/1.1 {answer.status} Told\r\n{lines}\r\n".encode() + answer.body)
        await writer.drain()
        while answer.endless:
            writer.write(b"x" * 8192)
            self.sent += 8192
            await writer.drain()
        return True

    def _note(self, received: Received) -> None:
        if any(received.verified_by(secret) for secret in self.secrets):
            self.received.append(received)
            self._came.set()
        else:
            self.refused += 1
