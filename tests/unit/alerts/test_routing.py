"""Which channels get an alert: their order, fallback, severities, and what they have taken already."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from memoro_core.alerts.log_channel import LogChannel
from memoro_core.alerts.model import Alert, ChannelResult, Sent, Severity
from memoro_core.alerts.routing import AlertRouter, Route
from tests.support.alerts import make_alert


@dataclass
class Written:
    """A channel that does as it was told."""

    name: str
    sent: Sent = field(default_factory=Sent)
    error: Exception | None = None
    takes: float = 0.0
    alerts: list[Alert] = field(default_factory=list)

    async def send(self, alert: Alert) -> Sent:
        self.alerts.append(alert)
        await asyncio.sleep(self.takes)
        if self.error is not None:
            raise self.error
        return self.sent


BROKEN = Sent("answered 500", timedelta(seconds=7))


def router(*channels: Written, fallback: bool = False, least: Severity = Severity.INFO) -> AlertRouter:
    return AlertRouter(Written("log"), [Route(one, least) for one in channels], fallback=fallback, timeout=0.2)


async def test_results_come_in_the_order_of_the_settings() -> None:
    slow, quick = Written("email", takes=0.05), Written("slack", BROKEN)
    results = await router(slow, quick).send(make_alert())
    assert results == [
        ChannelResult("log", delivered=True),
        ChannelResult("email", delivered=True),
        ChannelResult("slack", delivered=False, problem="answered 500", failed=True, retry_after=timedelta(seconds=7)),
    ]
    assert not router(slow, quick).complete(results)


async def test_fallback_stops_at_the_first_that_takes_it() -> None:
    first, second, third = Written("email", BROKEN), Written("slack"), Written("pager")
    routed = router(first, second, third, fallback=True)
    results = await routed.send(make_alert())
    assert [(result.delivered, result.problem) for result in results] == [
        (True, ""),
        (False, "answered 500"),
        (True, ""),
        (False, "another channel took it"),
    ]
    assert third.alerts == []
    assert routed.complete(results)


@pytest.mark.parametrize("fallback", [False, True])
async def test_what_is_not_urgent_enough_is_not_sent_and_not_missed(fallback: bool) -> None:
    channel = Written("email")
    routed = router(channel, fallback=fallback, least=Severity.CRITICAL)
    results = await routed.send(make_alert(severity=Severity.WARNING))
    assert results[1] == ChannelResult("email", delivered=False, problem="takes alerts from CRITICAL on")
    assert channel.alerts == []
    assert routed.complete(results)


async def test_a_channel_that_breaks_or_hangs_keeps_no_other_from_the_alert() -> None:
    broken = Written("email", error=ValueError("the password is sEcReT"))
    hanging, good = Written("slack", takes=30), Written("pager")
    with capture_logs() as logs:
        results = await router(broken, hanging, good).send(make_alert())
    assert [result.problem for result in results] == ["", "broke with ValueError", "no answer within 0.2 s", ""]
    assert "sEcReT" not in str(logs)


async def test_each_channel_is_recorded_before_the_next_is_tried() -> None:
    heard: list[str] = []

    async def took(name: str) -> None:
        heard.append(name)

    await router(Written("email", BROKEN), Written("slack"), fallback=True).send(make_alert(), took=took)
    assert heard == ["log", "slack"]


async def test_what_can_not_be_recorded_ends_the_sending_after_the_others_are_through() -> None:
    slow, heard = Written("slack", takes=0.05), []

    async def took(name: str) -> None:
        if name == "email":
            raise ConnectionError
        heard.append(name)

    with pytest.raises(ConnectionError):
        await router(Written("email"), slow).send(make_alert(), took=took)
    assert heard == ["log", "slack"]


names = ("email", "slack", "pager")


@given(
    st.dictionaries(st.sampled_from(names), st.booleans(), min_size=1),
    st.sets(st.sampled_from(("log", *names))),
    st.booleans(),
)
async def test_an_alert_is_done_exactly_when_those_who_should_have_it_have_it(
    works: dict[str, bool], had: set[str], fallback: bool
) -> None:
    channels = [Written(name, Sent() if good else BROKEN) for name, good in works.items()]
    routed = router(*channels, fallback=fallback)
    results = await routed.send(make_alert(), delivered_over=had)
    has = {name for name, good in works.items() if (name in had) or (good and _asked(name, channels))}
    assert {result.channel for result in results if result.delivered} == {"log", *has}
    assert routed.complete(results) == (bool(has) if fallback else has == set(works))
    for channel in channels:
        # Nobody gets it twice; with fallback, one at most of those that work.
        assert len(channel.alerts) <= (channel.name not in had)
    if fallback:
        assert sum(bool(channel.alerts) and works[channel.name] for channel in channels) <= 1


def _asked(name: str, channels: Sequence[Written]) -> bool:
    return any(channel.name == name and channel.alerts for channel in channels)


def test_the_longest_that_sending_takes() -> None:
    assert router(Written("email"), Written("slack")).longest == pytest.approx(0.2)
    assert router(Written("email"), Written("slack"), fallback=True).longest == pytest.approx(0.4)
    assert router().longest == pytest.approx(0.2)


async def test_the_line_of_the_log_says_all() -> None:
    alert = make_alert(severity=Severity.INFO, details={"percent": 50, "user_id": "ann"})
    with capture_logs() as logs:
        assert await LogChannel().send(alert) == Sent()
    (line,) = logs
    assert line == {
        "event": "alert",
        "log_level": "info",
        "alert_id": str(alert.id),
        "kind": "budget.threshold",
        "severity": "INFO",
        "title": alert.title,
        "tenant_id": str(alert.tenant_id),
        "details": {"percent": 50, "user_id": "ann"},
        "raised_at": alert.created_at.isoformat(),
    }


def test_severities_are_ordered() -> None:
    assert [one.reaches(Severity.WARNING) for one in Severity] == [False, True, True]
