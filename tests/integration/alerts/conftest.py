"""Mail servers and Slacks on real ports, and deliverers over the test's own database."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
import trustme

from memoro_core.alerts.delivery import AlertDeliverer
from memoro_core.alerts.model import Alert
from memoro_core.alerts.retry import AlertPolicy
from memoro_core.outbound.alert_router import open_alert_router
from memoro_core.postgres.alert_store import PostgresAlertStore
from memoro_core.settings import Settings
from tests.fakes.slack_server import Slack
from tests.fakes.smtp_server import Mailbox
from tests.support.alerts import clear_alerts, stored_alerts
from tests.support.clocks import MovingClock
from tests.support.domain import Domain

USER, PASSWORD = "memoro", "sEcReTpAsSwOrD"


@dataclass
class Alerts:
    """The alerts of the test's database, and what becomes of them."""

    domain: Domain
    store: PostgresAlertStore
    clock: MovingClock

    async def put(self, alert: Alert) -> None:
        """Raises an alert."""
        assert await self.store.raise_alert(alert)

    async def one(self) -> Mapping[str, Any]:
        """The only alert."""
        (row,) = await stored_alerts(self.domain.database)
        return row

    async def settled(self, state: str, *, attempt: int = 1, seconds: float = 20.0) -> Mapping[str, Any]:
        """The only alert, once an attempt of that number has left it in that state."""
        async with asyncio.timeout(seconds):
            while True:
                row = await self.one()
                if (row["state"], row["attempt"]) == (state, attempt) and (row["error"] or state != "PENDING"):
                    return row
                await asyncio.sleep(0.02)


@pytest.fixture
async def alerts(domain: Domain) -> Alerts:
    await clear_alerts(domain.database)
    return Alerts(domain, PostgresAlertStore(domain.database), MovingClock())


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """A certificate authority that nobody knows unless told."""
    return trustme.CA()


@pytest.fixture
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    """What a server at 127.0.0.1 shows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def client_tls(authority: trustme.CA) -> ssl.SSLContext:
    """Trusts what these servers show."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest_asyncio.fixture
async def mailbox(server_tls: ssl.SSLContext) -> AsyncIterator[Mailbox]:
    """A mail server with STARTTLS that wants a user and a password."""
    async with Mailbox(tls=server_tls, user=USER, password=PASSWORD) as listening:
        yield listening


@pytest_asyncio.fixture
async def slack() -> AsyncIterator[Slack]:
    async with Slack() as listening:
        yield listening


def with_email(mailbox: Mailbox, **changes: Any) -> dict[str, Any]:
    """Settings of a channel to this mail server."""
    return {
        "alert_smtp_host": "127.0.0.1",
        "alert_smtp_port": mailbox.port,
        "alert_smtp_user": USER,
        "alert_smtp_password": PASSWORD,
        "alert_email_from": "memoro@example.com",
        "alert_email_to": ["ops@example.com", "boss@example.com"],
        **changes,
    }


def settings_with(settings: Settings, *channels: str, **changes: Any) -> Settings:
    """The test's settings with these channels."""
    given = settings.model_dump(exclude_unset=True)
    return Settings.model_validate({**given, "alert_channels": channels, "alert_timeout": 2, **changes})


Delivering = Callable[[Settings], AbstractAsyncContextManager[AlertDeliverer]]


@pytest.fixture
def delivering(alerts: Alerts, client_tls: ssl.SSLContext) -> Delivering:
    """Runs a deliverer while a block lasts."""

    @asynccontextmanager
    async def run(settings: Settings) -> AsyncIterator[AlertDeliverer]:
        async with open_alert_router(settings, authorities=client_tls) as router:
            deliverer = AlertDeliverer(
                alerts.store,
                router,
                alerts.clock,
                AlertPolicy(lambda: 0.5),
                interval=0.05,
                retention=timedelta(days=30),
                patience=1.0,
            )
            stop = asyncio.Event()
            running = asyncio.create_task(deliverer.run(stop, grace=5.0, told=lambda _: None))
            try:
                yield deliverer
            finally:
                stop.set()
                await running

    return run


@pytest.fixture
def unused_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
