"""What makes a mutating call safe to repeat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from memoro_core.errors import Code, MemoroError, Reason

RETENTION_HOURS: Final = 24
"""How long a request id is remembered."""


@dataclass(frozen=True, slots=True)
class Idempotency:
    """A caller's request id, and the SHA-256 of the method and of the payload without that id (32 bytes)."""

    request_id: str
    fingerprint: bytes


def request_id_reused(request_id: str) -> MemoroError:
    """INVALID_ARGUMENT / REQUEST_ID_REUSED: the id came before with another payload."""
    return MemoroError(
        Code.INVALID_ARGUMENT,
        Reason.REQUEST_ID_REUSED,
        f"request id {request_id} was used before with another payload; use a new id",
        metadata={"request_id": request_id},
    )
