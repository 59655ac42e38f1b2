"""Trace contexts: what is sound goes on, what is not counts as absent, and nothing is made up."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, format_span_id, format_trace_id
from structlog.contextvars import get_contextvars

from memoro_core import tracing
from memoro_core.ids import JobId, new_id
from memoro_core.tracing import attempt_span, call_span, current_trace_parent, trace_headers, trace_id_of

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"
JOB = JobId(new_id())


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """What an SDK would send away."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "_TRACER", provider.get_tracer("test"))
    return exporter


def parent_of(span: ReadableSpan) -> str | None:
    return format_span_id(span.parent.span_id) if span.parent else None


def test_outside_any_trace_there_is_none() -> None:
    assert current_trace_parent() is None
    with call_span("Service/Method", None, {}):
        assert current_trace_parent() is None
        assert "trace_id" not in get_contextvars()
    assert trace_headers(None) == {}
    assert trace_id_of(None) is None


def test_without_an_sdk_the_context_goes_on_as_it_came() -> None:
    with call_span("Service/Method", PARENT, {}):
        assert current_trace_parent() == PARENT
        assert get_contextvars()["trace_id"] == TRACE
        made = current_trace_parent()
    assert current_trace_parent() is None
    assert "trace_id" not in get_contextvars()
    with attempt_span(made, kind="memory.enrich", job_id=JOB, attempt=1) as ended:
        assert trace_headers(current_trace_parent()) == {"traceparent": PARENT}
        ended("SUCCEEDED", None)
    assert trace_id_of(made) == TRACE


def test_a_trace_that_is_not_sampled_stays_so() -> None:
    with call_span("Service/Method", f"00-{TRACE}-{SPAN}-00", {}):
        assert current_trace_parent() == f"00-{TRACE}-{SPAN}-00"


@pytest.mark.parametrize(
    "malformed",
    [
        "",
        "garbage",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"01-{TRACE}-{SPAN}-01-{'x' * 10_000}",
    ],
)
def test_what_is_malformed_is_ignored(malformed: str) -> None:
    with call_span("Service/Method", malformed, {}):
        assert current_trace_parent() is None
    assert trace_id_of(malformed) is None


@given(st.text(max_size=80) | st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?"))
def test_whatever_comes_is_either_ignored_or_kept_in_55_characters(header: str) -> None:
    with call_span("Service/Method", header, {}):
        kept = current_trace_parent()
    assert kept is None or (len(kept) == 55 and kept[3:52] == header.strip()[3:52])


async def test_concurrent_calls_keep_their_own() -> None:
    async def call(number: int) -> str | None:
        with call_span("Service/Method", f"00-{number:032x}-{SPAN}-01", {}):
            await asyncio.sleep(0)
            return trace_id_of(current_trace_parent())

    assert await asyncio.gather(*(call(n) for n in range(1, 20))) == [f"{n:032x}" for n in range(1, 20)]


def test_with_an_sdk_a_call_and_the_attempts_of_its_job_are_spans_of_one_trace(spans: InMemorySpanExporter) -> None:
    with call_span("memoro.v1.MemoryService/CreateMemory", PARENT, {"rpc.system": "grpc"}):
        made = current_trace_parent()
    for attempt, reason in ((1, "PROVIDER_FAILED"), (2, None)):
        with attempt_span(made, kind="memory.enrich", job_id=JOB, attempt=attempt) as ended:
            ended("QUEUED" if reason else "SUCCEEDED", reason)
    call, *attempts = spans.get_finished_spans()
    assert (call.name, call.kind, parent_of(call)) == (
        "memoro.v1.MemoryService/CreateMemory",
        SpanKind.SERVER,
        SPAN,
    )
    assert [span.kind for span in attempts] == [SpanKind.CONSUMER] * 2
    assert {format_trace_id(span.context.trace_id) for span in (call, *attempts)} == {TRACE}
    assert {parent_of(span) for span in attempts} == {format_span_id(call.context.span_id)}
    assert [span.status.status_code for span in attempts] == [StatusCode.ERROR, StatusCode.UNSET]
    assert attempts[0].attributes is not None
    assert attempts[0].attributes["memoro.job.id"] == str(JOB)


def test_with_an_sdk_a_call_without_a_trace_begins_one(spans: InMemorySpanExporter) -> None:
    with call_span("Service/Method", None, {}):
        trace_id = get_contextvars()["trace_id"]
    (span,) = spans.get_finished_spans()
    assert (format_trace_id(span.context.trace_id), span.parent) == (trace_id, None)


def test_no_span_says_what_an_exception_said(spans: InMemorySpanExporter) -> None:
    with (
        pytest.raises(RuntimeError),
        attempt_span(None, kind="memory.enrich", job_id=JOB, attempt=1),
    ):
        raise RuntimeError("the user's own words")
    (span,) = spans.get_finished_spans()
    assert "words" not in span.to_json()
