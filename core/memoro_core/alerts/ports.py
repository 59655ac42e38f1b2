"""What alerts need from the outside."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from memoro_core.alerts.model import Alert, AlertClaim, AlertVerdict, Sent
from memoro_core.ids import AlertId


class AlertChannel(Protocol):
    """A way to people."""

    @property
    def name(self) -> str:
        """What it is called in settings and results."""
        ...

    async def send(self, alert: Alert) -> Sent:
        """Gives it an alert. Never raises for what the other side does or fails to do; takes as long as that does."""
        ...


class AlertStore(Protocol):
    """The alerts of all tenants and of the deployment."""

    async def raise_alert(self, alert: Alert) -> bool:
        """Raises an alert in a transaction of its own; whether it is new."""
        ...

    async def claim(self, *, limit: int, now: datetime, lease_until: datetime) -> Sequence[AlertClaim]:
        """Takes alerts that are due for itself until `lease_until`: critical ones first, at most `limit`."""
        ...

    async def took(self, alert_id: AlertId, channel: str) -> None:
        """Records that a channel has taken an alert, whoever holds it by now."""
        ...

    async def settle(self, claim: AlertClaim, verdict: AlertVerdict, *, now: datetime) -> bool:
        """Records what came of an attempt; whether the claim still held."""
        ...

    async def prune(self, *, ended_before: datetime, limit: int) -> int:
        """Removes alerts that ended before that time; how many."""
        ...
