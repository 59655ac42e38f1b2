"""Credentials of the listening port."""

from __future__ import annotations

import grpc

from memoro_core.settings import Settings


def server_credentials(settings: Settings) -> grpc.ServerCredentials | None:
    """TLS from the configured files, None without them; with a client authority, a client must show its certificate.

    Raises OSError for a file that can't be read.
    """
    if settings.tls_cert_file is None or settings.tls_key_file is None:
        return None
    authority = settings.tls_client_ca_file
    return grpc.ssl_server_credentials(
        [(settings.tls_key_file.read_bytes(), settings.tls_cert_file.read_bytes())],
        root_certificates=None if authority is None else authority.read_bytes(),
        require_client_auth=authority is not None,
    )
