"""Alerts in Slack: through an incoming webhook, or as a bot."""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from http import HTTPStatus
from typing import Final

import aiohttp
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient
from slack_sdk.web.async_slack_response import AsyncSlackResponse
from slack_sdk.webhook.async_client import AsyncWebhookClient

from memoro_core.alerts.model import Alert, Sent
from memoro_core.alerts.wording import mrkdwn, one_line
from memoro_core.outbound.failures import tls_failure

SLACK: Final = "slack"
API_URL: Final = "https://slack.com/api/"
_MAX_ANSWER: Final = 100
_MAX_RETRY_AFTER: Final = 3600
# Its lines would hold URLs and headers, which are secrets.
_SILENT: Final = logging.Logger("slack", level=logging.CRITICAL + 1)


class SlackWebhook:
    """An `AlertChannel` that posts to an incoming webhook."""

    name: Final = SLACK

    def __init__(self, url: str, session: aiohttp.ClientSession, tls: ssl.SSLContext) -> None:
        # Tried again by whoever sends, not at once: a request that broke off may have arrived.
        self._client = AsyncWebhookClient(url, ssl=tls, session=session, logger=_SILENT, retry_handlers=[])

    async def send(self, alert: Alert) -> Sent:
        try:
            answer = await self._client.send(text=mrkdwn(alert), unfurl_links=False, unfurl_media=False)
        except (aiohttp.ClientError, OSError) as error:
            return Sent(_what_failed(error))
        if answer.status_code == HTTPStatus.OK:
            return Sent()
        return _refused(answer.status_code, answer.body, answer.headers)


class SlackBot:
    """An `AlertChannel` that posts to a channel, by name or id, with a bot's token (scope `chat:write`)."""

    name: Final = SLACK

    def __init__(
        self, token: str, channel: str, session: aiohttp.ClientSession, tls: ssl.SSLContext, *, api_url: str = API_URL
    ) -> None:
        self._channel = channel
        self._client = AsyncWebClient(
            token, base_url=api_url, ssl=tls, session=session, logger=_SILENT, retry_handlers=[]
        )

    async def send(self, alert: Alert) -> Sent:
        try:
            await self._client.chat_postMessage(
                channel=self._channel, text=mrkdwn(alert), unfurl_links=False, unfurl_media=False
            )
        except SlackApiError as error:
            return _rejected(error.response)
        except (aiohttp.ClientError, OSError) as error:
            return Sent(_what_failed(error))
        return Sent()


@asynccontextmanager
async def open_slack(
    *,
    webhook_url: str | None,
    token: str | None,
    channel: str,
    api_url: str = API_URL,
    timeout: float,
    authorities: ssl.SSLContext | None = None,
) -> AsyncIterator[SlackWebhook | SlackBot]:
    """The channel, as a webhook if there is a URL, else as a bot; its connections are closed at the end.

    `authorities` are for other certificate authorities than the system's.
    """
    tls = authorities or ssl.create_default_context()
    # A connection for each message: they are rare, and one that was kept may have gone stale.
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(force_close=True), timeout=aiohttp.ClientTimeout(total=timeout)
    )
    async with session:
        if webhook_url is not None:
            yield SlackWebhook(webhook_url, session, tls)
        else:
            yield SlackBot(token or "", channel, session, tls, api_url=api_url)


def _rejected(response: AsyncSlackResponse | aiohttp.ClientResponse) -> Sent:
    """What a response to a bot says: what stood there may be something else than Slack."""
    if isinstance(response, aiohttp.ClientResponse):
        return _refused(response.status, "", response.headers)
    answer = response.data
    words = answer.get("error") if isinstance(answer, Mapping) else answer
    return _refused(response.status_code, words if isinstance(words, str) else "", response.headers)


def _refused(status: int, answer: str, headers: Mapping[str, str]) -> Sent:
    words = one_line(answer, _MAX_ANSWER)
    return Sent(f"answered {status} {words}".strip(), _retry_after(status, headers))


def _retry_after(status: int, headers: Mapping[str, str]) -> timedelta | None:
    asked = {name.lower(): value for name, value in headers.items()}.get("retry-after", "")
    if status != HTTPStatus.TOO_MANY_REQUESTS or not asked.isascii() or not asked.isdigit():
        return None
    return timedelta(seconds=min(int(asked), _MAX_RETRY_AFTER))


def _what_failed(error: Exception) -> str:
    if (reason := tls_failure(error)) is not None:
        return reason
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, (aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError, ConnectionResetError)):
        return "the connection broke before an answer came"
    return "Slack can't be reached"
