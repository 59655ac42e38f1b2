"""Lua that runs in Redis, kept in `scripts/*.lua`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from redis.exceptions import NoScriptError

from memoro_core.redis.client import RedisClient

Argument = str | bytes | int | float


class Script:
    """One script by its name; all keys of a call must be of one slot."""

    def __init__(self, name: str) -> None:
        self._text = (files("memoro_core.redis") / "scripts" / f"{name}.lua").read_text("utf-8")
        self.digest = hashlib.sha1(self._text.encode(), usedforsecurity=False).hexdigest()

    async def __call__(self, redis: RedisClient, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        """What the script returns. It is sent whole where Redis doesn't know it, as after a restart."""
        try:
            return await redis.evalsha(self.digest, len(keys), *keys, *arguments)
        except NoScriptError:
            return await redis.eval(self._text, len(keys), *keys, *arguments)

    async def load(self, redis: RedisClient) -> None:
        """Makes Redis know it, so that its digest is enough."""
        await redis.script_load(self._text)
