"""Requests can't be led to where they should not go."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from ipaddress import ip_address

import pytest
import trustme

from memoro_core.outbound.network import Address, resolve
from memoro_core.outbound.sender import open_sender
from memoro_core.webhooks.model import Outcome
from tests.fakes.webhook_receiver import Answer, Receiver

HEADERS = {"webhook-id": "e1", "webhook-timestamp": "0", "webhook-signature": "v1,"}
# On the public Internet by its number, but next to nowhere a way to it.
PUBLIC = "64:ff9b::808:808"


class Names:
    """Resolves every name to the next of the answers, and counts."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self._answers = list(answers)
        self.asked: list[tuple[str, int]] = []

    def __call__(self, host: str, port: int) -> Sequence[Address]:
        self.asked.append((host, port))
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return [ip_address(text) for text in answer]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server_tls(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def client_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def test_tls_checks_the_name_while_the_connection_goes_to_the_address(authority: trustme.CA) -> None:
    names = Names(["127.0.0.1"])
    async with (
        Receiver(tls=server_tls(authority, "hooks.example.com")) as receiver,
        open_sender(allow_private=True, resolver=names, tls=client_tls(authority)) as sender,
    ):
        sent = await sender.post(f"https://hooks.example.com:{receiver.port}/", HEADERS, b"{}")
        assert sent == Outcome(204)
        assert names.asked == [("hooks.example.com", receiver.port)]
        wrong = await sender.post(f"https://other.example.com:{receiver.port}/", HEADERS, b"{}")
        assert "the certificate is not valid: Hostname mismatch" in wrong.error
        assert receiver.requests == 1


async def test_a_certificate_of_an_unknown_authority_is_refused(authority: trustme.CA) -> None:
    async with (
        Receiver(tls=server_tls(authority, "hooks.example.com")) as receiver,
        open_sender(allow_private=True, resolver=Names(["127.0.0.1"])) as sender,
    ):
        sent = await sender.post(f"https://hooks.example.com:{receiver.port}/", HEADERS, b"{}")
        assert sent.error.startswith("the certificate is not valid:")
        assert receiver.requests == 0


@pytest.mark.parametrize("host", ["hooks.example.com", "2130706433", "127.1", "0x7f.1"])
async def test_a_name_that_leads_to_a_private_address_is_refused(authority: trustme.CA, host: str) -> None:
    resolver = Names(["127.0.0.1", "::1", "10.0.0.1"]) if host == "hooks.example.com" else resolve
    async with (
        Receiver(tls=server_tls(authority, host)) as receiver,
        open_sender(allow_private=False, resolver=resolver, tls=client_tls(authority)) as sender,
    ):
        sent = await sender.post(f"https://{host}:{receiver.port}/", HEADERS, b"{}")
        assert sent == Outcome(error="the host leads to a private address")
        assert receiver.connections == 0


async def test_a_name_that_changes_its_mind_is_asked_once(authority: trustme.CA) -> None:
    names = Names([PUBLIC], ["127.0.0.1"])
    async with (
        Receiver(tls=server_tls(authority, "hooks.example.com")) as receiver,
        open_sender(allow_private=False, resolver=names, tls=client_tls(authority), timeout=1.0) as sender,
    ):
        sent = await sender.post(f"https://hooks.example.com:{receiver.port}/", HEADERS, b"{}")
        assert sent.error in {"the host can't be reached", "no answer within 1 s"}
        assert len(names.asked) == 1
        # The next attempt asks anew, and is told what is private.
        sent = await sender.post(f"https://hooks.example.com:{receiver.port}/", HEADERS, b"{}")
        assert sent.error == "the host leads to a private address"
        assert receiver.connections == 0


async def test_of_several_addresses_the_first_that_answers_is_taken(authority: trustme.CA) -> None:
    async with (
        Receiver(tls=server_tls(authority, "hooks.example.com")) as receiver,
        open_sender(
            allow_private=True, resolver=Names(["127.0.0.2", "127.0.0.1"]), tls=client_tls(authority)
        ) as sender,
    ):
        assert await sender.post(f"https://hooks.example.com:{receiver.port}/", HEADERS, b"{}") == Outcome(204)


async def test_a_private_url_that_was_stored_while_they_were_allowed() -> None:
    async with Receiver() as receiver, open_sender(allow_private=False) as sender:
        sent = await sender.post(receiver.url, HEADERS, b"{}")
        assert sent.error == "url: must begin with https://"
        assert receiver.connections == 0


async def test_a_name_that_is_none() -> None:
    async with open_sender(allow_private=True) as sender:
        sent = await sender.post("http://nowhere.invalid/", HEADERS, b"{}")
        assert sent == Outcome(error="the host's name can't be resolved")


async def test_a_redirect_is_not_followed() -> None:
    async with Receiver() as receiver, Receiver() as other, open_sender(allow_private=True) as sender:
        receiver.script(Answer(307, {"location": other.url}))
        sent = await sender.post(receiver.url, HEADERS, b"{}")
        assert sent.status == 307
        assert other.connections == 0


async def test_a_proxy_in_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    async with Receiver() as receiver, open_sender(allow_private=True) as sender:
        assert await sender.post(receiver.url, HEADERS, b"{}") == Outcome(204)
