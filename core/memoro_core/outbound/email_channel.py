"""Alerts by email."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Final, Literal

import aiosmtplib
import structlog

from memoro_core.alerts.model import Alert, Sent, Severity
from memoro_core.alerts.wording import body, one_line, subject
from memoro_core.outbound.failures import tls_failure

EMAIL: Final = "email"
_GOODBYE: Final = 1.0
_MAX_ANSWER: Final = 200
_log: Final = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SmtpServer:
    """Where emails are handed in. `port` None: the usual one of its kind of TLS; `timeout` is for each command."""

    host: str
    port: int | None = None
    tls: Literal["starttls", "tls", "none"] = "starttls"
    user: str = ""
    password: str = field(default="", repr=False)
    timeout: float = 10.0


class EmailChannel:
    """An `AlertChannel` that hands each alert in as one email, over a connection of its own.

    An alert that is sent twice has the same `Message-ID` both times. `authorities` are for other certificate
    authorities than the system's.
    """

    name: Final = EMAIL

    def __init__(
        self, server: SmtpServer, *, sender: str, recipients: Sequence[str], authorities: ssl.SSLContext | None = None
    ) -> None:
        self._server = server
        self._sender = sender
        self._recipients = tuple(recipients)
        self._tls = authorities or ssl.create_default_context()

    async def send(self, alert: Alert) -> Sent:
        try:
            await self._hand_in(alert)
        except aiosmtplib.SMTPAuthenticationError as error:
            # Without the server's words: they may repeat what it was told.
            return Sent(f"the server does not accept the user and password ({error.code})")
        except aiosmtplib.SMTPRecipientsRefused as error:
            return Sent("; ".join(f"refused a recipient with {_answer(each)}" for each in error.recipients[:3]))
        except aiosmtplib.SMTPResponseException as error:
            return Sent(f"answered {_answer(error)}")
        except (aiosmtplib.SMTPException, OSError) as error:
            return Sent(self._what_failed(error))
        return Sent()

    async def _hand_in(self, alert: Alert) -> None:
        server = self._server
        client = aiosmtplib.SMTP(
            hostname=server.host,
            port=server.port,
            username=server.user or None,
            password=server.password or None,
            # What it would find out itself takes a look-up of the own name, which may hang.
            local_hostname=socket.gethostname(),
            timeout=server.timeout,
            use_tls=server.tls == "tls",
            start_tls=server.tls == "starttls",
            tls_context=self._tls if server.tls != "none" else None,
        )
        try:
            await client.connect()
            refused, _ = await client.send_message(self._message(alert))
            if refused:
                _log.warning(
                    "alert_recipients_refused",
                    alert_id=str(alert.id),
                    recipients=len(refused),
                    codes=sorted({answer.code for answer in refused.values()}),
                )
            # It is handed in: whatever becomes of the goodbye.
            with suppress(aiosmtplib.SMTPException, OSError):
                async with asyncio.timeout(_GOODBYE):
                    await client.quit()
        finally:
            client.close()

    def _message(self, alert: Alert) -> EmailMessage:
        message = EmailMessage()
        message["From"] = self._sender
        message["To"] = ", ".join(self._recipients)
        message["Subject"] = subject(alert)
        message["Date"] = alert.created_at
        message["Message-ID"] = f"<{alert.id}@{self._sender.rpartition('@')[2]}>"
        message["Auto-Submitted"] = "auto-generated"
        if alert.severity is Severity.CRITICAL:
            message["Importance"] = "high"
        message.set_content(body(alert))
        return message

    def _what_failed(self, error: Exception) -> str:
        if (reason := tls_failure(error)) is not None:
            return reason
        if isinstance(error, TimeoutError):
            return f"no answer within {self._server.timeout:g} s"
        if isinstance(error, aiosmtplib.SMTPServerDisconnected):
            return "the connection broke before the email was taken"
        if isinstance(error, OSError):
            return "the server can't be reached"
        # What the server does not offer, in the library's own words.
        return one_line(str(error), _MAX_ANSWER)


def _answer(error: aiosmtplib.SMTPResponseException) -> str:
    return f"{error.code} {one_line(error.message, _MAX_ANSWER)}"
