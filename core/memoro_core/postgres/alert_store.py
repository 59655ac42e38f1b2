"""Alerts in PostgreSQL."""

from __future__ import annotations

from typing import Final

from memoro_core.alerts.model import Alert
from memoro_core.postgres.database import Connection, rows_of
from memoro_core.postgres.queries import load_queries

_SQL: Final = load_queries("alerts")


async def raise_alert_in(connection: Connection, alert: Alert) -> bool:
    """Raises an alert within a transaction of its tenant, of any tenant if it is the deployment's, or of the system.

    Tells whether it is new: one with the same `dedupe_key` may have been raised before.
    """
    status = await connection.execute(
        _SQL["raise_alert"],
        alert.id,
        alert.tenant_id,
        alert.dedupe_key,
        alert.kind,
        alert.severity,
        alert.title,
        dict(alert.details),
        alert.created_at,
    )
    return rows_of(status) == 1
