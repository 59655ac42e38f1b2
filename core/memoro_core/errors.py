"""The one error type of the domain, and the reasons that callers can program against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from memoro_core.llm.model import Usage


class Code(StrEnum):
    """What kind of failure it is. The names are those of the canonical status codes."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    ABORTED = "ABORTED"
    OUT_OF_RANGE = "OUT_OF_RANGE"
    UNIMPLEMENTED = "UNIMPLEMENTED"
    INTERNAL = "INTERNAL"
    UNAVAILABLE = "UNAVAILABLE"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    CANCELLED = "CANCELLED"


class Reason(StrEnum):
    """Why it failed: each name is a value of `ErrorReason` in the contract, without its prefix."""

    INVALID_FIELD = "INVALID_FIELD"
    REQUEST_ID_REUSED = "REQUEST_ID_REUSED"
    PAGE_TOKEN_INVALID = "PAGE_TOKEN_INVALID"  # noqa: S105 - a reason's name, no secret
    CREDENTIALS_MISSING = "CREDENTIALS_MISSING"
    CREDENTIALS_INVALID = "CREDENTIALS_INVALID"
    SCOPE_MISSING = "SCOPE_MISSING"
    TENANT_SUSPENDED = "TENANT_SUSPENDED"
    MEMORY_NOT_FOUND = "MEMORY_NOT_FOUND"
    ENTITY_NOT_FOUND = "ENTITY_NOT_FOUND"
    JOB_NOT_FOUND = "JOB_NOT_FOUND"
    TENANT_NOT_FOUND = "TENANT_NOT_FOUND"
    API_KEY_NOT_FOUND = "API_KEY_NOT_FOUND"
    TENANT_EXISTS = "TENANT_EXISTS"
    ETAG_MISMATCH = "ETAG_MISMATCH"
    JOB_NOT_CANCELLABLE = "JOB_NOT_CANCELLABLE"
    RESUME_TOKEN_INVALID = "RESUME_TOKEN_INVALID"  # noqa: S105 - a reason's name, no secret
    RESUME_TOKEN_EXPIRED = "RESUME_TOKEN_EXPIRED"  # noqa: S105 - a reason's name, no secret
    RATE_LIMITED = "RATE_LIMITED"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    METHOD_UNKNOWN = "METHOD_UNKNOWN"
    DEPENDENCY_UNAVAILABLE = "DEPENDENCY_UNAVAILABLE"
    SERVER_DRAINING = "SERVER_DRAINING"
    PROVIDER_FAILED = "PROVIDER_FAILED"
    INTERNAL = "INTERNAL"
    JOB_TIMED_OUT = "JOB_TIMED_OUT"
    WORKER_LOST = "WORKER_LOST"
    WEBHOOK_NOT_FOUND = "WEBHOOK_NOT_FOUND"
    DELIVERY_NOT_FOUND = "DELIVERY_NOT_FOUND"
    URL_NOT_ALLOWED = "URL_NOT_ALLOWED"
    WEBHOOK_LIMIT_REACHED = "WEBHOOK_LIMIT_REACHED"
    JOB_NOT_RETRYABLE = "JOB_NOT_RETRYABLE"
    INSUFFICIENT_CREDITS = "INSUFFICIENT_CREDITS"
    PRICE_UNKNOWN = "PRICE_UNKNOWN"
    BUDGET_NOT_FOUND = "BUDGET_NOT_FOUND"
    DAILY_LIMIT = "DAILY_LIMIT"
    QUOTA_EXCEEDED = "QUOTA_EXCEEDED"
    TIER_NOT_FOUND = "TIER_NOT_FOUND"


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One bad field: its path in the request (`filter.metadata`) and what to do about it."""

    field: str
    description: str


class MemoroError(Exception):
    """A failure that a caller may see: its code, its reason, and a text that says what to do.

    `metadata` goes out with the reason; `violations` name bad fields; `retry_after` is in seconds.
    Nothing internal belongs in any of them.
    """

    def __init__(
        self,
        code: Code,
        reason: Reason,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[FieldViolation] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.metadata: dict[str, str] = dict(metadata or {})
        self.violations = tuple(violations)
        self.retry_after = retry_after


def invalid_field(field: str, description: str) -> MemoroError:
    """INVALID_ARGUMENT / INVALID_FIELD for one field."""
    return MemoroError(
        Code.INVALID_ARGUMENT,
        Reason.INVALID_FIELD,
        f"{field}: {description}",
        violations=(FieldViolation(field, description),),
    )


def not_found(reason: Reason, what: str, identifier: object) -> MemoroError:
    """NOT_FOUND, worded the same whether the thing exists in another tenant or nowhere."""
    return MemoroError(Code.NOT_FOUND, reason, f"no {what} {identifier} in this tenant")


def etag_mismatch(what: str, asked: int, actual: int) -> MemoroError:
    """ABORTED / ETAG_MISMATCH: the thing changed since the caller read it."""
    return MemoroError(
        Code.ABORTED,
        Reason.ETAG_MISMATCH,
        f"the {what} changed since etag {asked} was read; it is now {actual}: read it again",
    )


def unavailable(dependency: str, *, retry_after: float = 1.0) -> MemoroError:
    """UNAVAILABLE / DEPENDENCY_UNAVAILABLE: the named dependency does not answer; try again."""
    return MemoroError(
        Code.UNAVAILABLE,
        Reason.DEPENDENCY_UNAVAILABLE,
        f"{dependency} does not answer; try again",
        metadata={"dependency": dependency},
        retry_after=retry_after,
    )


class ProviderError(MemoroError):
    """A model provider failed.

    `retryable` says whether the same request may succeed later; `usage` is what was spent all the same. `unaccounted`:
    more may have been spent than that, because an answer was lost that the provider may charge for.
    """

    def __init__(
        self,
        message: str,
        *,
        retryable: bool,
        retry_after: float | None = None,
        metadata: Mapping[str, str] | None = None,
        usage: Sequence[Usage] = (),
        unaccounted: bool = False,
    ) -> None:
        super().__init__(
            Code.UNAVAILABLE if retryable else Code.FAILED_PRECONDITION,
            Reason.PROVIDER_FAILED,
            message,
            metadata=metadata,
            retry_after=retry_after,
        )
        self.retryable = retryable
        self.usage = tuple(usage)
        self.unaccounted = unaccounted
