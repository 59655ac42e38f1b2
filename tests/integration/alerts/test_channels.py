"""Emails through a real SMTP server, messages through a real HTTP server, and what both may do to them."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
import trustme

from memoro_core.alerts.model import Sent, Severity
from memoro_core.outbound.email_channel import EmailChannel, SmtpServer
from memoro_core.outbound.slack_channel import SlackBot, SlackWebhook, open_slack
from tests.fakes.slack_server import SECRET_PATH, TOKEN, Answer, Slack
from tests.fakes.smtp_server import Mailbox
from tests.integration.alerts.conftest import PASSWORD, USER
from tests.support.alerts import make_alert


def email(mailbox: Mailbox | int, trusted: ssl.SSLContext | None, **changes: Any) -> EmailChannel:
    port = mailbox if isinstance(mailbox, int) else mailbox.port
    server = SmtpServer("127.0.0.1", port, **{"user": USER, "password": PASSWORD, "timeout": 1.0, **changes})
    return EmailChannel(
        server, sender="memoro@example.com", recipients=["ops@example.com", "boss@example.com"], authorities=trusted
    )


@asynccontextmanager
async def bot(slack: Slack, *, token: str = TOKEN, channel: str = "#ops") -> AsyncIterator[SlackWebhook | SlackBot]:
    async with open_slack(webhook_url=None, token=token, channel=channel, api_url=slack.api_url, timeout=1.0) as opened:
        yield opened


@asynccontextmanager
async def webhook(
    slack: Slack, *, url: str | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[SlackWebhook | SlackBot]:
    async with open_slack(
        webhook_url=url or slack.webhook_url, token=None, channel="", timeout=1.0, authorities=tls
    ) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _no_secret_is_logged(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Any:
    """Whatever happens to a channel, also with everything logged that libraries have to say."""
    caplog.set_level(logging.DEBUG)
    yield
    told = caplog.text + "".join(capfd.readouterr())
    for secret in (PASSWORD, SECRET_PATH, TOKEN):
        assert secret not in told


async def test_an_email_arrives_over_starttls_with_all_that_the_alert_says(
    mailbox: Mailbox, client_tls: ssl.SSLContext
) -> None:
    alert = make_alert(
        severity=Severity.CRITICAL,
        title="Der Etat für heute ist aufgebraucht.",
        details={"percent": 100, "user": "Zoë"},
    )
    assert await email(mailbox, client_tls).send(alert) == Sent()
    (received,) = mailbox.emails
    assert (received.over_tls, received.user) == (True, USER)
    assert (received.sender, received.recipients) == ("memoro@example.com", ("ops@example.com", "boss@example.com"))
    assert received.message["subject"] == "[Memoro] CRITICAL: Der Etat für heute ist aufgebraucht."
    assert received.message["message-id"] == f"<{alert.id}@example.com>"
    assert received.message["importance"] == "high"
    assert received.message["date"].datetime == alert.created_at.replace(microsecond=0)
    assert "percent: 100\n" in received.text.replace("\r\n", "\n")
    assert "user: Zoë" in received.text


async def test_an_email_arrives_over_tls_from_the_first_byte(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    async with Mailbox(tls=server_tls, implicit=True, user=USER, password=PASSWORD) as mailbox:
        assert await email(mailbox, client_tls, tls="tls").send(make_alert()) == Sent()
    assert [(one.over_tls, one.user) for one in mailbox.emails] == [(True, USER)]


async def test_an_email_arrives_without_tls_where_the_settings_say_so() -> None:
    async with Mailbox() as mailbox:
        assert await email(mailbox, None, tls="none", user="", password="").send(make_alert()) == Sent()
    assert [one.over_tls for one in mailbox.emails] == [False]


async def test_no_password_is_told_to_a_server_without_tls() -> None:
    async with Mailbox() as mailbox:
        sent = await email(mailbox, None).send(make_alert())
    assert sent.problem == "SMTP STARTTLS extension not supported by server."
    assert (mailbox.logins, mailbox.emails) == (0, [])


async def test_a_wrong_password_is_told_without_the_password(mailbox: Mailbox, client_tls: ssl.SSLContext) -> None:
    sent = await email(mailbox, client_tls, password="wrong-" + PASSWORD).send(make_alert())
    assert sent.problem == "the server does not accept the user and password (535)"
    assert mailbox.emails == []


async def test_a_mail_server_of_an_unknown_authority_is_told_nothing(mailbox: Mailbox) -> None:
    sent = await email(mailbox, trust_in(trustme.CA())).send(make_alert())
    assert sent.problem.startswith("the certificate is not valid: ")
    assert (mailbox.logins, mailbox.emails) == (0, [])


async def test_a_mail_server_of_an_unknown_authority_is_told_nothing_over_tls(server_tls: ssl.SSLContext) -> None:
    async with Mailbox(tls=server_tls, implicit=True) as mailbox:
        sent = await email(mailbox, trust_in(trustme.CA()), tls="tls").send(make_alert())
    assert sent.problem.startswith("the certificate is not valid: ")
    assert mailbox.emails == []


async def test_an_email_that_is_not_taken_says_why(mailbox: Mailbox, client_tls: ssl.SSLContext) -> None:
    mailbox.refuse("452 4.3.1 the disk is full")
    assert (await email(mailbox, client_tls).send(make_alert())).problem == "answered 452 4.3.1 the disk is full"
    mailbox.refused_recipients = {"ops@example.com", "boss@example.com"}
    refused = "refused a recipient with 550 5.1.1 no such mailbox"
    assert (await email(mailbox, client_tls).send(make_alert())).problem == f"{refused}; {refused}"


async def test_an_email_that_one_of_its_recipients_gets_is_sent(mailbox: Mailbox, client_tls: ssl.SSLContext) -> None:
    mailbox.refused_recipients = {"ops@example.com"}
    assert await email(mailbox, client_tls).send(make_alert()) == Sent()
    assert [one.recipients for one in mailbox.emails] == [("boss@example.com",)]


async def test_an_email_that_was_taken_is_sent_however_the_server_says_goodbye(
    mailbox: Mailbox, client_tls: ssl.SSLContext
) -> None:
    mailbox.drop_after = True
    assert await email(mailbox, client_tls).send(make_alert()) == Sent()
    assert len(mailbox.emails) == 1


async def test_a_slow_mail_server_is_not_waited_for(mailbox: Mailbox, client_tls: ssl.SSLContext) -> None:
    mailbox.hang = 30
    assert (await email(mailbox, client_tls, timeout=0.3).send(make_alert())).problem == "no answer within 0.3 s"


async def test_a_mail_server_that_is_not_there(unused_port: int, client_tls: ssl.SSLContext) -> None:
    assert (await email(unused_port, client_tls).send(make_alert())).problem == "the server can't be reached"


async def test_a_server_that_hangs_up(client_tls: ssl.SSLContext) -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        sent = await email(server.sockets[0].getsockname()[1], client_tls).send(make_alert())
    assert sent.problem in {"the server can't be reached", "the connection broke before the email was taken"}


async def test_a_title_with_line_breaks_makes_no_headers(mailbox: Mailbox, client_tls: ssl.SSLContext) -> None:
    alert = make_alert(title="all is well\r\nBcc: thief@example.com\r\n\r\nhello", details={"a\r\nb": "c\nd"})
    assert await email(mailbox, client_tls).send(alert) == Sent()
    (received,) = mailbox.emails
    assert received.message["bcc"] is None
    assert received.message["subject"] == "[Memoro] WARNING: all is well Bcc: thief@example.com hello"
    assert "a b: c d" in received.text


async def test_a_message_arrives_through_the_webhook(slack: Slack) -> None:
    alert = make_alert(title="Half of the budget of <!channel> & co. is gone", details={"user": "<@U1>", "percent": 50})
    async with webhook(slack) as channel:
        assert await channel.send(alert) == Sent()
    (message,) = slack.messages
    assert message["unfurl_links"] is False
    lines = message["text"].splitlines()
    assert lines[0] == "*WARNING* Half of the budget of &lt;!channel&gt; &amp; co. is gone"
    assert lines[1:3] == ["> user: &lt;@U1&gt;", "> percent: 50"]
    assert f"> alert: {alert.id}" in lines


async def test_a_message_arrives_from_the_bot(slack: Slack) -> None:
    async with bot(slack) as channel:
        assert await channel.send(make_alert()) == Sent()
    (message,) = slack.messages
    assert (message["channel"], message["text"].startswith("*WARNING*")) == ("#ops", True)


async def test_a_bot_that_slack_does_not_know_or_let_in(slack: Slack) -> None:
    async with bot(slack, token="xoxb-other") as channel:
        assert (await channel.send(make_alert())).problem == "answered 200 invalid_auth"
    async with bot(slack, channel="#nowhere") as channel:
        assert (await channel.send(make_alert())).problem == "answered 200 channel_not_found"
    assert slack.messages == []


@pytest.mark.parametrize("opened", [webhook, bot])
async def test_slack_asks_for_time(slack: Slack, opened: Any) -> None:
    slack.script(
        Answer(429, "rate_limited", {"retry-after": "30"}),
        Answer(429, "slow down", {"Retry-After": "999999999999"}),
        Answer(429, "", {"Retry-After": "soon"}),
        Answer(500, "", {"Retry-After": "30"}),
    )
    async with opened(slack) as channel:
        waits = [(await channel.send(make_alert())).retry_after for _ in range(4)]
    assert waits == [timedelta(seconds=30), timedelta(hours=1), None, None]
    assert slack.requests == 4


@pytest.mark.parametrize("opened", [webhook, bot])
async def test_slack_breaks_off_and_is_not_asked_again(slack: Slack, opened: Any) -> None:
    slack.script(Answer(drop=True))
    async with opened(slack) as channel:
        assert (await channel.send(make_alert())).problem == "the connection broke before an answer came"
    assert slack.requests == 1


@pytest.mark.parametrize("opened", [webhook, bot])
async def test_slack_is_slow_or_answers_what_it_should_not(slack: Slack, opened: Any) -> None:
    slack.script(Answer(hang=30), Answer(404, "no_service"), Answer(502, "<html>bad gateway</html>"))
    async with opened(slack) as channel:
        problems = [(await channel.send(make_alert())).problem for _ in range(3)]
    assert problems[0] == "no answer in time"
    assert problems[1].startswith("answered 404")
    assert problems[2].startswith("answered 502")


async def test_a_slack_that_is_not_there_or_not_trusted(
    unused_port: int, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    async with Slack(tls=server_tls) as slack:
        async with webhook(slack) as channel:
            assert (await channel.send(make_alert())).problem.startswith("the certificate is not valid: ")
        async with webhook(slack, tls=client_tls) as channel:
            assert await channel.send(make_alert()) == Sent()
        async with webhook(slack, url=f"http://127.0.0.1:{unused_port}{SECRET_PATH}") as channel:
            assert (await channel.send(make_alert())).problem == "Slack can't be reached"
    assert len(slack.messages) == 1


def trust_in(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context
