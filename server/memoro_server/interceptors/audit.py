"""Puts into the audit log what operators do or try, and what is done to credentials."""

from __future__ import annotations

import asyncio
from typing import Any, Final, Protocol

from google.protobuf.message import DecodeError, Message

from memoro_core.errors import Code, MemoroError, Reason
from memoro_core.ids import TenantId, parse_id
from memoro_core.tenancy.model import Principal
from memoro_server.call import Call, Handler, Method
from memoro_server.convert.audit import to_audit_json
from memoro_server.policy import is_audited

_NOT_TRIED: Final = frozenset({Code.PERMISSION_DENIED, Code.RESOURCE_EXHAUSTED})
_MAX_NOT_TRIED: Final = 60
_PERIOD: Final = 60.0
_PATIENCE: Final = 2.0


class AuditLog(Protocol):
    """Where events go."""

    async def record(
        self,
        principal: Principal,
        method: str,
        *,
        code: str,
        reason: str,
        tenant_id: TenantId | None,
        request: str,
        request_id: str,
    ) -> None:
        """Writes an event. Raises UNAVAILABLE."""
        ...


class AuditInterceptor:
    """Writes one event for each call of an audited method whose caller is known, before the caller gets its answer.

    What can't be written fails with UNAVAILABLE, done as it may be. Of the calls that a tenant is refused before they
    do anything, 60 a minute are written on each server: nobody fills the log with what he may not do.
    """

    name: Final = "audit"

    def __init__(self, log: AuditLog) -> None:
        self._log = log
        self._refused: dict[TenantId, int] = {}
        self._period_ends_at = 0.0

    def wrap(self, method: Method, proceed: Handler) -> Handler:
        if not is_audited(method.path, method.policy):
            return proceed
        name = method.path.rpartition(".")[2]

        async def audited(request: Any, call: Call) -> bytes | None:
            try:
                answer = await proceed(request, call)
            except MemoroError as error:
                await self._write(name, call, error.code, error.reason)
                raise
            except asyncio.CancelledError:
                await self._write(name, call, Code.CANCELLED, "", gone=True)
                raise
            except Exception:
                await self._write(name, call, Code.INTERNAL, Reason.INTERNAL)
                raise
            await self._write(name, call, "OK", "")
            return answer

        return audited

    async def _write(self, name: str, call: Call, code: str, reason: str, *, gone: bool = False) -> None:
        principal = call.known_principal
        if principal is None or (code in _NOT_TRIED and self._too_often(principal.tenant_id)):
            return
        request = _parsed(call.method, call.data if gone else await _data_of(call))
        await self._log.record(
            principal,
            name,
            code=str(code),
            reason=str(reason),
            tenant_id=_whom(request, principal),
            request=to_audit_json(request) if request is not None else "",
            request_id=call.request_id,
        )

    def _too_often(self, tenant_id: TenantId) -> bool:
        now = asyncio.get_running_loop().time()
        if now >= self._period_ends_at:
            self._refused.clear()
            self._period_ends_at = now + _PERIOD
        self._refused[tenant_id] = self._refused.get(tenant_id, 0) + 1
        return self._refused[tenant_id] > _MAX_NOT_TRIED


async def _data_of(call: Call) -> bytes | None:
    """The raw request, also of a call that was refused before it was read; None where it does not come soon."""
    if call.data is not None:
        return call.data
    try:
        async with asyncio.timeout(_PATIENCE):
            return await call.read()
    except (TimeoutError, asyncio.CancelledError):
        # Nobody keeps out of the log by going away before he has said it all.
        return None


def _parsed(method: Method, data: bytes | None) -> Message | None:
    """The request, which may not have been validated: then only its shape is certain."""
    assert method.request_class is not None, f"{method.path} is audited, and takes a stream"
    if data is None:
        return None
    try:
        return method.request_class.FromString(data)
    except DecodeError:
        return None


def _whom(request: Any, principal: Principal) -> TenantId | None:
    """The tenant that a request names; None where it could but does not; where it can't, the caller's own."""
    if request is None:
        return principal.tenant_id
    if "tenant_id" in request.DESCRIPTOR.fields_by_name:
        named = parse_id(request.tenant_id)
        return TenantId(named) if named is not None else None
    return None if request.DESCRIPTOR.file.name == _ADMINISTRATION else principal.tenant_id


_ADMINISTRATION: Final = "memoro/v1/admin_service.proto"
