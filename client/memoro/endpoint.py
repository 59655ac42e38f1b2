"""Where a server is and how to reach it: the endpoint, TLS, and the options of the channel."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from memoro.methods import service_config
from memoro.version import __version__

DEFAULT_ENDPOINT = "127.0.0.1:50051"

_SCHEMES = {"http://": False, "https://": True}


@dataclass(frozen=True, slots=True)
class Tls:
    """How to trust a server and, with mutual TLS, how to be trusted: PEM files."""

    ca_file: Path | str | None = None
    """Authorities to trust instead of the public ones."""
    cert_file: Path | str | None = None
    """The client's certificate; goes with `key_file`."""
    key_file: Path | str | None = None
    server_name: str | None = None
    """The name in the server's certificate, where it is not that of the endpoint."""

    def __post_init__(self) -> None:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file go together: give both or neither")

    def credentials(self) -> grpc.ChannelCredentials:
        """Reads the files; raises OSError for one that can't be read."""
        return grpc.ssl_channel_credentials(
            root_certificates=_read(self.ca_file),
            private_key=_read(self.key_file),
            certificate_chain=_read(self.cert_file),
        )


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server's address, and TLS or None for plain text."""

    address: str
    tls: Tls | None

    def options(self) -> list[tuple[str, Any]]:
        """What a channel to this endpoint is created with."""
        options: list[tuple[str, Any]] = [
            ("grpc.primary_user_agent", f"memoro-python/{__version__}"),
            ("grpc.service_config", service_config()),
            # A server allows pings 10 s apart.
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            # Back within seconds of a server's restart, instead of up to two minutes.
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.max_reconnect_backoff_ms", 5_000),
            # A page of 500 memories may hold 500 x 64 KiB of text, and their metadata.
            ("grpc.max_receive_message_length", 64 * 1024 * 1024),
        ]
        if self.tls is not None and self.tls.server_name is not None:
            options.append(("grpc.ssl_target_name_override", self.tls.server_name))
        return options


def parse_endpoint(text: str, tls: Tls | bool | None = None) -> Endpoint:
    """The endpoint for `host:port`, `http://host:port` (plain text) or `https://host:port` (TLS).

    Without a scheme and without `tls`, a loopback address or a Unix socket is spoken to in plain text, any other with
    TLS: a key must not cross a network in the clear unasked. Raises ValueError for what is no endpoint.
    """
    address, from_scheme = text.strip(), None
    for scheme, secure in _SCHEMES.items():
        if address.startswith(scheme):
            address, from_scheme = address.removeprefix(scheme).rstrip("/"), secure
    if not address or any(character.isspace() for character in address):
        raise ValueError("endpoint: expected host:port")
    if from_scheme is not None and tls is not None and from_scheme != bool(tls):
        raise ValueError("endpoint: its scheme says one thing, tls another")
    if isinstance(tls, Tls):
        return Endpoint(address, tls)
    secure = next((choice for choice in (tls, from_scheme) if choice is not None), not _is_local(address))
    return Endpoint(address, Tls() if secure else None)


def from_environment() -> tuple[str, str | None, Tls | None]:
    """Endpoint, key and TLS as MEMORO_ENDPOINT, MEMORO_API_KEY, MEMORO_CA_FILE, _CERT_FILE and _KEY_FILE say."""
    ca_file, cert_file, key_file = (os.environ.get(f"MEMORO_{name}_FILE") or None for name in ("CA", "CERT", "KEY"))
    tls = Tls(ca_file, cert_file, key_file) if ca_file or cert_file or key_file else None
    return os.environ.get("MEMORO_ENDPOINT") or DEFAULT_ENDPOINT, os.environ.get("MEMORO_API_KEY") or None, tls


def waits_from_environment() -> bool:
    """Whether calls wait for limits, as MEMORO_WAIT_FOR_LIMITS says: 1, as without it, or 0. Raises ValueError."""
    text = os.environ.get("MEMORO_WAIT_FOR_LIMITS") or "1"
    if text not in {"0", "1"}:
        raise ValueError("MEMORO_WAIT_FOR_LIMITS: expected 1 or 0")
    return text == "1"


def _is_local(address: str) -> bool:
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    host = address.removeprefix("dns:").lstrip("/").rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _read(path: Path | str | None) -> bytes | None:
    return None if path is None else Path(path).read_bytes()
