"""A test alert: over every channel that is set up, from the process that is asked, with what came of it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from structlog.testing import capture_logs

from memoro_core.alerts.model import ChannelResult, Severity
from memoro_core.alerts.service import TEST_TITLE, AlertService
from memoro_core.errors import Code, MemoroError, Reason
from memoro_core.idempotency import Idempotency
from memoro_core.ids import ApiKeyId, new_id
from memoro_core.limits.model import NO_LIMITS
from memoro_core.outbound.alert_router import open_alert_router
from memoro_core.postgres.answer_store import PostgresAnswerStore
from memoro_core.settings import Settings
from memoro_core.tenancy.model import ENTERPRISE_TIER, Principal, Scope
from tests.fakes.slack_server import Answer, Slack
from tests.fakes.smtp_server import Mailbox
from tests.integration.alerts.conftest import Alerts, settings_with, with_email
from tests.support.alerts import stored_alerts

Serving = Callable[[Settings], AbstractAsyncContextManager[AlertService]]


@pytest.fixture
def serving(alerts: Alerts, client_tls: ssl.SSLContext) -> Serving:
    @asynccontextmanager
    async def run(settings: Settings) -> AsyncIterator[AlertService]:
        async with open_alert_router(settings, authorities=client_tls) as router:
            yield AlertService(router, PostgresAnswerStore(alerts.domain.database), alerts.clock)

    return run


@pytest.fixture
def principal(alerts: Alerts) -> Principal:
    return Principal(alerts.domain.tenant, ApiKeyId(new_id()), frozenset({Scope.ADMIN}), ENTERPRISE_TIER, NO_LIMITS)


async def test_every_channel_gets_it_now_and_says_what_came_of_it(
    alerts: Alerts, settings: Settings, mailbox: Mailbox, slack: Slack, serving: Serving, principal: Principal
) -> None:
    slack.script(Answer(404, "no_service"))
    chosen = settings_with(settings, "slack", "email", alert_slack_webhook_url=slack.webhook_url, **with_email(mailbox))
    with capture_logs() as logs:
        async with serving(chosen) as service:
            results = await service.send_test(principal, Severity.CRITICAL, "Can you hear me?")
    assert results == [
        ChannelResult("log", delivered=True),
        ChannelResult("slack", delivered=False, problem="answered 404 no_service", failed=True),
        ChannelResult("email", delivered=True),
    ]
    assert [str(one.message["subject"]) for one in mailbox.emails] == ["[Memoro] CRITICAL: Can you hear me?"]
    assert "kind: test" in mailbox.emails[0].text
    assert [line["event"] for line in logs] == ["alert", "test_alert_sent"]
    assert logs[1]["api_key_id"] == str(principal.api_key_id)
    # It is sent here and now, not by workers.
    assert await stored_alerts(alerts.domain.database) == []


async def test_it_goes_where_an_alert_of_its_severity_would(
    settings: Settings, mailbox: Mailbox, slack: Slack, serving: Serving, principal: Principal
) -> None:
    chosen = settings_with(
        settings,
        "slack",
        "email",
        alert_delivery="fallback",
        alert_slack_webhook_url=slack.webhook_url,
        **with_email(mailbox, alert_slack_severity="CRITICAL"),
    )
    async with serving(chosen) as service:
        warning = await service.send_test(principal)
        critical = await service.send_test(principal, Severity.CRITICAL)
    assert [(one.channel, one.delivered, one.problem) for one in warning] == [
        ("log", True, ""),
        ("slack", False, "takes alerts from CRITICAL on"),
        ("email", True, ""),
    ]
    assert [(one.channel, one.delivered, one.problem) for one in critical] == [
        ("log", True, ""),
        ("slack", True, ""),
        ("email", False, "another channel took it"),
    ]
    assert TEST_TITLE in str(mailbox.emails[0].message["subject"])


async def test_a_repeated_request_sends_nothing_and_gets_the_same_answer(
    settings: Settings, slack: Slack, serving: Serving, principal: Principal
) -> None:
    slack.script(Answer(429, "rate_limited", {"Retry-After": "30"}))
    once, other = Idempotency("alert-1", b"\x01" * 32), Idempotency("alert-1", b"\x02" * 32)
    async with serving(settings_with(settings, "slack", alert_slack_webhook_url=slack.webhook_url)) as service:
        first = await service.send_test(principal, idempotency=once)
        assert await service.send_test(principal, idempotency=once) == first
        assert first[1].problem == "answered 429 rate_limited"
        with pytest.raises(MemoroError) as reused:
            await service.send_test(principal, idempotency=other)
    assert reused.value.reason is Reason.REQUEST_ID_REUSED
    assert slack.requests == 1


async def test_the_same_request_at_once_sends_one_alert(
    settings: Settings, slack: Slack, serving: Serving, principal: Principal
) -> None:
    once = Idempotency("alert-2", b"\x01" * 32)
    slack.script(Answer(hang=2.0))
    async with serving(settings_with(settings, "slack", alert_slack_webhook_url=slack.webhook_url)) as service:
        asked = (service.send_test(principal, idempotency=once) for _ in range(5))
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert slack.requests == 1
        [sent] = [answer for answer in answers if not isinstance(answer, BaseException)]
        refused = [answer for answer in answers if isinstance(answer, MemoroError)]
        assert [(error.code, error.retry_after) for error in refused] == [(Code.UNAVAILABLE, 1.0)] * 4
        assert await service.send_test(principal, idempotency=once) == sent
    assert slack.requests == 1


async def test_without_channels_there_is_the_log(settings: Settings, serving: Serving, principal: Principal) -> None:
    async with serving(settings) as service:
        assert await service.send_test(principal) == [ChannelResult("log", delivered=True)]
