"""Signing secrets: how they are made, and how they are sealed for the database."""

from __future__ import annotations

import base64
import secrets
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from memoro_core.ids import TenantId, WebhookEndpointId

_PREFIX: Final = "whsec_"
_SECRET_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_OPEN: Final = b"\x00"
_SEALED: Final = b"\x01"


class SecretUnreadable(Exception):
    """A secret was sealed with another key than the one this process has."""


def new_secret() -> str:
    """A fresh secret: `whsec_` and 32 random bytes in base64."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


class SecretSeal:
    """Seals secrets with AES-256-GCM under a key derived from `key`, each bound to its endpoint.

    Without a key they are kept as they are; what was kept so can still be read once there is a key.
    """

    def __init__(self, key: str | None) -> None:
        self._cipher = None if key is None else AESGCM(_derived(key))

    def seal(self, tenant_id: TenantId, endpoint_id: WebhookEndpointId, secret: str) -> bytes:
        """What to store of a secret."""
        if self._cipher is None:
            return _OPEN + secret.encode()
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return _SEALED + nonce + self._cipher.encrypt(nonce, secret.encode(), _place(tenant_id, endpoint_id))

    def open(self, tenant_id: TenantId, endpoint_id: WebhookEndpointId, sealed: bytes) -> str:
        """The secret. Raises SecretUnreadable."""
        kind, rest = sealed[:1], sealed[1:]
        if kind == _OPEN:
            return rest.decode()
        if self._cipher is None:
            raise SecretUnreadable
        nonce, text = rest[:_NONCE_BYTES], rest[_NONCE_BYTES:]
        try:
            return self._cipher.decrypt(nonce, text, _place(tenant_id, endpoint_id)).decode()
        except InvalidTag:
            raise SecretUnreadable from None


def _derived(key: str) -> bytes:
    return HKDF(SHA256(), length=32, salt=None, info=b"memoro webhook secrets").derive(key.encode())


def _place(tenant_id: TenantId, endpoint_id: WebhookEndpointId) -> bytes:
    return tenant_id.bytes + endpoint_id.bytes
