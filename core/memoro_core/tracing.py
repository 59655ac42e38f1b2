"""W3C trace context: a call's trace goes on in the runs of its jobs, and in what they ask of others.

The OpenTelemetry API alone passes contexts on. Spans appear where its SDK is installed and configured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue
from structlog.contextvars import bound_contextvars

from memoro_core.ids import JobId

HEADER: Final = "traceparent"
_MAX_LENGTH: Final = 512
"""Characters: versions to come may be longer than the 55 of today's."""
_NOWHERE: Final = Context()
_TRACER: Final = trace.get_tracer("memoro")
_PROPAGATOR: Final = TraceContextTextMapPropagator()


def current_trace_parent() -> str | None:
    """The trace context of what goes on now, as a `traceparent` of 55 characters; None outside any trace."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return carrier.get(HEADER)


def trace_headers(trace_parent: str | None) -> Mapping[str, str]:
    """What a request carries so that its receiver goes on with the trace."""
    return {HEADER: trace_parent} if trace_parent else {}


def trace_id_of(trace_parent: str | None) -> str | None:
    """The 32 hexadecimal digits that name the trace; None for what is no `traceparent`."""
    context = trace.get_current_span(_parent(trace_parent)).get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else None


def call_span(
    name: str, trace_parent: str | None, attributes: Mapping[str, AttributeValue]
) -> AbstractContextManager[Span]:
    """The span of a call that this process answers, in its caller's trace; log lines within it carry `trace_id`.

    A `trace_parent` that is malformed counts as absent.
    """
    return _span(name, SpanKind.SERVER, trace_parent, attributes)


@contextmanager
def attempt_span(
    trace_parent: str | None, *, kind: str, job_id: JobId, attempt: int
) -> Iterator[Callable[[str, str | None], None]]:
    """The span of one attempt of a job, in the trace of the call that made it; log lines within it carry `trace_id`.

    Call what it yields with the state that the attempt ended the job in, and the reason if it failed.
    """
    attributes: dict[str, AttributeValue] = {
        "memoro.job.id": str(job_id),
        "memoro.job.kind": kind,
        "memoro.job.attempt": attempt,
    }
    with _span(kind, SpanKind.CONSUMER, trace_parent, attributes) as span:

        def ended(state: str, reason: str | None) -> None:
            span.set_attribute("memoro.job.state", state)
            if reason is not None:
                span.set_attribute("error.type", reason)
                span.set_status(StatusCode.ERROR)

        yield ended


@contextmanager
def _span(
    name: str, kind: SpanKind, trace_parent: str | None, attributes: Mapping[str, AttributeValue]
) -> Iterator[Span]:
    if trace_parent is None and _without_sdk():
        # There is neither a trace to go on with nor what could begin one.
        yield trace.INVALID_SPAN
        return
    # What an exception says may hold texts of users: a span gets no more of it than its reason.
    span = _TRACER.start_span(
        name, _parent(trace_parent), kind, attributes, record_exception=False, set_status_on_exception=False
    )
    context = span.get_span_context()
    if not context.is_valid:
        yield span
        return
    with (
        trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False),
        bound_contextvars(trace_id=trace.format_trace_id(context.trace_id)),
    ):
        yield span


def _without_sdk() -> bool:
    return isinstance(_TRACER, trace.ProxyTracer) and isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def _parent(trace_parent: str | None) -> Context:
    if trace_parent is None or len(trace_parent) > _MAX_LENGTH:
        return _NOWHERE
    return _PROPAGATOR.extract({HEADER: trace_parent}, _NOWHERE)
