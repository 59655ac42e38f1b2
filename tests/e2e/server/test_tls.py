"""TLS, and mutual TLS."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from memoro_core.container import open_container
from memoro_core.settings import Settings
from memoro_server.app import MemoroServer
from memoro_server.metrics import ServerMetrics


@dataclass
class Authority:
    """Who signs the certificates of a test, and where the server's are."""

    authority: trustme.CA
    folder: Path

    def settings(self, settings: Settings, *, mutual: bool) -> Settings:
        certificate = self.authority.issue_cert("localhost", "127.0.0.1")
        chain, key, ca = (self.folder / name for name in ("server.pem", "server.key", "ca.pem"))
        chain.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
        key.write_bytes(certificate.private_key_pem.bytes())
        ca.write_bytes(self.root)
        changed = {"tls_cert_file": chain, "tls_key_file": key, "tls_client_ca_file": ca if mutual else None}
        return settings.model_copy(update=changed)

    @property
    def root(self) -> bytes:
        return self.authority.cert_pem.bytes()

    def client(self) -> tuple[bytes, bytes]:
        """A client's key and certificate."""
        certificate = self.authority.issue_cert("a-client")
        return certificate.private_key_pem.bytes(), certificate.cert_chain_pems[0].bytes()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(trustme.CA(), tmp_path)


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[int]:
    async with open_container(settings) as container, MemoroServer(container, ServerMetrics()) as server:
        yield server.port


async def probe(port: int, credentials: grpc.ChannelCredentials | None) -> grpc.StatusCode:
    target = f"localhost:{port}"
    channel = grpc.aio.secure_channel(target, credentials) if credentials else grpc.aio.insecure_channel(target)
    async with channel:
        stub: Any = HealthStub(channel)
        try:
            await stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
        except grpc.aio.AioRpcError as error:
            return error.code()
        return grpc.StatusCode.OK


async def test_with_tls_only_those_who_know_the_authority_and_encrypt_get_through(
    settings: Settings, authority: Authority
) -> None:
    async with serving(authority.settings(settings, mutual=False)) as port:
        assert await probe(port, grpc.ssl_channel_credentials(authority.root)) is grpc.StatusCode.OK
        strange = grpc.ssl_channel_credentials(trustme.CA().cert_pem.bytes())
        assert await probe(port, strange) is grpc.StatusCode.UNAVAILABLE
        assert await probe(port, None) is grpc.StatusCode.UNAVAILABLE


async def test_with_mutual_tls_a_client_needs_a_certificate_of_the_authority(
    settings: Settings, authority: Authority, tmp_path: Path
) -> None:
    async with serving(authority.settings(settings, mutual=True)) as port:
        known = grpc.ssl_channel_credentials(authority.root, *authority.client())
        assert await probe(port, known) is grpc.StatusCode.OK
        assert await probe(port, grpc.ssl_channel_credentials(authority.root)) is grpc.StatusCode.UNAVAILABLE
        stranger = Authority(trustme.CA(), tmp_path).client()
        assert await probe(port, grpc.ssl_channel_credentials(authority.root, *stranger)) is grpc.StatusCode.UNAVAILABLE
