"""Where a client connects, and when it uses TLS."""

from __future__ import annotations

from pathlib import Path

import pytest

from memoro import AsyncClient, Client, Tls
from memoro.endpoint import Endpoint, from_environment, parse_endpoint


@pytest.mark.parametrize(
    ("text", "tls", "expected"),
    [
        ("127.0.0.1:50051", None, Endpoint("127.0.0.1:50051", None)),
        ("localhost:50051", None, Endpoint("localhost:50051", None)),
        ("[::1]:50051", None, Endpoint("[::1]:50051", None)),
        ("unix:/run/memoro.sock", None, Endpoint("unix:/run/memoro.sock", None)),
        ("memoro.example:443", None, Endpoint("memoro.example:443", Tls())),
        ("10.0.0.7:50051", None, Endpoint("10.0.0.7:50051", Tls())),
        ("dns:///localhost:50051", None, Endpoint("dns:///localhost:50051", None)),
        ("http://memoro.example:50051", None, Endpoint("memoro.example:50051", None)),
        ("https://localhost:50051/", None, Endpoint("localhost:50051", Tls())),
        ("memoro.example:50051", False, Endpoint("memoro.example:50051", None)),
        ("127.0.0.1:50051", True, Endpoint("127.0.0.1:50051", Tls())),
        ("https://a.example:1", Tls(ca_file="ca.pem"), Endpoint("a.example:1", Tls(ca_file="ca.pem"))),
    ],
)
def test_plain_text_stays_on_this_machine_unless_asked_for(
    text: str, tls: Tls | bool | None, expected: Endpoint
) -> None:
    assert parse_endpoint(text, tls) == expected


@pytest.mark.parametrize(
    ("text", "tls"), [("", None), ("a b:1", None), ("http://a:1", True), ("https://a:1", False), ("http://", None)]
)
def test_what_is_no_endpoint_is_refused(text: str, tls: bool | None) -> None:
    with pytest.raises(ValueError, match="endpoint"):
        parse_endpoint(text, tls)


def test_certificate_and_key_go_together() -> None:
    with pytest.raises(ValueError, match="go together"):
        Tls(cert_file="cert.pem")


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ENDPOINT", "API_KEY", "CA_FILE", "CERT_FILE", "KEY_FILE"):
        monkeypatch.delenv(f"MEMORO_{name}", raising=False)
    assert from_environment() == ("127.0.0.1:50051", None, None)
    monkeypatch.setenv("MEMORO_ENDPOINT", "memoro.example:443")
    monkeypatch.setenv("MEMORO_API_KEY", "mk_x")
    monkeypatch.setenv("MEMORO_CA_FILE", "ca.pem")
    assert from_environment() == ("memoro.example:443", "mk_x", Tls(ca_file="ca.pem"))
    monkeypatch.setenv("MEMORO_KEY_FILE", "key.pem")
    with pytest.raises(ValueError, match="go together"):
        from_environment()


async def test_both_clients_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMORO_ENDPOINT", "127.0.0.1:7")
    monkeypatch.setenv("MEMORO_API_KEY", "mk_x")
    assert repr(AsyncClient.from_env()) == "AsyncClient('127.0.0.1:7')"
    with Client.from_env() as client:
        assert repr(client) == "Client('127.0.0.1:7')"


def test_a_missing_certificate_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Client("127.0.0.1:7", tls=Tls(ca_file=tmp_path / "none.pem"))
