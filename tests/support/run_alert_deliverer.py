"""A process that sends alerts, as a worker does, and does nothing else. PATIENCE says for how many seconds it asks a
database that is away, and so how long its leases are.
"""

from __future__ import annotations

import asyncio
import os
import signal
from datetime import timedelta

import uvloop

from memoro_core.alerts.delivery import AlertDeliverer
from memoro_core.alerts.retry import AlertPolicy
from memoro_core.clock import SystemClock
from memoro_core.logs import configure_logging
from memoro_core.outbound.alert_router import open_alert_router
from memoro_core.postgres.alert_store import PostgresAlertStore
from memoro_core.postgres.database import open_database
from memoro_core.settings import Settings


async def deliver(settings: Settings) -> None:
    """Until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with open_database(settings) as database, open_alert_router(settings) as router:
        deliverer = AlertDeliverer(
            PostgresAlertStore(database),
            router,
            SystemClock(),
            AlertPolicy(),
            interval=settings.alert_interval,
            retention=timedelta(seconds=settings.alert_retention),
            patience=float(os.environ["PATIENCE"]),
        )
        await deliverer.run(stop, grace=settings.drain_grace, told=lambda _: None)


if __name__ == "__main__":
    chosen = Settings()
    configure_logging(chosen)
    uvloop.run(deliver(chosen))
