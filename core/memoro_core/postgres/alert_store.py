"""Alerts in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from asyncpg import Record

from memoro_core.alerts.model import Alert, AlertClaim, AlertKind, AlertVerdict, Severity
from memoro_core.ids import AlertId
from memoro_core.postgres.database import Connection, Database, rows_of
from memoro_core.postgres.queries import load_queries

_SQL: Final = load_queries("alerts")


class PostgresAlertStore:
    """An `AlertStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def raise_alert(self, alert: Alert) -> bool:
        async with self._database.system_tx() as connection:
            return await raise_alert_in(connection, alert)

    async def claim(self, *, limit: int, now: datetime, lease_until: datetime) -> Sequence[AlertClaim]:
        async with self._database.system_tx() as connection:
            rows = await connection.fetch(_SQL["claim_alerts"], now, lease_until, limit)
        return [_claim_of(row) for row in rows]

    async def took(self, alert_id: AlertId, channel: str) -> None:
        async with self._database.system_tx() as connection:
            await connection.execute(_SQL["alert_taken"], alert_id, channel)

    async def settle(self, claim: AlertClaim, verdict: AlertVerdict, *, now: datetime) -> bool:
        async with self._database.system_tx() as connection:
            held = await connection.fetchval(
                _SQL["settle_alert"],
                claim.alert.id,
                claim.lease,
                verdict.state,
                verdict.next_attempt_at,
                verdict.error,
                now,
            )
        return held is not None

    async def prune(self, *, ended_before: datetime, limit: int) -> int:
        async with self._database.system_tx(durable=False) as connection:
            return rows_of(await connection.execute(_SQL["prune_alerts"], ended_before, limit))


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


def _claim_of(row: Record) -> AlertClaim:
    alert = Alert(
        id=row["alert_id"],
        tenant_id=row["tenant_id"],
        dedupe_key=row["dedupe_key"],
        kind=AlertKind(row["kind"]),
        severity=Severity(row["severity"]),
        title=row["title"],
        created_at=row["created_at"],
        details=row["details"],
    )
    return AlertClaim(alert, row["lease"], row["attempt"], frozenset(row["delivered_over"]))
