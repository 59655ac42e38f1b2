"""One call on its way through the interceptors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import grpc.aio
from google.protobuf.message import Message

from memoro_core.errors import Code, MemoroError, Reason
from memoro_core.ids import TenantId
from memoro_core.tenancy.model import Principal, Scope
from memoro_server.policy import Policy

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Trailers: TypeAlias = tuple[tuple[str, str], ...]
"""Names and values of trailing metadata."""

_MARGIN: Final = 5.0
"""Seconds before its deadline at which a call that works in batches begins no more of them: more than one takes."""


@dataclass(frozen=True, slots=True)
class Method:
    """A method that this server serves."""

    path: str
    """As on the wire: `/memoro.v1.MemoryService/CreateMemory`."""
    policy: Policy
    request_class: type[Message] | None
    """None for a stream of requests, which its servicer gets parsed, one by one."""


class Call:
    """What the interceptors have found out about a call. `principal` is set once it is authenticated."""

    __slots__ = (
        "_principal",
        "authorization",
        "context",
        "data",
        "method",
        "reason",
        "request_id",
        "trace_parent",
        "trailers",
    )

    def __init__(self, method: Method, context: Context) -> None:
        self.method = method
        self.context = context
        self.request_id = ""
        self.authorization: str | None = None
        self.trace_parent: str | None = None
        self.reason = ""
        self.trailers: Trailers = ()
        self.data: bytes | None = None
        """The raw request, once it is read."""
        self._principal: Principal | None = None

    async def read(self) -> bytes | None:
        """Reads the raw request, waiting for it; None when the caller sends none."""
        if self.data is None:
            data: Any = await self.context.read()
            self.data = data if isinstance(data, bytes) else None
        return self.data

    @property
    def principal(self) -> Principal:
        """Who calls. Only for methods that need credentials."""
        assert self._principal is not None, f"{self.method.path} was not authenticated"
        return self._principal

    @principal.setter
    def principal(self, principal: Principal) -> None:
        self._principal = principal

    @property
    def known_principal(self) -> Principal | None:
        """Who calls, or None as long as that is not known."""
        return self._principal

    def tell(self, trailers: Trailers) -> None:
        """Adds to what the caller is told at the end, however the call ends."""
        self.trailers = (*self.trailers, *trailers)

    @property
    def seconds_left(self) -> float:
        """Until the caller's deadline, or the method's longest one if that is sooner; 0 or less once it has passed."""
        longest = self.method.policy.longest_deadline
        remaining: float | None = self.context.time_remaining()
        return longest if remaining is None else min(remaining, longest)

    @property
    def working_time(self) -> float:
        """Seconds that work in batches may go on: what is left but a margin, and half of it when that is little."""
        return max(self.seconds_left - _MARGIN, self.seconds_left / 2)

    @property
    def tenant_id(self) -> TenantId:
        """The tenant of the credential: the only one whose data the call may touch, unless it is an operator's."""
        return self.principal.tenant_id

    def tenant_or(self, named: TenantId | None) -> TenantId:
        """The tenant that a request names, or else the caller's own. Raises SCOPE_MISSING for another's than his own.

        Operators may name any.
        """
        if named is None or named == self.tenant_id:
            return self.tenant_id
        if Scope.ADMIN not in self.principal.scopes:
            raise scope_missing(Scope.ADMIN, "to name another tenant than its own, a key")
        return named


def scope_missing(scope: Scope, what: str = "this method") -> MemoroError:
    """PERMISSION_DENIED / SCOPE_MISSING: what was asked for needs a scope that the key has not."""
    return MemoroError(
        Code.PERMISSION_DENIED,
        Reason.SCOPE_MISSING,
        f"{what} needs the scope {scope.value}",
        metadata={"scope": scope.value},
    )


Handler: TypeAlias = Callable[[Any, Call], Awaitable[bytes | None]]
"""Takes the request and the call; the raw answer, or None when it wrote a stream.

The request is None until it is read and parsed, which nothing before the parsing need care about; where the caller
streams requests, it is what iterates over them.
"""
