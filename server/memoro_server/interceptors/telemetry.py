"""A log line and a few numbers for every call."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Any, Final

import grpc
import grpc.aio
import structlog

from memoro_core.errors import Reason
from memoro_server.call import Call, Handler, Method
from memoro_server.metrics import ServerMetrics

_OURS_TO_MEND: Final = frozenset(
    {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DATA_LOSS}
)


class TelemetryInterceptor:
    """Counts calls by method and code, times them, and logs one line when a call ends."""

    name: Final = "telemetry"

    def __init__(self, metrics: ServerMetrics) -> None:
        self._metrics = metrics
        self._logger = structlog.get_logger("memoro.server").bind()

    def wrap(self, method: Method, proceed: Handler) -> Handler:
        metrics, in_flight = self._metrics.of_method(method.path), self._metrics.in_flight
        logger = self._logger
        # Health probes come every few seconds, for ever.
        quiet = method.policy.scope is None

        def ended(call: Call, code: grpc.StatusCode, started: float) -> None:
            seconds = perf_counter() - started
            in_flight.dec()
            metrics.record(code.name, seconds)
            principal = call.known_principal
            if quiet:
                log = logger.debug
            elif code in _OURS_TO_MEND and call.reason != Reason.SERVER_DRAINING:
                log = logger.warning
            else:
                log = logger.info
            log(
                "call",
                method=method.path,
                code=code.name,
                reason=call.reason,
                ms=round(seconds * 1000, 3),
                tenant_id=str(principal.tenant_id) if principal else None,
                **(principal.credential if principal else {}),
            )

        async def observed(request: Any, call: Call) -> bytes | None:
            started = perf_counter()
            in_flight.inc()
            try:
                answer = await proceed(request, call)
            except grpc.aio.AbortError:
                ended(call, call.context.code(), started)
                raise
            except (asyncio.CancelledError, grpc.aio.BaseError):
                ended(call, grpc.StatusCode.CANCELLED, started)
                raise
            except BaseException:
                ended(call, grpc.StatusCode.UNKNOWN, started)
                raise
            ended(call, grpc.StatusCode.OK, started)
            return answer

        return observed
