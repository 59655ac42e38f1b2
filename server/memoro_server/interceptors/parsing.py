"""Turns bytes into a request."""

from __future__ import annotations

from typing import Any, Final

from memoro_server.call import Call, Handler, Method
from memoro_server.parsing import parse


class ParsingInterceptor:
    """Parses the request, refusing fields that the contract does not know."""

    name: Final = "parsing"

    def wrap(self, method: Method, proceed: Handler) -> Handler:
        request_class = method.request_class
        if request_class is None:
            return proceed

        async def parsed(data: Any, call: Call) -> bytes | None:
            return await proceed(parse(request_class, data), call)

        return parsed
