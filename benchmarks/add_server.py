"""The server, with one tenant whose calls nobody limits, as by `MEMORO_LIMITS=false`: its id is the argument.

So that what limits cost can be seen within one process: between two, it would be lost in other differences.
"""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

import memoro_core.container
from memoro_core.container.limits import Limiting, open_limits
from memoro_core.limits.model import UNLIMITED, Ask, Verdict
from memoro_core.limits.ports import Limiter
from memoro_server.__main__ import main


class _Switched:
    """The limiter for all tenants but one."""

    def __init__(self, limiter: Limiter, unlimited: UUID) -> None:
        self._limiter = limiter
        self._unlimited = unlimited
        self.counts = limiter.counts

    def decide_now(self, ask: Ask) -> Verdict | None:
        return UNLIMITED if ask.tenant_id == self._unlimited else self._limiter.decide_now(ask)

    async def decide(self, ask: Ask) -> Verdict:
        return await self._limiter.decide(ask)


def _open_switched(unlimited: UUID) -> Any:
    async def opened(ground: Any, stack: AsyncExitStack, *, serves: bool) -> Limiting:
        limiting = await open_limits(ground, stack, serves=serves)
        return Limiting(_Switched(limiting.limiter, unlimited), limiting.open_streams)

    return opened


if __name__ == "__main__":
    vars(memoro_core.container)["open_limits"] = _open_switched(UUID(sys.argv[1]))
    sys.exit(main([]))
