"""What a connection failed of, in words that tell nothing of what was sent."""

from __future__ import annotations

import ssl


def tls_failure(error: BaseException) -> str | None:
    """What TLS has against the other side, if that is what is behind an error."""
    failure = None
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            # Libraries wrap it in classes of their own that are one too, and don't know why.
            if why := getattr(cause, "verify_message", ""):
                return f"the certificate is not valid: {why}"
            failure = "TLS failed"
        cause = cause.__cause__ or cause.__context__
    return failure
