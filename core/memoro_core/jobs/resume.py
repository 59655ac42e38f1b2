"""Tokens to go on with a watch where it broke off."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Final

from memoro_core.errors import Code, FieldViolation, MemoroError, Reason
from memoro_core.jobs.model import JobRef

_DIGEST_BYTES: Final = 9
_SEQ_BYTES: Final = 6


def token(ref: JobRef, seq: int) -> str:
    """An opaque token for the place behind event `seq` of a job, bound to that job; of 20 characters."""
    return base64.urlsafe_b64encode(_digest(ref) + seq.to_bytes(_SEQ_BYTES, "big")).decode()


def sequence_of(ref: JobRef, resume_token: str) -> int:
    """The number of the event that the token stands behind. Raises RESUME_TOKEN_INVALID, also for another job's."""
    try:
        raw = base64.b64decode(resume_token.encode(), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeError, ValueError):
        raise _invalid() from None
    if len(raw) != _DIGEST_BYTES + _SEQ_BYTES or raw[:_DIGEST_BYTES] != _digest(ref):
        raise _invalid()
    return int.from_bytes(raw[_DIGEST_BYTES:], "big")


def token_expired() -> MemoroError:
    """OUT_OF_RANGE / RESUME_TOKEN_EXPIRED: events after the token are no longer kept."""
    return MemoroError(
        Code.OUT_OF_RANGE,
        Reason.RESUME_TOKEN_EXPIRED,
        "the events after this token are gone; watch again without it",
    )


def _digest(ref: JobRef) -> bytes:
    return hashlib.blake2b(ref.tenant_id.bytes + ref.job_id.bytes, digest_size=_DIGEST_BYTES).digest()


def _invalid() -> MemoroError:
    text = "not a token of this job; watch again without it"
    return MemoroError(
        Code.INVALID_ARGUMENT,
        Reason.RESUME_TOKEN_INVALID,
        f"resume_token: {text}",
        violations=(FieldViolation("resume_token", text),),
    )
