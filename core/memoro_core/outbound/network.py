"""Connections to vetted addresses: a name is resolved once, and what it resolved to is what is connected to."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TypeAlias

import httpcore

from memoro_core.webhooks.addresses import is_public

Address: TypeAlias = IPv4Address | IPv6Address
Resolve: TypeAlias = Callable[[str, int], Sequence[Address]]


class NotResolved(Exception):
    """The host's name leads nowhere."""


class AddressRefused(Exception):
    """The host's name leads to addresses that are not public, and to no others."""


def resolve(host: str, port: int) -> Sequence[Address]:
    """The addresses of a host, in the system's order. Blocks. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(ip_address(str(sockaddr[0])) for *_, sockaddr in found))


class VettedNetwork(httpcore.AsyncNetworkBackend):
    """Resolves names itself, drops addresses that are not public, and connects to what is left, one after the other.

    TLS and the request still carry the name, because only the connection goes to the address. With `allow_private`
    every address will do. Raises NotResolved and AddressRefused on connecting.
    """

    def __init__(self, *, allow_private: bool, threads: int, resolver: Resolve = resolve) -> None:
        self._allow_private = allow_private
        self._resolver = resolver
        # Threads of its own: names that are slow to resolve hold up nobody else's.
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="resolve")
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        *others, last = await self._vetted(host, port)
        for address in others:
            try:
                return await self._inner.connect_tcp(str(address), port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._inner.connect_tcp(str(last), port, timeout, local_address, socket_options)

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        raise AddressRefused

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)

    def close(self) -> None:
        """Gives up the threads; what they resolve is thrown away."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def _vetted(self, host: str, port: int) -> Sequence[Address]:
        loop = asyncio.get_running_loop()
        try:
            addresses = await loop.run_in_executor(self._executor, self._resolver, host, port)
        except (OSError, UnicodeError) as error:
            raise NotResolved from error
        if not addresses:
            raise NotResolved
        allowed = [address for address in addresses if self._allow_private or is_public(address)]
        if not allowed:
            raise AddressRefused
        return allowed
