"""What is raised reaches people: once over each channel, in the order of the settings, whatever some channels do."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from memoro_core.alerts.delivery import AlertDeliverer
from memoro_core.alerts.model import AlertState, Severity
from memoro_core.alerts.retry import AlertPolicy
from memoro_core.outbound.alert_router import open_alert_router
from memoro_core.postgres.alert_store import PostgresAlertStore
from memoro_core.postgres.database import open_database
from memoro_core.settings import Settings
from tests.fakes.slack_server import Answer, Slack
from tests.fakes.smtp_server import Mailbox
from tests.integration.alerts.conftest import Alerts, Delivering, settings_with, with_email
from tests.support.alerts import make_alert, stored_alerts
from tests.support.proxy import proxy_to


def subjects(mailbox: Mailbox) -> Sequence[str]:
    return [str(one.message["subject"]) for one in mailbox.emails]


async def test_an_alert_goes_over_the_log_and_every_channel_once(
    alerts: Alerts, settings: Settings, mailbox: Mailbox, slack: Slack, delivering: Delivering
) -> None:
    alert = make_alert(details={"percent": 50})
    await alerts.put(alert)
    chosen = settings_with(settings, "email", "slack", alert_slack_webhook_url=slack.webhook_url, **with_email(mailbox))
    with capture_logs() as logs:
        async with delivering(chosen), delivering(chosen):
            row = await alerts.settled("DELIVERED")
            await asyncio.sleep(0.3)
    assert sorted(row["delivered_over"]) == ["email", "log", "slack"]
    assert row["ended_at"] is not None
    assert (len(mailbox.emails), len(slack.messages)) == (1, 1)
    (line,) = [line for line in logs if line["event"] == "alert"]
    assert (line["log_level"], line["alert_id"], line["details"]) == ("warning", str(alert.id), {"percent": 50})


async def test_without_channels_the_log_is_told(alerts: Alerts, settings: Settings, delivering: Delivering) -> None:
    await alerts.put(make_alert(severity=Severity.CRITICAL))
    with capture_logs() as logs:
        async with delivering(settings):
            row = await alerts.settled("DELIVERED")
    assert row["delivered_over"] == ["log"]
    assert [line["log_level"] for line in logs if line["event"] == "alert"] == ["critical"]


async def test_a_channel_gets_what_is_urgent_enough(
    alerts: Alerts, settings: Settings, mailbox: Mailbox, slack: Slack, delivering: Delivering
) -> None:
    for severity in Severity:
        await alerts.put(make_alert(severity=severity, title=f"it is {severity.lower()}"))
    chosen = settings_with(
        settings,
        "slack",
        "email",
        alert_slack_webhook_url=slack.webhook_url,
        **with_email(mailbox, alert_email_severity="CRITICAL", alert_slack_severity="WARNING"),
    )
    async with delivering(chosen), asyncio.timeout(20):
        while any(row["state"] == "PENDING" for row in await stored_alerts(alerts.domain.database)):
            await asyncio.sleep(0.02)
    assert subjects(mailbox) == ["[Memoro] CRITICAL: it is critical"]
    assert sorted(message["text"].split()[0] for message in slack.messages) == ["*CRITICAL*", "*WARNING*"]


async def test_a_channel_that_fails_is_tried_again_and_the_other_is_left_alone(
    alerts: Alerts, settings: Settings, mailbox: Mailbox, slack: Slack, delivering: Delivering
) -> None:
    slack.script(Answer(500, "down"), Answer(503, "still down"))
    await alerts.put(make_alert())
    chosen = settings_with(settings, "email", "slack", alert_slack_webhook_url=slack.webhook_url, **with_email(mailbox))
    with capture_logs() as logs:
        async with delivering(chosen):
            first = await alerts.settled("PENDING")
            assert first["error"] == "slack: answered 500 down"
            assert sorted(first["delivered_over"]) == ["email", "log"]
            assert 4 < (first["next_attempt_at"] - datetime.now(UTC)).total_seconds() <= 5
            alerts.clock.ahead = timedelta(seconds=6)
            await alerts.settled("PENDING", attempt=2)
            alerts.clock.ahead = timedelta(seconds=60)
            last = await alerts.settled("DELIVERED", attempt=3)
    assert sorted(last["delivered_over"]) == ["email", "log", "slack"]
    assert (len(mailbox.emails), len(slack.messages), slack.requests) == (1, 1, 3)
    assert sum(line["event"] == "alert" for line in logs) == 1


async def test_a_channel_that_asks_for_time_gets_it(
    alerts: Alerts, settings: Settings, slack: Slack, delivering: Delivering
) -> None:
    slack.script(Answer(429, "rate_limited", {"Retry-After": "120"}))
    await alerts.put(make_alert())
    async with delivering(settings_with(settings, "slack", alert_slack_webhook_url=slack.webhook_url)):
        row = await alerts.settled("PENDING")
        assert 115 < (row["next_attempt_at"] - datetime.now(UTC)).total_seconds() <= 120
        alerts.clock.ahead = timedelta(seconds=121)
        await alerts.settled("DELIVERED", attempt=2)
    assert len(slack.messages) == 1


async def test_the_first_channel_that_takes_it_is_enough(
    alerts: Alerts, settings: Settings, mailbox: Mailbox, slack: Slack, delivering: Delivering
) -> None:
    await alerts.put(make_alert())
    chosen = settings_with(
        settings,
        "email",
        "slack",
        alert_delivery="fallback",
        alert_slack_webhook_url=slack.webhook_url,
        **with_email(mailbox),
    )
    async with delivering(chosen):
        row = await alerts.settled("DELIVERED")
    assert row["delivered_over"] == ["log", "email"]
    assert (len(mailbox.emails), len(slack.messages)) == (1, 0)


async def test_the_next_channel_stands_in_for_one_that_fails(
    alerts: Alerts, settings: Settings, mailbox: Mailbox, slack: Slack, delivering: Delivering
) -> None:
    await alerts.put(make_alert())
    chosen = settings_with(
        settings,
        "email",
        "slack",
        alert_delivery="fallback",
        alert_slack_webhook_url=slack.webhook_url,
        **with_email(mailbox, alert_smtp_password="wrong"),
    )
    async with delivering(chosen):
        row = await alerts.settled("DELIVERED")
        await asyncio.sleep(0.2)
    assert row["delivered_over"] == ["log", "slack"]
    assert row["error"] == "email: the server does not accept the user and password (535)"
    assert (len(mailbox.emails), len(slack.messages)) == (0, 1)


async def test_an_order_that_says_slack_first_asks_slack_first(
    alerts: Alerts, settings: Settings, mailbox: Mailbox, slack: Slack, delivering: Delivering
) -> None:
    slack.always = Answer(hang=30)
    await alerts.put(make_alert())
    chosen = settings_with(
        settings,
        "slack",
        "email",
        alert_delivery="fallback",
        alert_timeout=1,
        alert_slack_webhook_url=slack.webhook_url,
        **with_email(mailbox),
    )
    async with delivering(chosen):
        row = await alerts.settled("DELIVERED")
    assert row["delivered_over"] == ["log", "email"]
    assert row["error"].startswith("slack: no answer")


async def test_an_alert_that_nobody_takes_is_given_up_after_a_day(
    alerts: Alerts, settings: Settings, slack: Slack, delivering: Delivering
) -> None:
    slack.always = Answer(404, "no_service")
    await alerts.put(make_alert())
    async with delivering(settings_with(settings, "slack", alert_slack_webhook_url=slack.webhook_url)):
        await alerts.settled("PENDING")
        alerts.clock.ahead = timedelta(days=1)
        row = await alerts.settled("FAILED", attempt=2)
    assert (row["error"], row["delivered_over"]) == ("slack: answered 404 no_service", ["log"])


async def test_what_was_taken_is_known_also_when_the_lease_is_lost(alerts: Alerts) -> None:
    alert = make_alert()
    await alerts.put(alert)
    now = datetime.now(UTC)
    (first,) = await alerts.store.claim(limit=10, now=now, lease_until=now + timedelta(seconds=30))
    assert await alerts.store.claim(limit=10, now=now, lease_until=now + timedelta(seconds=30)) == []
    later = now + timedelta(seconds=31)
    (second,) = await alerts.store.claim(limit=10, now=later, lease_until=later + timedelta(seconds=30))
    assert (first.attempt, second.attempt, second.lease) == (1, 2, first.lease + 1)
    await alerts.store.took(alert.id, "email")
    await alerts.store.took(alert.id, "email")
    (third,) = await alerts.store.claim(limit=10, now=later + timedelta(seconds=31), lease_until=later)
    assert third.delivered_over == {"email"}
    assert (await alerts.one())["delivered_over"] == ["email"]


async def test_what_is_critical_comes_first(alerts: Alerts) -> None:
    now = datetime.now(UTC)
    for number, severity in enumerate([Severity.INFO, Severity.CRITICAL, Severity.WARNING, Severity.CRITICAL]):
        await alerts.put(make_alert(key=str(number), severity=severity, now=now + timedelta(seconds=number)))
    later, lease = now + timedelta(seconds=10), now + timedelta(seconds=60)
    claims = [await alerts.store.claim(limit=1, now=later, lease_until=lease) for _ in range(5)]
    assert [claim.alert.dedupe_key for one in claims for claim in one] == ["1", "3", "0", "2"]


async def test_what_has_ended_goes_with_age_and_what_waits_does_not(
    alerts: Alerts, settings: Settings, slack: Slack, delivering: Delivering
) -> None:
    old, fresh = make_alert(), make_alert(key="kept")
    await alerts.put(old)
    async with delivering(settings):
        await alerts.settled("DELIVERED")
        alerts.clock.ahead = timedelta(days=29)
        await alerts.put(fresh)
        async with asyncio.timeout(10):
            while len([row for row in await stored_alerts(alerts.domain.database) if row["state"] == "DELIVERED"]) < 2:
                await asyncio.sleep(0.02)
        alerts.clock.ahead = timedelta(days=30, minutes=11)
        async with asyncio.timeout(10):
            while len(await stored_alerts(alerts.domain.database)) > 1:
                await asyncio.sleep(0.02)
    assert (await alerts.one())["dedupe_key"] == "kept"


async def test_the_settings_that_bots_need(
    alerts: Alerts, settings: Settings, slack: Slack, delivering: Delivering
) -> None:
    await alerts.put(make_alert())
    chosen = settings_with(
        settings,
        "slack",
        alert_slack_token="xoxb-sEcReTtOkEn",
        alert_slack_channel="#ops",
        alert_slack_api_url=slack.api_url,
    )
    async with delivering(chosen):
        await alerts.settled("DELIVERED")
    assert [message["channel"] for message in slack.messages] == ["#ops"]


@pytest.mark.parametrize("state", list(AlertState))
async def test_only_what_waits_is_sent(alerts: Alerts, settings: Settings, state: AlertState) -> None:
    await alerts.put(make_alert())
    now = datetime.now(UTC)
    async with open_database(settings) as database, database.system_tx() as connection:
        await connection.execute("UPDATE alerts SET state = $1", state)
    claimed = await alerts.store.claim(limit=10, now=now, lease_until=now)
    assert len(claimed) == (state is AlertState.PENDING)


async def test_a_database_that_is_away_for_a_moment_makes_nothing_go_out_twice(
    alerts: Alerts, settings: Settings, mailbox: Mailbox, client_tls: ssl.SSLContext
) -> None:
    mailbox.hang = 0.5
    [host] = settings.database_url.hosts()
    there = (str(host["host"]), host["port"] or 5432)
    async with proxy_to(*there) as proxy:
        url = str(settings.database_url).replace(f"{there[0]}:{there[1]}", f"127.0.0.1:{proxy.port}")
        chosen = settings_with(settings, "email", database_url=url, database_timeout=2, **with_email(mailbox))
        async with open_database(chosen) as database, open_alert_router(chosen, authorities=client_tls) as router:
            deliverer = AlertDeliverer(
                PostgresAlertStore(database),
                router,
                alerts.clock,
                AlertPolicy(),
                interval=0.05,
                retention=timedelta(days=30),
            )
            stop = asyncio.Event()
            running = asyncio.create_task(deliverer.run(stop, grace=5.0, told=lambda _: None))
            await alerts.put(make_alert())
            async with asyncio.timeout(10):
                while mailbox.logins == 0:
                    await asyncio.sleep(0.01)
            proxy.target = ("127.0.0.1", 1)
            await proxy.close()
            await mailbox.wait_for(1)
            await asyncio.sleep(1.5)
            proxy.target = there
            row = await alerts.settled("DELIVERED")
            stop.set()
            await running
    assert (len(mailbox.emails), row["delivered_over"]) == (1, ["log", "email"])
