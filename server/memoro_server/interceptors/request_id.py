"""Gives every call an id, and tells it to the caller."""

from __future__ import annotations

from typing import Any, Final, TypeGuard

from structlog.contextvars import bind_contextvars
from uuid_utils import uuid7

from memoro_core.tracing import HEADER as TRACE_PARENT
from memoro_server.call import Call, Handler, Method

HEADER: Final = "x-request-id"
_MAX_LENGTH: Final = 128


class RequestIdInterceptor:
    """Takes the caller's `x-request-id` if it is 1 to 128 printable ASCII characters, else makes one.

    The id goes back as a trailer, and into every log line of the call.
    """

    name: Final = "request_id"

    def wrap(self, method: Method, proceed: Handler) -> Handler:
        async def with_request_id(request: Any, call: Call) -> bytes | None:
            # One walk for all that is read from the metadata: each reading of it builds it anew.
            for key, value in call.context.invocation_metadata() or ():
                if key == HEADER:
                    if _is_sane(value):
                        call.request_id = value
                elif key == "authorization" and isinstance(value, str):
                    call.authorization = value
                elif key == TRACE_PARENT and isinstance(value, str):
                    call.trace_parent = value
            if not call.request_id:
                call.request_id = str(uuid7())
            call.tell(((HEADER, call.request_id),))
            bind_contextvars(request_id=call.request_id)
            return await proceed(request, call)

        return with_request_id


def _is_sane(value: str | bytes) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= _MAX_LENGTH and value.isascii() and value.isprintable()
