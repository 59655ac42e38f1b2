"""Tokens to go on with a watch where it broke off."""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from memoro_core.errors import Code, FieldViolation, MemoroError, Reason
from memoro_core.ids import JobId, TenantId
from memoro_core.jobs.feed_ports import FeedFilter, FeedOrigin, FeedPosition, before_transaction
from memoro_core.jobs.model import JobRef

_DIGEST_BYTES: Final = 9
_SEQ_BYTES: Final = 6
_FEED_SPOT: Final = struct.Struct(">12s?Q16sQqqq")
_MAX_BIGINT: Final = 2**63 - 1
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class FeedSpot:
    """Where a watch of a tenant's jobs stands. Nothing behind `position` happened before the time `at`.

    `snapshots_after`: it is still at its beginning, and has told the snapshots of jobs with ids up to this one.
    """

    position: FeedPosition
    origin: FeedOrigin
    at: datetime
    snapshots_after: JobId | None = None


class FeedTokens:
    """The tokens of watches of one tenant with one filter: opaque, of 92 characters, and good for no other."""

    __slots__ = ("_digest",)

    def __init__(self, tenant_id: TenantId, feed_filter: FeedFilter) -> None:
        parts = (sorted(feed_filter.states), sorted(feed_filter.kinds), feed_filter.user_id or "")
        self._digest = hashlib.blake2b(tenant_id.bytes + repr(parts).encode(), digest_size=12, person=b"feed").digest()

    def token(self, spot: FeedSpot) -> str:
        """The token that leads back to this spot."""
        transaction_id, job_id, seq = spot.position
        beginning = spot.snapshots_after is not None
        return base64.urlsafe_b64encode(
            _FEED_SPOT.pack(
                self._digest,
                beginning,
                transaction_id,
                spot.snapshots_after.bytes if spot.snapshots_after is not None else job_id.bytes,
                seq,
                spot.origin.cluster,
                spot.origin.recovery,
                (spot.at - _EPOCH) // _MICROSECOND,
            )
        ).decode()

    def spot(self, resume_token: str) -> FeedSpot:
        """Where the token leads. Raises RESUME_TOKEN_INVALID, also for one of another tenant or filter."""
        raw = _decoded(resume_token)
        if len(raw) != _FEED_SPOT.size:
            raise _invalid()
        digest, beginning, transaction_id, job, seq, cluster, recovery, at = _FEED_SPOT.unpack(raw)
        if digest != self._digest or transaction_id > _MAX_BIGINT or seq > _MAX_BIGINT:
            raise _invalid()
        try:
            told_at = _EPOCH + at * _MICROSECOND
        except OverflowError:
            raise _invalid() from None
        origin, job_id = FeedOrigin(cluster, recovery), UUID(bytes=job)
        if beginning:
            return FeedSpot(before_transaction(transaction_id), origin, told_at, JobId(job_id))
        return FeedSpot(FeedPosition(transaction_id, job_id, seq), origin, told_at)


def token(ref: JobRef, seq: int) -> str:
    """An opaque token for the place behind event `seq` of a job, bound to that job; of 20 characters."""
    return base64.urlsafe_b64encode(_digest(ref) + seq.to_bytes(_SEQ_BYTES, "big")).decode()


def sequence_of(ref: JobRef, resume_token: str) -> int:
    """The number of the event that the token stands behind. Raises RESUME_TOKEN_INVALID, also for another job's."""
    raw = _decoded(resume_token)
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


def _decoded(resume_token: str) -> bytes:
    try:
        return base64.b64decode(resume_token.encode(), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeError, ValueError):
        raise _invalid() from None


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
