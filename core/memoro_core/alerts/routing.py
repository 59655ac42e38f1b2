"""Which channels get an alert, in which order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from memoro_core.alerts.model import Alert, ChannelResult, Sent, Severity
from memoro_core.alerts.ports import AlertChannel

NOT_SO_URGENT: Final = "takes alerts from {least} on"
NOT_NEEDED: Final = "another channel took it"
_log: Final = structlog.get_logger(__name__)

Took = Callable[[str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Route:
    """A channel, and the least urgent alerts that it takes."""

    channel: AlertChannel
    severity: Severity = Severity.INFO


class AlertRouter:
    """Sends alerts over the log, always, and over the channels of `routes`.

    Over all of them at once, or with `fallback` over the first, in their order, that takes the alert. A channel that
    has not done so after `timeout` seconds has failed.
    """

    def __init__(
        self, log: AlertChannel, routes: Sequence[Route], *, fallback: bool = False, timeout: float = 10.0
    ) -> None:
        self._log = log
        self._routes = tuple(routes)
        self._fallback = fallback
        self._timeout = timeout

    @property
    def longest(self) -> float:
        """Seconds that sending an alert may take at most, without what `took` does."""
        return self._timeout * max(1, len(self._routes) if self._fallback else 1)

    async def send(
        self, alert: Alert, *, delivered_over: Collection[str] = (), took: Took | None = None
    ) -> Sequence[ChannelResult]:
        """A result per channel, the log's first, then in the order of the routes.

        Channels in `delivered_over` get nothing. `took` is awaited with the name of each channel that takes the alert,
        before a next one is tried; what it raises ends the sending.
        """
        results = [await self._one(self._log, alert, delivered_over, took)]
        if self._fallback:
            done = any(route.channel.name in delivered_over for route in self._routes)
            for route in self._routes:
                result = await self._over(route, alert, delivered_over, took, needed=not done)
                done = done or result.delivered
                results.append(result)
            return results
        sending = (self._over(route, alert, delivered_over, took) for route in self._routes)
        # Each to its end, also when one of them could not be recorded.
        for ended in await asyncio.gather(*sending, return_exceptions=True):
            if isinstance(ended, BaseException):
                raise ended
            results.append(ended)
        return results

    def complete(self, results: Sequence[ChannelResult]) -> bool:
        """Whether nothing is left to do for the alert that these are the results of."""
        others = results[1:]
        if self._fallback and any(result.delivered for result in others):
            return not results[0].failed
        return not any(result.failed for result in results)

    async def _over(
        self, route: Route, alert: Alert, delivered_over: Collection[str], took: Took | None, *, needed: bool = True
    ) -> ChannelResult:
        name = route.channel.name
        if name not in delivered_over:
            if not alert.severity.reaches(route.severity):
                return ChannelResult(name, delivered=False, problem=NOT_SO_URGENT.format(least=route.severity))
            if not needed:
                return ChannelResult(name, delivered=False, problem=NOT_NEEDED)
        return await self._one(route.channel, alert, delivered_over, took)

    async def _one(
        self, channel: AlertChannel, alert: Alert, delivered_over: Collection[str], took: Took | None
    ) -> ChannelResult:
        if channel.name in delivered_over:
            return ChannelResult(channel.name, delivered=True)
        sent = await self._send(channel, alert)
        if sent.problem:
            return ChannelResult(
                channel.name, delivered=False, problem=sent.problem, failed=True, retry_after=sent.retry_after
            )
        if took is not None:
            await took(channel.name)
        return ChannelResult(channel.name, delivered=True)

    async def _send(self, channel: AlertChannel, alert: Alert) -> Sent:
        try:
            async with asyncio.timeout(self._timeout):
                return await channel.send(alert)
        except TimeoutError:
            return Sent(f"no answer within {self._timeout:g} s")
        except Exception as error:  # noqa: BLE001 - a channel that breaks must not keep the others from the alert
            # Without its text: that may hold what the channel was set up with.
            _log.error("alert_channel_broke", channel=channel.name, error=type(error).__qualname__)
            return Sent(f"broke with {type(error).__qualname__}")
