"""Slack's two ways in over real HTTP: an incoming webhook, and `chat.postMessage` of the Web API.

`async with Slack() as slack`, then `slack.webhook_url` or `slack.api_url`; `slack.script(...)` says what the next
requests get, one answer each, before it is itself again; `slack.messages` holds what was taken.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web

SECRET_PATH = "/services/T000/B000/sEcReTpAtH"
TOKEN = "xoxb-sEcReTtOkEn"


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request gets, `hang` seconds later. `drop` takes the message, and closes the connection instead."""

    status: int = 200
    text: str = "ok"
    headers: Mapping[str, str] = field(default_factory=dict)
    hang: float = 0.0
    drop: bool = False


class Slack:
    """The server; an async context manager."""

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._runner: web.AppRunner | None = None
        self._port = 0
        self._answers: deque[Answer] = deque()
        self.always: Answer | None = None
        self.messages: list[Mapping[str, Any]] = []
        self.requests = 0

    @property
    def url(self) -> str:
        """Where it is."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}"

    @property
    def webhook_url(self) -> str:
        """The incoming webhook, whose path is its secret."""
        return self.url + SECRET_PATH

    @property
    def api_url(self) -> str:
        """The Web API."""
        return f"{self.url}/api/"

    def script(self, *answers: Answer) -> None:
        """What the next requests get."""
        self._answers.extend(answers)

    async def wait_for(self, count: int, *, seconds: float = 20.0) -> list[Mapping[str, Any]]:
        """All that came, once that is so many. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while len(self.messages) < count:
                await asyncio.sleep(0.01)
        return self.messages

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post(SECRET_PATH, self._webhook)
        app.router.add_post("/api/chat.postMessage", self._post_message)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls)
        await site.start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _webhook(self, request: web.Request) -> web.Response:
        answer = await self._scripted(request)
        if answer is None or answer.status == 200:
            self.messages.append(await request.json())
        return self._sent(request, answer) or web.Response(text="ok")

    async def _post_message(self, request: web.Request) -> web.Response:
        answer = await self._scripted(request)
        if scripted := self._sent(request, answer):
            return scripted
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return web.json_response({"ok": False, "error": "invalid_auth"})
        message = dict(await request.post()) if "json" not in request.content_type else await request.json()
        if message.get("channel") != "#ops":
            return web.json_response({"ok": False, "error": "channel_not_found"})
        self.messages.append(message)
        return web.json_response({"ok": True, "ts": "1.0"})

    async def _scripted(self, request: web.Request) -> Answer | None:
        self.requests += 1
        answer = self._answers.popleft() if self._answers else self.always
        if answer is not None:
            await asyncio.sleep(answer.hang)
        return answer

    def _sent(self, request: web.Request, answer: Answer | None) -> web.Response | None:
        if answer is None:
            return None
        if answer.drop and request.transport is not None:
            request.transport.close()
        return web.Response(status=answer.status, text=answer.text, headers=answer.headers)
