"""Holds requests to the rules of the contract."""

from __future__ import annotations

from typing import Any, Final

from memoro_server.call import Call, Handler, Method
from memoro_server.rules import Rules


class ValidationInterceptor:
    """Checks a request against its rules."""

    name: Final = "validation"

    def __init__(self, rules: Rules) -> None:
        self._rules = rules

    def wrap(self, method: Method, proceed: Handler) -> Handler:
        request_class = method.request_class
        if request_class is None:
            return proceed
        self._rules.prepare(request_class)
        check = self._rules.check

        async def validated(request: Any, call: Call) -> bytes | None:
            check(request)
            return await proceed(request, call)

        return validated
