"""The channel that is always there: a line of the log."""

from __future__ import annotations

from typing import Final

import structlog

from memoro_core.alerts.model import Alert, Sent, Severity

LOG: Final = "log"
_log: Final = structlog.get_logger("memoro.alerts")


class LogChannel:
    """An `AlertChannel` that writes a structured line, `alert`, at the level of the alert's severity."""

    name: Final = LOG

    async def send(self, alert: Alert) -> Sent:
        write = {Severity.INFO: _log.info, Severity.WARNING: _log.warning, Severity.CRITICAL: _log.critical}
        write[alert.severity](
            "alert",
            alert_id=str(alert.id),
            kind=str(alert.kind),
            severity=str(alert.severity),
            title=alert.title,
            tenant_id=str(alert.tenant_id),
            details=dict(alert.details),
            raised_at=alert.created_at.isoformat(),
        )
        return Sent()
