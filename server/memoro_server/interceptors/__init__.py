"""What every call passes through, in this order, outermost first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from memoro_server.call import Handler, Method

ORDER: Final = (
    "request_id",
    "tracing",
    "telemetry",
    "errors",
    "drain",
    "audit",
    "authentication",
    "standing",
    "deadline",
    "parsing",
    "rate_limit",
    "validation",
)
"""The order of the interceptors, whichever of them a server has.

The request id comes first, so that whatever fails can be found; then the trace that the call is part of. Errors are
inside telemetry, which counts what the caller sees. The audit is before authentication, so that it hears of whom that
refuses. No message is read before it is known that its sender may call. A limit needs to know who calls, and for
which user, which the message says; a call that breaks a rule counts too.
"""


class Interceptor(Protocol):
    """One concern of all calls."""

    @property
    def name(self) -> str:
        """Its place: one of `ORDER`."""
        ...

    def wrap(self, method: Method, proceed: Handler) -> Handler:
        """A real `async def` that does its part around `proceed`; or `proceed` itself where there is nothing to do.

        Called once per method, when the server starts.
        """
        ...


def chain(method: Method, interceptors: Sequence[Interceptor], handler: Handler) -> Handler:
    """`handler` behind all interceptors. Raises ValueError when they are not in the declared order."""
    places = [ORDER.index(interceptor.name) for interceptor in interceptors]
    if places != sorted(set(places)):
        raise ValueError(f"interceptors are out of order: {[interceptor.name for interceptor in interceptors]}")
    for interceptor in reversed(interceptors):
        handler = interceptor.wrap(method, handler)
    return handler
