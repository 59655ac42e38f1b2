"""Alerts for tests, and a look at what became of them."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import JsonValue

from memoro_core.alerts.model import Alert, AlertKind, Severity
from memoro_core.billing.model import DEPLOYMENT
from memoro_core.ids import AlertId, TenantId, new_id
from memoro_core.postgres.database import Database


def make_alert(
    *,
    tenant: TenantId = DEPLOYMENT,
    key: str | None = None,
    severity: Severity = Severity.WARNING,
    title: str = "Half of today's budget is committed.",
    now: datetime | None = None,
    details: Mapping[str, JsonValue] | None = None,
) -> Alert:
    """An alert that nobody has raised before, unless its key says otherwise."""
    return Alert(
        id=AlertId(new_id()),
        tenant_id=tenant,
        dedupe_key=key or f"test/{secrets.token_hex(8)}",
        kind=AlertKind.BUDGET_THRESHOLD,
        severity=severity,
        title=title,
        created_at=now or datetime.now(UTC),
        details={"percent": 50} if details is None else details,
    )


async def stored_alerts(database: Database) -> Sequence[Mapping[str, Any]]:
    """All alerts, oldest first."""
    async with database.system_tx() as connection:
        rows = await connection.fetch("SELECT * FROM alerts ORDER BY alert_id")
    return [dict(row) for row in rows]


async def clear_alerts(database: Database) -> None:
    """Takes away what other tests have raised: delivery is over all tenants."""
    async with database.system_tx() as connection:
        await connection.execute("DELETE FROM alerts")
