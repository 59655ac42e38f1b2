"""Where an issuer's keys are read: from a file, or over HTTP."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from aiohttp import ClientError, ClientSession, ClientTimeout

from memoro_core.tenancy.key_set import FetchKeys, unreachable

_TIMEOUT: Final = 5.0
_MAX_BYTES: Final = 256 * 1024
_OK: Final = 200


def issuer_keys(place: str) -> FetchKeys:
    """What reads the key set at an http or https URL, or in the file of that path; 256 KiB of it at most.

    Redirects are not followed, and no answer is waited for longer than 5 seconds.
    """
    if place.startswith(("http://", "https://")):
        return lambda: _get(place)
    return lambda: asyncio.to_thread(_read, Path(place))


async def _get(url: str) -> bytes:
    try:
        async with (
            ClientSession(timeout=ClientTimeout(total=_TIMEOUT)) as session,
            session.get(url, allow_redirects=False) as response,
        ):
            if response.status != _OK:
                raise unreachable()
            data = bytearray()
            async for chunk in response.content.iter_chunked(16 * 1024):
                data += chunk
                if len(data) > _MAX_BYTES:
                    raise unreachable()
            return bytes(data)
    except (ClientError, OSError, TimeoutError) as error:
        raise unreachable() from error


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise unreachable() from error
    if len(data) > _MAX_BYTES:
        raise unreachable()
    return data
