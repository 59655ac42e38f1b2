"""API keys as callers hold them: `memoro_<prefix>_<secret>`."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from typing import Final

_MARK: Final = "memoro"
_PREFIX_BYTES: Final = 8
_SECRET_BYTES: Final = 32
_KEY: Final = re.compile(rf"{_MARK}_([0-9a-f]{{{2 * _PREFIX_BYTES}}})_([0-9a-f]{{{2 * _SECRET_BYTES}}})")
MAX_LENGTH: Final = 256
"""Anything longer is no key."""


@dataclass(frozen=True, slots=True)
class KeyText:
    """The two parts of a key: the prefix is public; the secret never leaves this object but as a hash."""

    prefix: str
    secret: str

    def __str__(self) -> str:
        return f"{_MARK}_{self.prefix}_{self.secret}"

    def __repr__(self) -> str:
        return f"KeyText({self.prefix}, ***)"

    @property
    def secret_hash(self) -> bytes:
        """SHA-256 of the secret: 32 bytes."""
        return hashlib.sha256(self.secret.encode()).digest()

    def matches(self, secret_hash: bytes) -> bool:
        """Whether the secret is the one of that hash, in constant time."""
        return hmac.compare_digest(self.secret_hash, secret_hash)


def new_key() -> KeyText:
    """A fresh key: 64 random bits to recognise it by, 256 to keep secret."""
    return KeyText(secrets.token_hex(_PREFIX_BYTES), secrets.token_hex(_SECRET_BYTES))


def parse_key(text: str) -> KeyText | None:
    """The parts of a key, or None for what is no key."""
    parts = _KEY.fullmatch(text)
    return None if parts is None else KeyText(parts[1], parts[2])
