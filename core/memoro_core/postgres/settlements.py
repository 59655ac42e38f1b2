"""The money of jobs that end, in the transactions that end them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from memoro_core.ids import JobId, TenantId
from memoro_core.postgres.credit_holds import CreditHolds
from memoro_core.postgres.database import Connection
from memoro_core.postgres.queries import load_queries

_SQL: Final = load_queries("calls")


async def settle_in(
    connection: Connection, holds: CreditHolds, tenant_id: TenantId, job_ids: Sequence[JobId], *, now: datetime
) -> Mapping[JobId, int]:
    """Settles what was set aside for jobs that the transaction has ended, and writes it into their last events.

    In micro-credits what each is charged; jobs that cost nothing may be left out.
    """
    if not job_ids:
        return {}
    resolved = await holds.resolve_in(connection, tenant_id, job_ids, now=now)
    charged = {job_id: amount for job_id, amount in resolved.items() if amount}
    if charged:
        await connection.execute(_SQL["tell_charged"], tenant_id, list(charged), list(charged.values()))
    return charged
