"""Posting events over HTTP/1.1."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Final

import httpcore

from memoro_core.errors import MemoroError
from memoro_core.outbound.failures import tls_failure
from memoro_core.outbound.network import AddressRefused, NotResolved, Resolve, VettedNetwork, resolve
from memoro_core.webhooks.addresses import PRIVATE, Target, parse_target
from memoro_core.webhooks.model import Outcome

TIMEOUT: Final = 10.0
"""Seconds from the name's resolution to the end of the answer."""
MAX_ANSWER: Final = 64 * 1024
"""Bytes of an answer that are read, so that its connection can be used again; a longer one costs its connection."""
_CONNECTIONS: Final = 64
_IDLE_CONNECTIONS: Final = 32
_IDLE: Final = 30.0
_USER_AGENT: Final = b"Memoro-Webhooks/1"


class HttpWebhookSender:
    """A `WebhookSender` over a pool of connections. Follows no redirect, asks no proxy, keeps no cookie."""

    def __init__(self, pool: httpcore.AsyncConnectionPool, *, allow_private: bool, timeout: float = TIMEOUT) -> None:
        self._pool = pool
        self._allow_private = allow_private
        self._timeout = timeout

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        try:
            # Once more: it was stored when the rules may have been others.
            target = parse_target(url, allow_private=self._allow_private)
            async with asyncio.timeout(self._timeout):
                return await self._post(target, headers, body)
        except MemoroError as error:
            return Outcome(error=error.message)
        except AddressRefused:
            return Outcome(error=f"the host {PRIVATE}")
        except NotResolved:
            return Outcome(error="the host's name can't be resolved")
        except (TimeoutError, httpcore.TimeoutException):
            return Outcome(error=f"no answer within {self._timeout:g} s")
        except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
            return Outcome(error=_what_failed(error))

    async def _post(self, target: Target, headers: Mapping[str, str], body: bytes) -> Outcome:
        url = httpcore.URL(
            scheme=target.scheme.encode(), host=target.host.encode(), port=target.port, target=target.path.encode()
        )
        sent = [
            (b"host", target.authority.encode()),
            (b"user-agent", _USER_AGENT),
            (b"accept", b"*/*"),
            (b"content-length", str(len(body)).encode()),
            *((name.encode(), value.encode()) for name, value in headers.items()),
        ]
        async with self._pool.stream("POST", url, headers=sent, content=body) as response:
            # The status is what counts: an answer that is cut short or never ends does not take it back.
            outcome = _outcome(response.status)
            await _drain(response)
            return outcome


@asynccontextmanager
async def open_sender(
    *,
    allow_private: bool,
    resolver: Resolve = resolve,
    tls: ssl.SSLContext | None = None,
    timeout: float = TIMEOUT,
) -> AsyncIterator[HttpWebhookSender]:
    """A sender, closed at the end. `tls` is for other authorities than the system's."""
    network = VettedNetwork(allow_private=allow_private, threads=_CONNECTIONS, resolver=resolver)
    pool = httpcore.AsyncConnectionPool(
        ssl_context=tls or ssl.create_default_context(),
        max_connections=_CONNECTIONS,
        max_keepalive_connections=_IDLE_CONNECTIONS,
        keepalive_expiry=_IDLE,
        http1=True,
        http2=False,
        network_backend=network,
    )
    try:
        async with pool:
            yield HttpWebhookSender(pool, allow_private=allow_private, timeout=timeout)
    finally:
        network.close()


async def _drain(response: httpcore.Response) -> None:
    read = 0
    try:
        async for chunk in response.aiter_stream():
            read += len(chunk)
            if read > MAX_ANSWER:
                return
    except (httpcore.NetworkError, httpcore.ProtocolError):
        return


def _outcome(status: int) -> Outcome:
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return Outcome(status)
    if status < HTTPStatus.BAD_REQUEST:
        return Outcome(status, f"answered {status}; redirects are not followed")
    return Outcome(status, f"answered {status}")


def _what_failed(error: Exception) -> str:
    if (reason := tls_failure(error)) is not None:
        return reason
    if isinstance(error, httpcore.ConnectError):
        return "the host can't be reached"
    return "the connection broke before an answer came"
