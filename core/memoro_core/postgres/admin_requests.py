"""What operators' requests made, so that a repeated one makes nothing more."""

from __future__ import annotations

import hmac
from datetime import datetime

from memoro_core.idempotency import request_id_reused
from memoro_core.postgres.database import Connection
from memoro_core.postgres.queries import load_queries
from memoro_core.tenancy.ports import Request

_SQL = load_queries("admin_requests")


async def done_before(connection: Connection, request: Request | None, made: str, now: datetime) -> str | None:
    """What the request made before, by its id or name; None when it is new, and now remembered with what it makes.

    Raises REQUEST_ID_REUSED.
    """
    if request is None:
        return None
    key = request.idempotency
    answer = {"id": made}
    if await connection.fetchval(
        _SQL["record_admin_request"], request.tenant_id, key.request_id, key.fingerprint, answer, now
    ):
        return None
    row = (await connection.fetch(_SQL["find_admin_request"], request.tenant_id, key.request_id))[0]
    if not hmac.compare_digest(row["fingerprint"], key.fingerprint):
        raise request_id_reused(key.request_id)
    before: str = row["answer"]["id"]
    return before
