"""What makes two requests the same request."""

from __future__ import annotations

import hashlib
from typing import Protocol

from google.protobuf.message import Message

from memoro_core.idempotency import Idempotency


class _Repeatable(Protocol):
    request_id: str


def idempotency_of(method: str, request: _Repeatable) -> Idempotency | None:
    """The request id and a SHA-256 of the method and all else that was sent; None without an id.

    `method` is the full path, so that an id used for one method never answers for another.
    """
    request_id = request.request_id
    if not request_id:
        return None
    assert isinstance(request, Message)
    request.ClearField("request_id")
    payload = request.SerializeToString(deterministic=True)
    request.request_id = request_id
    return Idempotency(request_id, hashlib.sha256(method.encode() + b"\0" + payload).digest())
