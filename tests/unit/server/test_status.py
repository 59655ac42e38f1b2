"""Statuses, and the reasons in them."""

from __future__ import annotations

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from memoro_core.errors import Code, FieldViolation, MemoroError, Reason
from memoro_server.status import PUSHBACK, Failure, failure_of, item_error

CLIENTS_LIMIT = 8 * 1024


def status_of(failure: Failure) -> status_pb2.Status:
    raw = dict(failure.trailers)["grpc-status-details-bin"]
    assert isinstance(raw, bytes)
    return status_pb2.Status.FromString(raw)


@pytest.mark.parametrize("code", Code)
def test_every_code_is_a_canonical_one(code: Code) -> None:
    failure = failure_of(MemoroError(code, Reason.INTERNAL, "text"))
    assert failure.code is grpc.StatusCode[code.value]
    assert status_of(failure).code == failure.code.value[0]


def test_too_few_credits_say_what_is_needed_and_what_there_is() -> None:
    error = MemoroError(
        Code.FAILED_PRECONDITION,
        Reason.INSUFFICIENT_CREDITS,
        "it may cost 7500 micro-credits, and 1200 are available: add credits",
        metadata={"tenant_id": "a tenant", "need": "7500", "have": "1200"},
    )
    info, broken = error_details_pb2.ErrorInfo(), error_details_pb2.PreconditionFailure()
    first, second = status_of(failure_of(error)).details
    first.Unpack(info)
    second.Unpack(broken)
    assert dict(info.metadata) == error.metadata
    assert [(it.type, it.subject, it.description) for it in broken.violations] == [
        ("CREDITS", "a tenant", "needs 7500 micro-credits, has 1200")
    ]


TEXTS = st.text(max_size=5000)


@given(
    reason=st.sampled_from(Reason),
    message=TEXTS,
    metadata=st.dictionaries(st.text(max_size=40), TEXTS, max_size=3),
    fields=st.lists(st.tuples(TEXTS, TEXTS), max_size=40),
    retry_after=st.none() | st.floats(0, 1e6),
)
def test_no_two_details_of_a_kind_and_never_too_large(
    reason: Reason,
    message: str,
    metadata: dict[str, str],
    fields: list[tuple[str, str]],
    retry_after: float | None,
) -> None:
    error = MemoroError(
        Code.RESOURCE_EXHAUSTED,
        reason,
        message,
        metadata=metadata,
        violations=[FieldViolation(*field) for field in fields],
        retry_after=retry_after,
    )
    failure = failure_of(error)
    status = status_of(failure)
    kinds = [detail.TypeName() for detail in status.details]
    assert len(kinds) == len(set(kinds))
    assert kinds[0] == "google.rpc.ErrorInfo"
    assert (dict(failure.trailers)[PUSHBACK] == "-1") == (retry_after is None)
    assert sent_bytes(failure) < CLIENTS_LIMIT


def sent_bytes(failure: Failure) -> int:
    """On the wire the details are base64, and all that is not ASCII in the message is spelt %XX."""
    message = sum(1 if byte < 0x80 else 3 for byte in failure.message.encode())
    return message + sum(len(name) + len(value) * 4 // 3 for name, value in failure.trailers)


@pytest.mark.parametrize("letter", ["f", "é", "\N{GRINNING FACE}"])
def test_a_status_fits_into_the_headers_that_a_client_takes(letter: str) -> None:
    violations = [FieldViolation(letter * 300, letter * 300)] * 500
    error = MemoroError(Code.INVALID_ARGUMENT, Reason.INVALID_FIELD, letter * 9000, violations=violations)
    assert sent_bytes(failure_of(error)) < CLIENTS_LIMIT


def test_an_item_of_a_batch_tells_what_a_call_would() -> None:
    error = MemoroError(
        Code.INVALID_ARGUMENT,
        Reason.INVALID_FIELD,
        "text: must not be empty",
        violations=[FieldViolation("text", "must not be empty")],
        metadata={"need": "7500", "have": "1200"},
    )
    item = item_error(error)
    status = status_of(failure_of(error))
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    status.details[0].Unpack(info)
    status.details[1].Unpack(bad)
    assert (item.code, item.message, item.reason) == (status.code, status.message, info.reason)
    assert dict(item.metadata) == dict(info.metadata) == {"need": "7500", "have": "1200"}
    assert [(it.field, it.description) for it in item.field_violations] == [
        (it.field, it.description) for it in bad.field_violations
    ]


def refusal(reason: Reason, retry_after: float | None = None) -> Failure:
    metadata = {"limit": "writes"}
    return failure_of(MemoroError(Code.RESOURCE_EXHAUSTED, reason, "no", metadata=metadata, retry_after=retry_after))


@pytest.mark.parametrize("reason", [Reason.RATE_LIMITED, Reason.DAILY_LIMIT, Reason.QUOTA_EXCEEDED])
def test_a_limit_says_which_it_is(reason: Reason) -> None:
    info, quota = error_details_pb2.ErrorInfo(), error_details_pb2.QuotaFailure()
    failure = refusal(reason)
    first, second = status_of(failure).details
    first.Unpack(info)
    second.Unpack(quota)
    assert (info.reason, dict(info.metadata)) == (reason, {"limit": "writes"})
    assert [(it.subject, it.description) for it in quota.violations] == [("writes", "no")]
    assert dict(failure.trailers)[PUSHBACK] == "-1"


@pytest.mark.parametrize(
    ("retry_after", "milliseconds"),
    [(0.0001, 1), (0.25, 250), (0.2500001, 250), (0.2501, 251), (1.1, 1100), (30, 30_000)],
)
def test_the_time_to_wait_is_never_too_short(retry_after: float, milliseconds: int) -> None:
    retry = error_details_pb2.RetryInfo()
    failure = refusal(Reason.RATE_LIMITED, retry_after)
    status_of(failure).details[2].Unpack(retry)
    assert retry.retry_delay.ToMilliseconds() == milliseconds
    assert dict(failure.trailers)[PUSHBACK] == str(milliseconds)
