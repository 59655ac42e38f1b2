"""The only place that builds `google.rpc.Status`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from memoro.v1 import memory_service_pb2
from memoro_core.errors import Code, MemoroError, Reason

DOMAIN: Final = "memoro"
PUSHBACK: Final = "grpc-retry-pushback-ms"
_NEVER: Final = "-1"
_LIMITS: Final = frozenset({Reason.RATE_LIMITED, Reason.DAILY_LIMIT, Reason.QUOTA_EXCEEDED})
_DETAILS: Final = "grpc-status-details-bin"

# A status travels in HTTP/2 headers, of which a client takes 8 KiB by default: what a caller sent must not blow it up.
_MAX_VIOLATIONS: Final = 10
_MAX_TEXT: Final = 160
_MAX_MESSAGE: Final = 300


@dataclass(frozen=True, slots=True)
class Failure:
    """How a call ends that fails: its code, its message, and its trailing metadata."""

    code: grpc.StatusCode
    reason: str
    message: str
    trailers: tuple[tuple[str, str | bytes], ...]


def failure_of(error: MemoroError) -> Failure:
    """The status of an error that the caller may see: ErrorInfo, and at most one of each other detail that applies."""
    code = grpc.StatusCode[error.code.name]
    message = _cut(error.message, _MAX_MESSAGE)
    info = error_details_pb2.ErrorInfo(
        reason=error.reason.value,
        domain=DOMAIN,
        metadata=_metadata(error),
    )
    details: list[Message] = [info]
    if error.violations:
        shown = [
            error_details_pb2.BadRequest.FieldViolation(field=_cut(it.field), description=_cut(it.description))
            for it in error.violations[:_MAX_VIOLATIONS]
        ]
        if len(error.violations) > _MAX_VIOLATIONS:
            info.metadata["violations"] = str(len(error.violations))
        details.append(error_details_pb2.BadRequest(field_violations=shown))
    if error.reason in _LIMITS:
        subject = _cut(error.metadata.get("limit", ""))
        violation = error_details_pb2.QuotaFailure.Violation(subject=subject, description=message)
        details.append(error_details_pb2.QuotaFailure(violations=[violation]))
    if error.reason is Reason.INSUFFICIENT_CREDITS:
        details.append(_too_few_credits(error))
    pushback = _NEVER
    if error.retry_after is not None:
        # Up, so that a caller who waits as told does not come too early; but not for the noise of a float.
        milliseconds = max(1, math.ceil(round(error.retry_after * 1000, 3)))
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(milliseconds)
        details.append(retry)
        pushback = str(milliseconds)
    trailers: list[tuple[str, str | bytes]] = []
    if error.code is Code.RESOURCE_EXHAUSTED:
        trailers.append((PUSHBACK, pushback))
    return _failure(code, error.reason, message, details, trailers)


def item_error(error: MemoroError) -> memory_service_pb2.ItemError:
    """The verdict of a batch's item that failed, which tells what the status of a call of its own would."""
    violations = [
        memory_service_pb2.FieldViolation(field=_cut(it.field), description=_cut(it.description))
        for it in error.violations[:_MAX_VIOLATIONS]
    ]
    return memory_service_pb2.ItemError(
        code=grpc.StatusCode[error.code.name].value[0],
        reason=error.reason.value,
        message=_cut(error.message, _MAX_MESSAGE),
        field_violations=violations,
        metadata=_metadata(error),
    )


def internal_error(request_id: str) -> MemoroError:
    """INTERNAL with a constant text: nothing of what went wrong but the id that finds it in the logs."""
    return MemoroError(Code.INTERNAL, Reason.INTERNAL, "internal error", metadata={"request_id": request_id})


def draining() -> MemoroError:
    """UNAVAILABLE / SERVER_DRAINING: connect again, another server answers."""
    return MemoroError(Code.UNAVAILABLE, Reason.SERVER_DRAINING, "the server is shutting down", retry_after=0.1)


def interrupted() -> MemoroError:
    """UNAVAILABLE: something that the call waited for was given up, though the caller still waits."""
    return MemoroError(
        Code.UNAVAILABLE, Reason.DEPENDENCY_UNAVAILABLE, "the call was interrupted; try again", retry_after=0.1
    )


def deadline_exceeded() -> MemoroError:
    """DEADLINE_EXCEEDED: the caller's deadline, or the longest one of the method."""
    return MemoroError(Code.DEADLINE_EXCEEDED, Reason.DEADLINE_EXCEEDED, "the deadline passed")


def method_unknown(path: str) -> MemoroError:
    """UNIMPLEMENTED / METHOD_UNKNOWN."""
    return MemoroError(Code.UNIMPLEMENTED, Reason.METHOD_UNKNOWN, f"no method {_cut(path)}")


def _too_few_credits(error: MemoroError) -> error_details_pb2.PreconditionFailure:
    subject, need, have = (_cut(error.metadata.get(name, "")) for name in ("tenant_id", "need", "have"))
    violation = error_details_pb2.PreconditionFailure.Violation(
        type="CREDITS", subject=subject, description=f"needs {need} micro-credits, has {have}"
    )
    return error_details_pb2.PreconditionFailure(violations=[violation])


def _failure(
    code: grpc.StatusCode, reason: Reason, message: str, details: list[Message], trailers: list[tuple[str, str | bytes]]
) -> Failure:
    status = status_pb2.Status(code=code.value[0], message=message)
    for detail in details:
        status.details.add().Pack(detail)
    return Failure(code, reason.value, message, ((_DETAILS, status.SerializeToString()), *trailers))


def _metadata(error: MemoroError) -> dict[str, str]:
    return {_cut(key): _cut(value) for key, value in error.metadata.items()}


def _cut(text: str, limit: int = _MAX_TEXT) -> str:
    """At most `limit` bytes of a text."""
    data = text.encode()
    return text if len(data) <= limit else data[: limit - 3].decode(errors="ignore") + "…"
