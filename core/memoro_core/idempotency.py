"""What makes a mutating call safe to repeat."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

from memoro_core.errors import Code, MemoroError, Reason

RETENTION: Final = timedelta(hours=24)
"""How long a request id is remembered at least."""


@dataclass(frozen=True, slots=True)
class Idempotency:
    """A caller's request id, and the SHA-256 of the method and of the payload without that id (32 bytes)."""

    request_id: str
    fingerprint: bytes


class RequestStore(Protocol):
    """The request ids of all tenants."""

    async def forget(self, *, before: datetime, limit: int) -> int:
        """Forgets requests made before that time, the oldest first, at most `limit`; how many."""
        ...


def request_id_reused(request_id: str) -> MemoroError:
    """INVALID_ARGUMENT / REQUEST_ID_REUSED: the id came before with another payload."""
    return MemoroError(
        Code.INVALID_ARGUMENT,
        Reason.REQUEST_ID_REUSED,
        f"request id {request_id} was used before with another payload; use a new id",
        metadata={"request_id": request_id},
    )
