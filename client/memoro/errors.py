"""The exceptions that the client raises: one base, and one class per kind of failure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from memoro.types import Job


class Code(StrEnum):
    """What kind of failure it is: the canonical status codes, in the order of their numbers from 1."""

    CANCELLED = "CANCELLED"
    UNKNOWN = "UNKNOWN"
    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    ABORTED = "ABORTED"
    OUT_OF_RANGE = "OUT_OF_RANGE"
    UNIMPLEMENTED = "UNIMPLEMENTED"
    INTERNAL = "INTERNAL"
    UNAVAILABLE = "UNAVAILABLE"
    DATA_LOSS = "DATA_LOSS"
    UNAUTHENTICATED = "UNAUTHENTICATED"

    @classmethod
    def of_number(cls, number: int) -> Code:
        """The code for its number on the wire; UNKNOWN for none of them."""
        codes = list(cls)
        return codes[number - 1] if 1 <= number <= len(codes) else cls.UNKNOWN


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One bad field: its path in the request, and what to do about it."""

    field: str
    description: str


class MemoroError(Exception):
    """A call failed.

    `reason` is a name of the contract's `ErrorReason` (`JOB_NOT_FOUND`), empty when no Memoro server gave one;
    `metadata` goes with it; `violations` name bad fields; `retry_after` is in seconds, None when the server
    named no time.
    """

    default_code: ClassVar[Code] = Code.UNKNOWN

    def __init__(
        self,
        message: str,
        *,
        code: Code | None = None,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[FieldViolation] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.reason = reason
        self.metadata: dict[str, str] = dict(metadata or {})
        self.violations = tuple(violations)
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.message} ({self.reason or self.code})"


class InvalidArgument(MemoroError):
    """The request breaks a rule; `violations` say which."""

    default_code = Code.INVALID_ARGUMENT


class NotFound(MemoroError):
    """No such thing in this tenant."""

    default_code = Code.NOT_FOUND


class AlreadyExists(MemoroError):
    """Another thing has this name."""

    default_code = Code.ALREADY_EXISTS


class Unauthenticated(MemoroError):
    """The key is missing, unknown, expired or revoked."""

    default_code = Code.UNAUTHENTICATED


class PermissionDenied(MemoroError):
    """The key lacks a scope, or its tenant is suspended."""

    default_code = Code.PERMISSION_DENIED


class RateLimited(MemoroError):
    """A limit is reached, and nothing was done; `retry_after` says when to try again, None: not soon.

    The client has waited for that already, unless it does not fit into the call's deadline or the client is not to.
    """

    default_code = Code.RESOURCE_EXHAUSTED

    @property
    def limit(self) -> str:
        """Which limit: `requests`, `reads`, `writes`, `searches`, `user_requests`, `open_streams` …; or empty."""
        return self.metadata.get("limit", "")


class DailyLimit(RateLimited):
    """The tenant's calls of this day are used up."""

    @property
    def reset_time(self) -> datetime | None:
        """When the next day begins; None where the server does not say."""
        try:
            return datetime.fromisoformat(self.metadata.get("reset_time", ""))
        except ValueError:
            return None


class QuotaExceeded(RateLimited):
    """The tenant has as many memories (`limit` is `max_memories`) or bytes in them (`max_bytes`) as it may."""

    @property
    def maximum(self) -> int:
        """How many it may have."""
        return _number(self.metadata, "maximum")


class FailedPrecondition(MemoroError):
    """Things stand so that the call makes no sense, e.g. the job to cancel has ended."""

    default_code = Code.FAILED_PRECONDITION


class InsufficientCredits(FailedPrecondition):
    """The tenant has fewer credits available than the request may cost at most; nothing was stored.

    `need` and `have` are in micro-credits.
    """

    @property
    def need(self) -> int:
        """What the request may cost at most."""
        return _number(self.metadata, "need")

    @property
    def have(self) -> int:
        """What is available."""
        return _number(self.metadata, "have")


class PriceUnknown(FailedPrecondition):
    """What an operation of a model costs is not known; `metadata` names `provider`, `model` and `operation`.

    An operator sets prices.
    """


class Conflict(MemoroError):
    """The thing has changed since its etag was read: read it again, decide again."""

    default_code = Code.ABORTED


class OutOfRange(MemoroError):
    """The events after this resume token are gone."""

    default_code = Code.OUT_OF_RANGE


class Unimplemented(MemoroError):
    """The server has no such method: it is older than this client."""

    default_code = Code.UNIMPLEMENTED


class Unavailable(MemoroError):
    """The server does not answer, or something that it needs does not."""

    default_code = Code.UNAVAILABLE


class DeadlineExceeded(MemoroError):
    """The call took longer than it was given; it may have had its effect."""

    default_code = Code.DEADLINE_EXCEEDED


class Cancelled(MemoroError):
    """The call was cancelled on its way."""

    default_code = Code.CANCELLED


class InternalError(MemoroError):
    """The server's fault; `metadata["request_id"]` finds it in the server's logs."""

    default_code = Code.INTERNAL


class JobFailed(MemoroError):
    """The job ended FAILED; `reason` is that of its last attempt, `job` the job as it ended."""

    default_code = Code.ABORTED

    def __init__(self, job: Job) -> None:
        message = job.error.message if job.error else "no cause was given"
        super().__init__(f"job {job.id} failed: {message}", reason=job.error.reason if job.error else "")
        self.job = job


class JobCancelled(MemoroError):
    """The job ended CANCELLED; `job` is the job as it ended."""

    default_code = Code.CANCELLED

    def __init__(self, job: Job) -> None:
        super().__init__(f"job {job.id} was cancelled")
        self.job = job


_CLASSES: dict[Code, type[MemoroError]] = {
    kind.default_code: kind
    for kind in (
        InvalidArgument,
        NotFound,
        AlreadyExists,
        Unauthenticated,
        PermissionDenied,
        RateLimited,
        FailedPrecondition,
        Conflict,
        OutOfRange,
        Unimplemented,
        Unavailable,
        DeadlineExceeded,
        Cancelled,
        InternalError,
    )
}

_CLASSES_BY_REASON: dict[str, type[MemoroError]] = {
    "INSUFFICIENT_CREDITS": InsufficientCredits,
    "PRICE_UNKNOWN": PriceUnknown,
    "DAILY_LIMIT": DailyLimit,
    "QUOTA_EXCEEDED": QuotaExceeded,
}


def error_of(
    code: Code,
    message: str,
    *,
    reason: str = "",
    metadata: Mapping[str, str] | None = None,
    violations: Sequence[FieldViolation] = (),
    retry_after: float | None = None,
) -> MemoroError:
    """The exception of the class that stands for the reason, or else for the code."""
    kind = _CLASSES_BY_REASON.get(reason) or _CLASSES.get(code, MemoroError)
    return kind(message, code=code, reason=reason, metadata=metadata, violations=violations, retry_after=retry_after)


def _number(metadata: Mapping[str, str], name: str) -> int:
    text = metadata.get(name, "")
    return int(text) if text.isascii() and text.isdigit() else 0
