"""What a connection failed of, in words that tell nothing of what was sent."""

from __future__ import annotations

import ssl


def tls_failure(error: BaseException) -> str | None:
    """What TLS has against the other side, if that is what is behind an error."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"the certificate is not valid: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return "TLS failed"
        cause = cause.__cause__ or cause.__context__
    return None
