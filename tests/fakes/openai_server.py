"""A real HTTP server that speaks the OpenAI protocol's embeddings and chat completions, and fails on demand.

In a test: `async with FakeOpenAI() as server`, then `server.base_url`; `server.script("embeddings", Fault(status=429))`
says what the next requests get, one fault each, before the server is itself again; `server.requests` and
`server.billed` tell what came and what was charged; `server.bill` has it in money, by prices of its own;
`server.tokens_of` counts the tokens of a text. While `server.open` is not set, requests wait for their answers.

A request is billed once its answer is made, whether or not anybody is there to take it any more.

By itself: `python -m tests.fakes.openai_server --port 8900` prints its base URL. Faults then come over HTTP: POST a
list such as `[{"status": 429, "headers": {"retry-after": "1"}}]` to `/script/embeddings`; GET `/requests` tells what
came.

Embeddings are bags of hashed words, so that texts which share words are near each other. An extraction names the
capitalised words of the text, each related to the next, unless `answers` has a reply for it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import re
import zlib
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from http import HTTPStatus
from itertools import pairwise
from typing import Any, Self, TypeAlias

_NAME = re.compile(r"\b[A-Z][\w'-]*(?: [A-Z0-9][\w'-]*)*")


@dataclass(frozen=True, slots=True)
class Fault:
    """What one request gets: the named parts replace those of a good answer.

    `hang` waits so many seconds first; `drop` closes the connection instead of answering; `content` is the text of the
    chat message, `finish` its finish_reason; `embeddings` stand in the place of the vectors.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | None = None
    hang: float = 0.0
    drop: bool = False
    content: Any = None
    finish: str = "stop"
    refusal: str | None = None
    embeddings: list[Any] | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came."""

    path: str
    headers: Mapping[str, str]
    body: Any


@dataclass(frozen=True, slots=True)
class Billed:
    """What one request is charged for: the tokens of each of its texts, and those of the answer."""

    kind: str
    model: str
    texts: Mapping[str, int]
    output_tokens: int = 0

    @property
    def input_tokens(self) -> int:
        """Those of all texts."""
        return sum(self.texts.values())


class Moment(Enum):
    """Where a request stands."""

    CAME = auto()
    BILLED = auto()
    ANSWERED = auto()


Watch: TypeAlias = Callable[[Moment, Request], Awaitable[None]]


class FakeOpenAI:
    """The server; an async context manager. `reject` marks inputs that get a 400, the whole request with them.

    `watch` is awaited at each moment of each request, and may keep it waiting. With `any_key` no key is wrong.
    """

    def __init__(
        self, *, host: str = "127.0.0.1", port: int = 0, dimensions: int = 64, api_key: str = "test-key"
    ) -> None:
        self._host = host
        self._port = port
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._faults: dict[str, deque[Fault]] = {"embeddings": deque(), "chat": deque()}
        self.api_key = api_key
        self.dimensions = dimensions
        self.delay = 0.0
        self.open = asyncio.Event()
        self.open.set()
        self.reject: str | None = None
        self.max_input_bytes: int | None = None
        self.answers: dict[str, str] = {}
        self.tokens_of: Callable[[str], int] = count_tokens
        self.requests: list[Request] = []
        self.billed = 0
        self.bills: list[Billed] = []
        self.any_key = False
        self.watch: Watch | None = None
        self.running = 0
        self.most_running = 0

    @property
    def base_url(self) -> str:
        """Where a client connects, `/v1` included."""
        return f"http://{self._host}:{self._port}/v1"

    def script(self, kind: str, *faults: Fault) -> None:
        """What the next requests of a kind ("embeddings" or "chat") get, one fault each."""
        self._faults[kind].extend(faults)

    def bill(self, prices: Mapping[str, tuple[int, int]]) -> int:
        """What all of it costs: by the model, so many pico-dollars for a token in and one out."""
        return sum(
            one.input_tokens * prices[one.model][0] + one.output_tokens * prices[one.model][1] for one in self.bills
        )

    def count(self, kind: str) -> int:
        """How many requests of a kind have come."""
        return sum(kind in request.path for request in self.requests)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, self._host, self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while await self._serve(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answers one request; False when the connection is to be closed."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        raw = await reader.readexactly(int(headers.get("content-length", "0")))
        body = json.loads(raw) if raw else None
        if path.startswith(("/script/", "/requests")):
            status, answer = self._control(method, path, body)
            _write(writer, status, {}, answer)
            await writer.drain()
            return True
        request = Request(path, headers, body)
        self.requests.append(request)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            return await self._answer(request, writer)
        finally:
            self.running -= 1

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        path, headers, body = request.path, request.headers, request.body
        await self._tell(Moment.CAME, request)
        kind = {"/v1/embeddings": "embeddings", "/v1/chat/completions": "chat"}.get(path)
        if kind is None:
            _write(writer, 404, {}, _error("unknown_url", "no such path"))
        elif not self.any_key and headers.get("authorization") != f"Bearer {self.api_key}":
            sent = headers.get("authorization", "")
            _write(writer, 401, {}, _error("invalid_api_key", f"Incorrect API key provided: {sent}"))
        else:
            fault = self._faults[kind].popleft() if self._faults[kind] else Fault()
            await asyncio.sleep(self.delay + fault.hang)
            await self.open.wait()
            if fault.drop:
                return False
            if fault.body is not None:
                _write(writer, fault.status, fault.headers, fault.body)
            elif fault.status != 200:
                _write(writer, fault.status, fault.headers, _error("fault", f"as scripted, to {json.dumps(body)}"))
            else:
                answer = self._embed(body, fault) if kind == "embeddings" else self._chat(body, fault)
                await self._tell(Moment.BILLED, request)
                _write(writer, *answer)
        await writer.drain()
        await self._tell(Moment.ANSWERED, request)
        return True

    async def _tell(self, moment: Moment, request: Request) -> None:
        if self.watch is not None:
            await self.watch(moment, request)

    def _embed(self, body: Any, fault: Fault) -> tuple[int, Mapping[str, str], str]:
        texts: list[str] = body["input"]
        too_long = self.max_input_bytes is not None and any(len(t.encode()) > self.max_input_bytes for t in texts)
        if too_long or "" in texts or (self.reject is not None and any(self.reject in text for text in texts)):
            return 400, {}, _error("invalid_input", f"one of these is bad: {texts}")
        tokens = sum(self.tokens_of(text) for text in texts)
        self.billed += tokens
        self.bills.append(Billed("embeddings", body["model"], {text: self.tokens_of(text) for text in texts}))
        vectors = fault.embeddings
        if vectors is None:
            vectors = [embed(text, body.get("dimensions", self.dimensions)) for text in texts]
        data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return 200, fault.headers, json.dumps({"object": "list", "data": data, "model": body["model"], "usage": usage})

    def _chat(self, body: Any, fault: Fault) -> tuple[int, Mapping[str, str], str]:
        prompt = "".join(message["content"] for message in body["messages"])
        content = fault.content
        if content is None:
            data = json.loads(next(message["content"] for message in body["messages"] if message["role"] == "user"))
            content = next((answer for part, answer in self.answers.items() if part in data["text"]), None)
            content = content if content is not None else json.dumps(extract(data["text"]))
        answered = content if isinstance(content, str) else json.dumps(content)
        spent = self.tokens_of(prompt), self.tokens_of(answered)
        self.billed += sum(spent)
        asked = next((message["content"] for message in body["messages"] if message["role"] == "user"), prompt)
        self.bills.append(Billed("chat", body["model"], {asked: spent[0]}, spent[1]))
        message = {"role": "assistant", "content": content, "refusal": fault.refusal}
        answer = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1_700_000_000,
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": fault.finish}],
            "usage": {"prompt_tokens": spent[0], "completion_tokens": spent[1], "total_tokens": sum(spent)},
        }
        return 200, fault.headers, json.dumps(answer)

    def _control(self, method: str, path: str, body: Any) -> tuple[int, str]:
        if method == "GET" and path == "/requests":
            listed = [{"path": request.path, "body": request.body} for request in self.requests]
            return 200, json.dumps({"requests": listed, "billed": self.billed})
        kind = path.removeprefix("/script/")
        if method == "POST" and kind in self._faults and isinstance(body, list):
            self.script(kind, *(Fault(**fault) for fault in body))
            return 200, "{}"
        return 404, "{}"


def count_tokens(text: str) -> int:
    """How many tokens the server bills for a text."""
    return len(text.encode()) // 4 + 1


def embed(text: str, dimensions: int) -> list[float]:
    """The unit vector of a text: its words hashed onto the axes."""
    vector = [0.0] * dimensions
    for word in re.findall(r"\w+", text.lower()) or [""]:
        hashed = zlib.crc32(word.encode())
        vector[hashed % dimensions] += 1.0 if hashed & 0x1000 else 0.5
    length = math.sqrt(sum(value * value for value in vector))
    return [value / length for value in vector]


def extract(text: str) -> dict[str, Any]:
    """A graph for a text: its capitalised words, each related to the next."""
    names = list(dict.fromkeys(_NAME.findall(text)))[:20]
    return {
        "entities": [{"name": name, "type": "TOPIC", "aliases": []} for name in names],
        "relationships": [
            {
                "source": source,
                "predicate": "RELATED_TO",
                "target": target,
                "confidence": 0.9,
                "valid_from": None,
                "valid_to": None,
            }
            for source, target in pairwise(names)
        ],
    }


def _error(code: str, message: str) -> str:
    return json.dumps({"error": {"message": message, "type": "fake", "param": None, "code": code}})


def _write(writer: asyncio.StreamWriter, status: int, headers: Mapping[str, str], body: str) -> None:
    payload = body.encode()
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", "content-type: application/json"]
    lines += [f"content-length: {len(payload)}", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    writer.write("\r\n".join(lines).encode("latin-1") + payload)


async def _main() -> None:
    parser = argparse.ArgumentParser(description="A fake OpenAI-compatible server.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--dimensions", type=int, default=64)
    parser.add_argument("--api-key", default="test-key")
    options = parser.parse_args()
    server = FakeOpenAI(host=options.host, port=options.port, dimensions=options.dimensions, api_key=options.api_key)
    async with server:
        print(server.base_url, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(_main())
