"""The channels that the settings name."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from memoro_core.alerts.log_channel import LogChannel
from memoro_core.alerts.routing import AlertRouter, Route
from memoro_core.settings import Settings


@asynccontextmanager
async def open_alert_router(
    settings: Settings, *, authorities: ssl.SSLContext | None = None
) -> AsyncIterator[AlertRouter]:
    """The way of alerts to people, in the order of the settings; closed at the end.

    `authorities` are for other certificate authorities than the system's.
    """
    async with AsyncExitStack() as stack:
        routes = []
        for name in settings.alert_channels:
            if name == "email":
                routes.append(_email(settings, authorities))
            else:
                routes.append(await _slack(stack, settings, authorities))
        yield AlertRouter(
            LogChannel(), routes, fallback=settings.alert_delivery == "fallback", timeout=settings.alert_timeout
        )


def _email(settings: Settings, authorities: ssl.SSLContext | None) -> Route:
    # Only who sends emails needs the library.
    from memoro_core.outbound.email_channel import EmailChannel, SmtpServer

    server = SmtpServer(
        host=settings.alert_smtp_host,
        port=settings.alert_smtp_port,
        tls=settings.alert_smtp_tls,
        user=settings.alert_smtp_user,
        password=settings.alert_smtp_password.get_secret_value() if settings.alert_smtp_password else "",
        timeout=settings.alert_timeout,
    )
    channel = EmailChannel(
        server, sender=settings.alert_email_from or "", recipients=settings.alert_email_to, authorities=authorities
    )
    return Route(channel, settings.alert_email_severity)


async def _slack(stack: AsyncExitStack, settings: Settings, authorities: ssl.SSLContext | None) -> Route:
    from memoro_core.outbound.slack_channel import open_slack

    url, token = settings.alert_slack_webhook_url, settings.alert_slack_token
    channel = await stack.enter_async_context(
        open_slack(
            webhook_url=url.get_secret_value() if url else None,
            token=token.get_secret_value() if token else None,
            channel=settings.alert_slack_channel,
            api_url=settings.alert_slack_api_url,
            timeout=settings.alert_timeout,
            authorities=authorities,
        )
    )
    return Route(channel, settings.alert_slack_severity)
