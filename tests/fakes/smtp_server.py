"""A real SMTP server: aiosmtpd on a real port, with TLS from the first byte, by STARTTLS, or none.

`async with Mailbox() as mailbox`, then `mailbox.port`; `mailbox.emails` holds what was taken; `mailbox.refuse(...)`
says what the next emails are answered instead, and `mailbox.hang` how many seconds each waits for its answer.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any, Self

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session


@dataclass(frozen=True, slots=True)
class Email:
    """One email as it was taken; `over_tls` and `user` tell how it came."""

    message: EmailMessage
    sender: str
    recipients: tuple[str, ...]
    over_tls: bool
    user: str

    @property
    def text(self) -> str:
        """What it says."""
        content: str = self.message.get_content()
        return content


class Mailbox:
    """The server; an async context manager. With `user`, only this one may hand emails in, and only over TLS."""

    def __init__(
        self, *, tls: ssl.SSLContext | None = None, implicit: bool = False, user: str = "", password: str = ""
    ) -> None:
        self._tls = tls
        self._implicit = implicit
        self._credentials = (user.encode(), password.encode())
        self._server: asyncio.Server | None = None
        self._transports: list[asyncio.BaseTransport] = []
        self._answers: deque[str] = deque()
        self.refused_recipients: set[str] = set()
        self.hang = 0.0
        self.drop_after = False
        self.emails: list[Email] = []
        self.connections = 0
        self.logins = 0

    @property
    def port(self) -> int:
        """The port it listens on."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def refuse(self, *answers: str) -> None:
        """What the next emails are answered: `452 4.3.1 full`."""
        self._answers.extend(answers)

    async def wait_for(self, count: int, *, seconds: float = 20.0) -> list[Email]:
        """All that came, once that is so many. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while len(self.emails) < count:
                await asyncio.sleep(0.01)
        return self.emails

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            self._session, "127.0.0.1", 0, ssl=self._tls if self._implicit else None
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for transport in self._transports:
            transport.close()
        await asyncio.sleep(0)
        await self._server.wait_closed()

    async def handle_RCPT(
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Takes a recipient, or does not."""
        if address in self.refused_recipients:
            return "550 5.1.1 no such mailbox"
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 OK"

    async def handle_DATA(self, _server: SMTP, session: Session, envelope: Envelope) -> str:
        """Takes an email, or does not."""
        await asyncio.sleep(self.hang)
        if self._answers:
            return self._answers.popleft()
        content = envelope.content
        assert isinstance(content, bytes)
        parsed = message_from_bytes(content, policy=policy.default)
        assert isinstance(parsed, EmailMessage)
        user: Any = session.auth_data

        self.emails.append(
            Email(
                parsed,
                envelope.mail_from or "",
                tuple(envelope.rcpt_tos),
                over_tls=self._implicit or session.ssl is not None,
                user=user.decode() if user else "",
            )
        )
        return "250 OK"

    async def handle_QUIT(self, _server: SMTP, _session: Session, _envelope: Envelope) -> str:
        """Says goodbye, or hangs up."""
        if self.drop_after:
            for transport in self._transports:
                transport.close()
        return "221 Bye"

    def _session(self) -> SMTP:
        self.connections += 1
        mailbox = self

        class Server(SMTP):
            def connection_made(self, transport: Any) -> None:
                mailbox._transports.append(transport)
                super().connection_made(transport)

        return Server(
            self,
            hostname="mailbox.test",
            tls_context=None if self._implicit else self._tls,
            require_starttls=self._tls is not None and not self._implicit,
            # Over TLS from the first byte it does not know that it is encrypted.
            auth_require_tls=not self._implicit,
            auth_required=bool(self._credentials[0]) and not self._implicit,
            authenticator=self._authenticate,
            loop=asyncio.get_running_loop(),
        )

    def _authenticate(
        self, _server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, data: Any
    ) -> AuthResult:
        self.logins += 1
        given = (data.login, data.password) if isinstance(data, LoginPassword) else None
        known = given == self._credentials
        return AuthResult(success=known, handled=False, auth_data=self._credentials[0] if known else None)
