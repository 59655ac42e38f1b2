"""How many streams a tenant may have open on one process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from memoro_core.errors import Code, MemoroError, Reason
from memoro_core.ids import TenantId

_RETRY_AFTER: Final = 1.0


class OpenStreams:
    """Counts each tenant's open streams, and refuses one too many."""

    def __init__(self) -> None:
        self._open: Counter[TenantId] = Counter()

    @contextmanager
    def one_more(self, tenant_id: TenantId, *, maximum: int | None) -> Iterator[None]:
        """A stream, open while the block is entered. Raises RATE_LIMITED when the tenant has `maximum` of them."""
        if maximum is not None and self._open[tenant_id] >= maximum:
            raise MemoroError(
                Code.RESOURCE_EXHAUSTED,
                Reason.RATE_LIMITED,
                f"too many open streams: the tenant's tier allows {maximum} on one server; close one first",
                metadata={"limit": "open_streams", "maximum": str(maximum)},
                retry_after=_RETRY_AFTER,
            )
        self._open[tenant_id] += 1
        try:
            yield
        finally:
            self._open[tenant_id] -= 1
            if not self._open[tenant_id]:
                del self._open[tenant_id]
