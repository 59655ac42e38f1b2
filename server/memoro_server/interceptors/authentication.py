"""Finds out who calls, and whether his key may call this method."""

from __future__ import annotations

from typing import Any, Final, Protocol

from memoro_core.tenancy.authentication import TenantSuspendedError
from memoro_core.tenancy.model import Principal, Scope
from memoro_server.call import Call, Handler, Method, scope_missing


class Authenticator(Protocol):
    """Tells who a credential belongs to."""

    async def authenticate(self, authorization: str | None) -> Principal:
        """The caller. Raises UNAUTHENTICATED; PERMISSION_DENIED when its tenant is suspended."""
        ...


class AuthenticationInterceptor:
    """Sets the call's principal, and refuses a key without the scope that the method needs."""

    name: Final = "authentication"

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator

    def wrap(self, method: Method, proceed: Handler) -> Handler:
        scope = method.policy.scope
        if scope is None:
            return proceed
        authenticate = self._authenticator.authenticate
        enough = {scope, Scope.ADMIN} if method.policy.operators else {scope}

        async def authenticated(request: Any, call: Call) -> bytes | None:
            try:
                principal = await authenticate(call.authorization)
            except TenantSuspendedError as error:
                # He goes no further, but logs say who it was.
                call.principal = error.principal
                raise
            call.principal = principal
            if enough.isdisjoint(principal.scopes):
                raise scope_missing(scope)
            return await proceed(request, call)

        return authenticated
