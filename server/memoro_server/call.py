"""One call on its way through the interceptors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc.aio
from google.protobuf.message import Message

from memoro_core.ids import TenantId
from memoro_core.tenancy.model import Principal
from memoro_server.policy import Policy

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


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

    __slots__ = ("_principal", "authorization", "context", "method", "reason", "request_id", "trace_parent")

    def __init__(self, method: Method, context: Context) -> None:
        self.method = method
        self.context = context
        self.request_id = ""
        self.authorization: str | None = None
        self.trace_parent: str | None = None
        self.reason = ""
        self._principal: Principal | None = None

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

    @property
    def seconds_left(self) -> float:
        """Until the caller's deadline, or the method's longest one if that is sooner; 0 or less once it has passed."""
        longest = self.method.policy.longest_deadline
        remaining: float | None = self.context.time_remaining()
        return longest if remaining is None else min(remaining, longest)

    @property
    def tenant_id(self) -> TenantId:
        """The tenant of the credential: the only one whose data the call may touch."""
        return self.principal.tenant_id


Handler: TypeAlias = Callable[[Any, Call], Awaitable[bytes | None]]
"""Takes the request (raw bytes until it is validated) and the call; the raw answer, or None when it wrote a stream."""
