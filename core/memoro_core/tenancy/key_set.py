"""The public keys by which an issuer's tokens are known."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import structlog
from jwt import PyJWK, PyJWTError
from pydantic_core import from_json

from memoro_core.errors import MemoroError, unavailable

FetchKeys = Callable[[], Awaitable[bytes]]
"""Reads a JSON Web Key Set. Raises UNAVAILABLE."""

_MAX_KEYS: Final = 100
_PUBLIC: Final = ("kty", "crv", "n", "e", "x", "y")
_SYMMETRIC: Final = "oct"
_log: Final = structlog.get_logger(__name__)


class KeySet:
    """An issuer's keys, each for the algorithms that it may be used with; fetched when needed, and remembered.

    They are fetched anew behind the calls once they are `max_age` seconds old, and before an answer for a key id that
    is not among them, every `min_interval` seconds at most. While they can't be fetched, those that are known go on.
    """

    def __init__(
        self, fetch: FetchKeys, algorithms: Iterable[str], *, min_interval: float = 5.0, max_age: float = 300.0
    ) -> None:
        self._fetch = fetch
        self._algorithms = tuple(algorithms)
        self._min_interval = min_interval
        self._max_age = max_age
        self._keys: Mapping[tuple[str | int, str], PyJWK] = {}
        self._loading: asyncio.Task[None] | None = None
        self._tried_at = -min_interval
        self._stale_at = 0.0
        self._failed = True

    async def load(self) -> None:
        """Fetches the keys. Raises UNAVAILABLE when they can't be read or are none."""
        self._tried_at = time.monotonic()
        try:
            self._keys = dict(_keys_of(await self._fetch(), self._algorithms))
        except MemoroError:
            self._failed = True
            raise
        self._failed = False
        self._stale_at = time.monotonic() + self._max_age

    async def find(self, key_id: str, algorithm: str) -> PyJWK | None:
        """The key of that id, if it is one for that algorithm; without an id the only key there is for it.

        Raises UNAVAILABLE for a key that is not known while the keys can't be fetched.
        """
        key = self._known(key_id, algorithm)
        if key is not None:
            if time.monotonic() > self._stale_at:
                self._reload()
            return key
        reloading = self._reload()
        if reloading is not None:
            # Shared: who waits for it may give up, and the others go on waiting.
            await asyncio.shield(reloading)
            key = self._known(key_id, algorithm)
        if key is None and self._failed:
            raise unreachable()
        return key

    async def close(self) -> None:
        """Gives up what is being fetched."""
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.gather(self._loading, return_exceptions=True)

    def _known(self, key_id: str, algorithm: str) -> PyJWK | None:
        if key_id:
            return self._keys.get((key_id, algorithm))
        fitting = [key for (_, fits), key in self._keys.items() if fits == algorithm]
        return fitting[0] if len(fitting) == 1 else None

    def _reload(self) -> asyncio.Task[None] | None:
        """The fetching that is under way or begins now; None when the last one is too fresh for another."""
        if self._loading is None or self._loading.done():
            if time.monotonic() < self._tried_at + self._min_interval:
                return None
            self._loading = asyncio.create_task(self._try_to_load())
        return self._loading

    async def _try_to_load(self) -> None:
        try:
            await self.load()
        except MemoroError as error:
            _log.warning("keys_not_fetched", known=len(self._keys), reason=error.message)


def unreachable() -> MemoroError:
    """UNAVAILABLE: the keys of the issuer can't be read."""
    return unavailable("token issuer")


def _keys_of(data: bytes, algorithms: Iterable[str]) -> Iterator[tuple[tuple[str | int, str], PyJWK]]:
    """Each key under its id and each algorithm it is for. Raises UNAVAILABLE for what is no key set."""
    try:
        document = from_json(data)
    except ValueError:
        raise unreachable() from None
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list) or len(listed) > _MAX_KEYS:
        raise unreachable()
    for index, key in enumerate(listed):
        if isinstance(key, dict) and _is_for_signatures(key):
            # One without an id has a number in its place, under which no token finds it but one that names no id.
            place: str | int = key["kid"] if isinstance(key.get("kid"), str) and key["kid"] else index
            for algorithm in algorithms:
                if key.get("alg", algorithm) == algorithm and (made := _key_of(key, algorithm)) is not None:
                    yield (place, algorithm), made


def _is_for_signatures(key: Mapping[str, Any]) -> bool:
    operations = key.get("key_ops", ["verify"])
    return (
        key.get("kty") != _SYMMETRIC
        and key.get("use", "sig") == "sig"
        and isinstance(operations, list)
        and "verify" in operations
    )


def _key_of(key: Mapping[str, Any], algorithm: str) -> PyJWK | None:
    """None for a key of another kind than the algorithm's."""
    try:
        # Only what is public: should the issuer let slip a private key, it is not kept here.
        return PyJWK({name: key[name] for name in _PUBLIC if name in key}, algorithm)
    except (PyJWTError, TypeError, ValueError):
        return None
