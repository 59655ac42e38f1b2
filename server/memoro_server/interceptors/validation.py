"""Turns bytes into a request that keeps the contract."""

from __future__ import annotations

from typing import Any, Final

from memoro_server.call import Call, Handler, Method
from memoro_server.parsing import parse
from memoro_server.rules import Rules


class ValidationInterceptor:
    """Parses the request, refusing fields that the contract does not know, and checks it against its rules."""

    name: Final = "validation"

    def __init__(self, rules: Rules) -> None:
        self._rules = rules

    def wrap(self, method: Method, proceed: Handler) -> Handler:
        request_class = method.request_class
        if request_class is None:
            return proceed
        self._rules.prepare(request_class)
        check = self._rules.check

        async def validated(data: Any, call: Call) -> bytes | None:
            request = parse(request_class, data)
            check(request)
            return await proceed(request, call)

        return validated
