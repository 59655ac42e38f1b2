"""How many streams a tenant may have open."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from memoro_core.errors import Code, MemoroError, Reason
from memoro_core.ids import TenantId

_RETRY_AFTER: Final = 1.0


class LocalOpenStreams:
    """An `OpenStreams` of this process alone."""

    def __init__(self) -> None:
        self._open: Counter[TenantId] = Counter()

    @asynccontextmanager
    async def one_more(self, tenant_id: TenantId, *, maximum: int | None) -> AsyncIterator[None]:
        """A stream, open while the block is entered. Raises RATE_LIMITED when the tenant has `maximum` of them."""
        if maximum is not None and self._open[tenant_id] >= maximum:
            raise too_many_streams(maximum)
        self._open[tenant_id] += 1
        try:
            yield
        finally:
            self._open[tenant_id] -= 1
            if not self._open[tenant_id]:
                del self._open[tenant_id]


def too_many_streams(maximum: int) -> MemoroError:
    """RESOURCE_EXHAUSTED / RATE_LIMITED."""
    return MemoroError(
        Code.RESOURCE_EXHAUSTED,
        Reason.RATE_LIMITED,
        f"too many open streams: the tenant may have {maximum} at once; close one first",
        metadata={"limit": "open_streams", "maximum": str(maximum)},
        retry_after=_RETRY_AFTER,
    )
