"""The client for asyncio."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from memoro.admin import AsyncAdmin
from memoro.billing import AsyncBilling
from memoro.endpoint import DEFAULT_ENDPOINT, Tls, from_environment, parse_endpoint, waits_from_environment
from memoro.enums import Health
from memoro.graph import AsyncGraph
from memoro.health import check_health
from memoro.jobs import AsyncJobs
from memoro.memories import AsyncMemories
from memoro.transport import AioTransport, Transport
from memoro.webhooks import AsyncWebhooks


class AsyncClient:
    """Calls a Memoro server from asyncio; use it as an asynchronous context manager, or `close` it.

    `endpoint` is `host:port`, in plain text on this machine and with TLS elsewhere, unless its scheme (`http://`,
    `https://`) or `tls` (True, False, or `Tls` with files) says otherwise. One client serves any number of concurrent
    calls of one event loop. Failed calls raise `MemoroError`. A call that a limit refuses waits as the server says and
    is made again, if that fits into its deadline; with `wait_for_limits=False` it raises `RateLimited` at once.
    """

    def __init__(
        self,
        endpoint: str = DEFAULT_ENDPOINT,
        *,
        api_key: str | None = None,
        tls: Tls | bool | None = None,
        wait_for_limits: bool = True,
    ) -> None:
        self._endpoint = parse_endpoint(endpoint, tls)
        self._transport: Transport = AioTransport(self._endpoint, api_key, wait_for_limits=wait_for_limits)
        self.memories = AsyncMemories(self._transport)
        self.graph = AsyncGraph(self._transport)
        self.jobs = AsyncJobs(self._transport)
        self.billing = AsyncBilling(self._transport)
        self.webhooks = AsyncWebhooks(self._transport)
        self.admin = AsyncAdmin(self._transport)

    @classmethod
    def from_env(cls) -> Self:
        """The client for MEMORO_ENDPOINT, MEMORO_API_KEY and MEMORO_CA_FILE, for mutual TLS MEMORO_CERT_FILE and
        MEMORO_KEY_FILE, and with MEMORO_WAIT_FOR_LIMITS=0 one that does not wait for limits.
        """
        endpoint, api_key, tls = from_environment()
        return cls(endpoint, api_key=api_key, tls=tls, wait_for_limits=waits_from_environment())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._endpoint.address!r})"

    async def health(self, service: str = "", *, timeout: float | None = None) -> Health:
        """What the server says of itself, or of one service (`memoro.v1.JobsService`)."""
        return await check_health(self._transport, service, timeout)

    async def close(self) -> None:
        """Ends calls under way and gives up the connection."""
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
