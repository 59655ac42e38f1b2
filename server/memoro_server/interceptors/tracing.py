"""Makes every call part of its caller's trace."""

from __future__ import annotations

from typing import Any, Final

import grpc
import grpc.aio
from opentelemetry.trace import Span, StatusCode

from memoro_core.tracing import call_span
from memoro_server.call import Call, Handler, Method

_OURS: Final = frozenset(
    {
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
"""What OpenTelemetry's conventions call an error of the server."""


class TracingInterceptor:
    """Opens the span of a call: a child of the caller's when there is a sound `traceparent`.

    The trace's id is in every log line of the call. Without a `traceparent` none is made up: then a call is part of a
    trace only if an OpenTelemetry SDK begins one.
    """

    name: Final = "tracing"

    def wrap(self, method: Method, proceed: Handler) -> Handler:
        # Health probes come every few seconds, for ever.
        if method.policy.scope is None:
            return proceed
        name = method.path.removeprefix("/")
        service, _, short = name.rpartition("/")
        attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": short}

        async def traced(request: Any, call: Call) -> bytes | None:
            with call_span(name, call.trace_parent, attributes) as span:
                try:
                    answer = await proceed(request, call)
                except grpc.aio.AbortError:
                    _ended(span, call.context.code())
                    raise
                _ended(span, grpc.StatusCode.OK)
                return answer

        return traced


def _ended(span: Span, code: grpc.StatusCode) -> None:
    if span.is_recording():
        span.set_attribute("rpc.grpc.status_code", code.value[0])
        if code in _OURS:
            span.set_status(StatusCode.ERROR)
