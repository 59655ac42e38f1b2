"""Several processes send, and some are killed: each alert still goes over each channel once."""

from __future__ import annotations

import asyncio
import json
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from memoro_core.settings import Settings
from tests.fakes.slack_server import SECRET_PATH, Slack
from tests.fakes.smtp_server import Mailbox
from tests.integration.alerts.conftest import PASSWORD, USER, Alerts
from tests.support.alerts import make_alert, stored_alerts
from tests.support.processes import WORKER, Processes, open_processes

DELIVERER = ("-m", "tests.support.run_alert_deliverer")
PROCESSES = 4


@pytest.fixture
def authority_file(authority: trustme.CA) -> Iterator[Path]:
    """The authority's certificate, for processes that must trust it."""
    with authority.cert_pem.tempfile() as path:
        yield Path(path)


@asynccontextmanager
async def open_deliverers(
    settings: Settings, mailbox: Mailbox, slack: Slack, authority_file: Path, log: Path
) -> AsyncIterator[tuple[Processes, dict[str, str]]]:
    """No process yet, and the settings that each is to be started with."""
    changes = {
        "MEMORO_ALERT_CHANNELS": "email,slack",
        "MEMORO_ALERT_TIMEOUT": "2",
        "MEMORO_ALERT_INTERVAL": "0.05",
        "MEMORO_ALERT_SMTP_HOST": "127.0.0.1",
        "MEMORO_ALERT_SMTP_PORT": str(mailbox.port),
        "MEMORO_ALERT_SMTP_USER": USER,
        "MEMORO_ALERT_SMTP_PASSWORD": PASSWORD,
        "MEMORO_ALERT_EMAIL_FROM": "memoro@example.com",
        "MEMORO_ALERT_EMAIL_TO": "ops@example.com",
        "MEMORO_ALERT_SLACK_WEBHOOK_URL": slack.webhook_url,
        "MEMORO_LOG_LEVEL": "debug",
        "SSL_CERT_FILE": str(authority_file),
        "PATIENCE": "0.3",
    }
    async with open_processes(DELIVERER, settings, log) as processes:
        yield processes, changes
        for process in list(processes.alive):
            assert await processes.end(process) == 0
    told = log.read_text()
    for secret in (PASSWORD, SECRET_PATH):
        assert secret not in told


def logged(log: Path) -> Counter[str]:
    """How often each alert was logged."""
    lines = (json.loads(line) for line in log.read_text().splitlines() if line.startswith("{"))
    return Counter(line["alert_id"] for line in lines if line["event"] == "alert")


def emailed(mailbox: Mailbox) -> Counter[str]:
    """How often each alert was sent by email."""
    return Counter(str(one.message["message-id"])[1:37] for one in mailbox.emails)


def posted(slack: Slack) -> Counter[str]:
    """How often each alert was sent to Slack."""
    return Counter(message["text"].rpartition(" ")[2] for message in slack.messages)


async def until_delivered(alerts: Alerts, *, seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while any(row["state"] != "DELIVERED" for row in await stored_alerts(alerts.domain.database)):
            await asyncio.sleep(0.05)


async def test_alerts_go_out_once_each_whatever_the_number_of_processes(
    alerts: Alerts, settings: Settings, mailbox: Mailbox, slack: Slack, authority_file: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    made = [make_alert(title=f"alert {number}") for number in range(40)]
    async with open_deliverers(settings, mailbox, slack, authority_file, log) as (processes, changes):
        for _ in range(PROCESSES):
            await processes.start(**changes)
        for alert in made:
            await alerts.put(alert)
        await until_delivered(alerts)
        await asyncio.sleep(0.5)
    expected = Counter(str(alert.id) for alert in made)
    assert emailed(mailbox) == expected
    assert posted(slack) == expected
    assert logged(log) == expected
    assert all(row["attempt"] == 1 for row in await stored_alerts(alerts.domain.database))


async def test_a_process_that_is_killed_while_it_sends_costs_one_more_of_what_it_was_at(
    alerts: Alerts, settings: Settings, mailbox: Mailbox, slack: Slack, authority_file: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    mailbox.hang = 0.7
    async with open_deliverers(settings, mailbox, slack, authority_file, log) as (processes, changes):
        alert = make_alert()
        first = await processes.start(**changes)
        await alerts.put(alert)
        # Slack has it, and that is known; the mail server has it, and nobody has heard its answer.
        await slack.wait_for(1)
        await recorded(alerts, {"log", "slack"})
        await processes.end(first, signal.SIGKILL)
        mailbox.hang = 0.0
        for _ in range(PROCESSES):
            await processes.start(**changes)
        await until_delivered(alerts)
        await asyncio.sleep(1.0)
    assert len(slack.messages) == 1
    assert logged(log) == {str(alert.id): 1}
    # What is sent twice can be told by its id.
    assert 1 <= len(mailbox.emails) <= 2
    assert {str(one.message["message-id"]) for one in mailbox.emails} == {f"<{alert.id}@example.com>"}
    assert (await alerts.one())["attempt"] == 2


async def test_random_kills_lose_no_alert_and_double_none_that_was_recorded(
    alerts: Alerts, settings: Settings, mailbox: Mailbox, slack: Slack, authority_file: Path, tmp_path: Path
) -> None:
    chance = random.Random(4)
    log = tmp_path / "log"
    made = [make_alert(title=f"alert {number}") for number in range(30)]
    kills = 0
    async with open_deliverers(settings, mailbox, slack, authority_file, log) as (processes, changes):
        for _ in range(PROCESSES):
            await processes.start(**changes)
        for number, alert in enumerate(made):
            await alerts.put(alert)
            await asyncio.sleep(chance.random() * 0.1)
            if number % 5 == 4:
                await processes.end(chance.choice(processes.alive), signal.SIGKILL)
                kills += 1
                await processes.start(**changes)
        await until_delivered(alerts)
    expected = {str(alert.id) for alert in made}
    emails = emailed(mailbox)
    messages = posted(slack)
    attempts = {str(row["alert_id"]): row["attempt"] for row in await stored_alerts(alerts.domain.database)}
    for sent in (emails, messages, logged(log)):
        assert set(sent) == expected
        assert all(times <= attempts[alert] for alert, times in sent.items())
        # A process sends four at once at most: so many may have been on their way when it was killed.
        assert sum(sent.values()) <= len(made) + 4 * kills


@pytest.mark.slow
async def test_a_worker_sends_alerts(
    alerts: Alerts, settings: Settings, mailbox: Mailbox, slack: Slack, authority_file: Path, tmp_path: Path
) -> None:
    async with open_deliverers(settings, mailbox, slack, authority_file, tmp_path / "log") as (processes, changes):
        # What other tests have left in the queues is nothing to tell of.
        quiet = {"MEMORO_ALERT_QUEUE_WAITING": "1000000000", "MEMORO_ALERT_QUEUE_FAILED": "1000000000"}
        await processes.start(*WORKER, **changes, **quiet, MEMORO_EXTRACTION_PROVIDER="none")
        alert = make_alert()
        await alerts.put(alert)
        await until_delivered(alerts)
    # A worker also does what other tests have left to do, and may have alerts of that to tell.
    assert emailed(mailbox)[str(alert.id)] == 1
    assert posted(slack)[str(alert.id)] == 1


async def test_an_alert_whose_process_was_killed_waits_for_its_lease(alerts: Alerts) -> None:
    await alerts.put(make_alert())
    now = datetime.now(UTC)
    await alerts.store.claim(limit=4, now=now, lease_until=now + timedelta(seconds=30))
    assert await alerts.store.claim(limit=4, now=now + timedelta(seconds=29), lease_until=now) == []
    assert len(await alerts.store.claim(limit=4, now=now + timedelta(seconds=30), lease_until=now)) == 1


async def recorded(alerts: Alerts, channels: set[str]) -> None:
    async with asyncio.timeout(20):
        while set((await alerts.one())["delivered_over"]) != channels:
            await asyncio.sleep(0.01)
