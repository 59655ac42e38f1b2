"""Connections with TLS and with mutual TLS."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from memoro import AsyncClient, Client, Health, Tls, Unavailable
from tests.support.scripted_server import scripted_server

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")


@dataclass(frozen=True)
class Certificates:
    """An authority, and what it signed for a server named memoro.test and for a client."""

    folder: Path

    def path(self, name: str) -> Path:
        return self.folder / name

    def read(self, name: str) -> bytes:
        return self.path(name).read_bytes()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=30)

    new = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
    openssl(*new, "-subj", "/CN=Test authority", "-keyout", "ca.key", "-out", "ca.pem")
    for name in ("server", "client"):
        signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "subjectAltName=DNS:memoro.test")
        openssl(*new, *signed, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem")
    return Certificates(folder)


def server_credentials(certificates: Certificates, *, mutual: bool) -> grpc.ServerCredentials:
    pair = (certificates.read("server.key"), certificates.read("server.pem"))
    authority = certificates.read("ca.pem") if mutual else None
    return grpc.ssl_server_credentials([pair], authority, require_client_auth=mutual)


async def test_a_server_is_known_by_its_authority(certificates: Certificates) -> None:
    tls = Tls(ca_file=certificates.path("ca.pem"), server_name="memoro.test")
    with scripted_server(server_credentials(certificates, mutual=False)) as server:
        async with AsyncClient(server.endpoint, tls=tls) as client:
            assert await client.health() is Health.SERVING
        with Client(server.endpoint, tls=tls) as blocking:
            assert blocking.health() is Health.SERVING


async def test_a_stranger_is_not_spoken_to(certificates: Certificates) -> None:
    with scripted_server(server_credentials(certificates, mutual=False)) as server:
        for tls in (True, Tls(ca_file=certificates.path("ca.pem"), server_name="another.test"), False):
            async with AsyncClient(server.endpoint, tls=tls) as client:
                with pytest.raises(Unavailable):
                    await client.health()


async def test_a_client_shows_its_own_certificate(certificates: Certificates) -> None:
    authority, name = certificates.path("ca.pem"), "memoro.test"
    own = Tls(authority, certificates.path("client.pem"), certificates.path("client.key"), name)
    with scripted_server(server_credentials(certificates, mutual=True)) as server:
        async with AsyncClient(server.endpoint, tls=own) as client:
            assert await client.health() is Health.SERVING
        async with AsyncClient(server.endpoint, tls=Tls(authority, server_name=name)) as client:
            with pytest.raises(Unavailable):
                await client.health()
