"""Tokens to go on with a watch where it broke off."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import Final

from memoro_core.errors import Code, FieldViolation, MemoroError, Reason
from memoro_core.ids import JobId, TenantId

_DIGEST_BYTES: Final = 9
_SEQ_BYTES: Final = 6


def resume_token(tenant_id: TenantId, job_id: JobId, seq: int) -> str:
    """An opaque token for the place after event `seq` of a job; it fits no other job."""
    raw = _digest(tenant_id, job_id) + seq.to_bytes(_SEQ_BYTES, "big")
    return base64.urlsafe_b64encode(raw).decode()


def resumed_seq(tenant_id: TenantId, job_id: JobId, token: str) -> int:
    """The number of the event that a token stands behind. Raises RESUME_TOKEN_INVALID for any other job's token."""
    try:
        raw = base64.urlsafe_b64decode(token)
    except (binascii.Error, ValueError):
        raw = b""
    fits = hmac.compare_digest(raw[:_DIGEST_BYTES], _digest(tenant_id, job_id))
    if not fits or len(raw) != _DIGEST_BYTES + _SEQ_BYTES:
        text = "not a token of this job's watch; watch again without one"
        raise MemoroError(
            Code.INVALID_ARGUMENT,
            Reason.RESUME_TOKEN_INVALID,
            f"resume_token: {text}",
            violations=(FieldViolation("resume_token", text),),
        )
    return int.from_bytes(raw[_DIGEST_BYTES:], "big")


def resume_token_expired() -> MemoroError:
    """OUT_OF_RANGE / RESUME_TOKEN_EXPIRED: events after the token are no longer kept."""
    return MemoroError(
        Code.OUT_OF_RANGE,
        Reason.RESUME_TOKEN_EXPIRED,
        "events after this token are no longer kept; watch again without one",
    )


def _digest(tenant_id: TenantId, job_id: JobId) -> bytes:
    return hashlib.blake2b(tenant_id.bytes + job_id.bytes, digest_size=_DIGEST_BYTES).digest()
