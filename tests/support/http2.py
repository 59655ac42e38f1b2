"""A client that speaks HTTP/2 by the frame, and need not keep to it."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
MAX_CONCURRENT_STREAMS: Final = 3
INITIAL_WINDOW_SIZE: Final = 4
CANCEL: Final = 8
ENHANCE_YOUR_CALM: Final = 11


class Kind(IntEnum):
    """The frames that matter here."""

    DATA = 0
    HEADERS = 1
    RST_STREAM = 3
    SETTINGS = 4
    PING = 6
    GOAWAY = 7


@dataclass(frozen=True)
class Frame:
    """One frame, as it came."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def error(self) -> int:
        """Why: of RST_STREAM and GOAWAY."""
        return int.from_bytes(self.payload[4:8] if self.kind == Kind.GOAWAY else self.payload[:4])


def frame(kind: Kind, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    """A frame on the wire."""
    return len(payload).to_bytes(3) + struct.pack(">BBI", kind, flags, stream) + payload


def settings(values: Mapping[int, int]) -> bytes:
    """SETTINGS with these values."""
    return frame(Kind.SETTINGS, b"".join(struct.pack(">HI", name, value) for name, value in values.items()))


def ping() -> bytes:
    """PING."""
    return frame(Kind.PING, b"8 bytes.")


def reset(stream: int) -> bytes:
    """RST_STREAM, as a client sends it that has changed its mind."""
    return frame(Kind.RST_STREAM, CANCEL.to_bytes(4), stream=stream)


def call(stream: int, path: str, metadata: Mapping[str, str], *, flags: int = END_HEADERS) -> bytes:
    """The HEADERS that begin a call."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
        **metadata,
    }
    block = b"".join(b"\x00" + _text(name) + _text(value) for name, value in fields.items())
    return frame(Kind.HEADERS, block, flags=flags, stream=stream)


def message(stream: int, data: bytes, *, flags: int = END_STREAM) -> bytes:
    """DATA with one whole message."""
    return frame(Kind.DATA, b"\x00" + len(data).to_bytes(4) + data, flags=flags, stream=stream)


def _text(text: str) -> bytes:
    """A string of HPACK, as it is."""
    data = text.encode()
    if len(data) < 127:
        return bytes([len(data)]) + data
    length, rest = b"\x7f", len(data) - 127
    while rest >= 128:
        length += bytes([rest % 128 + 128])
        rest //= 128
    return length + bytes([rest]) + data


class Connection:
    """A TCP connection to a server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, *frames: bytes) -> None:
        """Sends these bytes. Nothing is wrong with it when the server has gone."""
        with contextlib.suppress(ConnectionError):
            self._writer.write(b"".join(frames))
            await self._writer.drain()

    async def frames(self) -> AsyncIterator[Frame]:
        """What the server sends, until it closes. SETTINGS and PING are acknowledged."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await self._reader.readexactly(9)
                kind, flags, stream = struct.unpack(">BBI", head[3:])
                got = Frame(kind, flags, stream, await self._reader.readexactly(int.from_bytes(head[:3])))
                if got.kind in {Kind.SETTINGS, Kind.PING} and not got.flags & ACK:
                    await self.send(frame(Kind(got.kind), got.payload if got.kind == Kind.PING else b"", flags=ACK))
                yield got

    async def until_closed(self, *, within: float) -> list[Frame]:
        """All that comes until the server closes. Raises TimeoutError when it does not."""
        async with asyncio.timeout(within):
            return [it async for it in self.frames()]

    async def gathered(self, seconds: float) -> list[Frame]:
        """What comes in that time."""
        found: list[Frame] = []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                async for it in self.frames():
                    found.append(it)
        return found


@asynccontextmanager
async def connection(port: int, *first: bytes) -> AsyncIterator[Connection]:
    """A connection on which this was sent at once."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        it = Connection(reader, writer)
        await it.send(*first)
        yield it
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
