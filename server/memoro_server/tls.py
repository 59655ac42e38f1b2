"""Credentials of the listening port."""

from __future__ import annotations

import ssl
from pathlib import Path

import grpc

from memoro_core.settings import Settings


def server_credentials(settings: Settings) -> grpc.ServerCredentials | None:
    """TLS from the configured files, None without them; with a client authority, a client must show its certificate.

    Raises OSError, naming the setting, for a file that can't be read or does not hold what it should.
    """
    if settings.tls_cert_file is None or settings.tls_key_file is None:
        return None
    authority = settings.tls_client_ca_file
    _check(settings.tls_cert_file, settings.tls_key_file, authority)
    return grpc.ssl_server_credentials(
        [(settings.tls_key_file.read_bytes(), settings.tls_cert_file.read_bytes())],
        root_certificates=None if authority is None else authority.read_bytes(),
        require_client_auth=authority is not None,
    )


def _check(certificate: Path, key: Path, authority: Path | None) -> None:
    # gRPC says of bad files only that it can't listen.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:
        raise OSError(f"MEMORO_TLS_CERT_FILE and MEMORO_TLS_KEY_FILE: {error}") from None
    try:
        if authority is not None:
            context.load_verify_locations(authority)
    except OSError as error:
        raise OSError(f"MEMORO_TLS_CLIENT_CA_FILE: {error}") from None
