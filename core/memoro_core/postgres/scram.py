"""Password verifiers as PostgreSQL stores them, made here so that a password itself is in no statement and no log."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import stringprep
import unicodedata

ITERATIONS = 4096
SALT_BYTES = 16
FORBIDDEN = (
    stringprep.in_table_a1,
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def scram_verifier(password: str, *, salt: bytes | None = None) -> str:
    """`SCRAM-SHA-256$…` after RFC 5803, which the server takes in place of a password."""
    salt = secrets.token_bytes(SALT_BYTES) if salt is None else salt
    salted = hashlib.pbkdf2_hmac("sha256", _prepared(password).encode(), salt, ITERATIONS)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    stored_key = hashlib.sha256(client_key).digest()
    return f"SCRAM-SHA-256${ITERATIONS}:{_base64(salt)}${_base64(stored_key)}:{_base64(server_key)}"


def _prepared(password: str) -> str:
    """The password as PostgreSQL and its clients hash it: after RFC 4013, or as it is when that forbids it."""
    mapped = "".join(
        " " if stringprep.in_table_c12(character) else character
        for character in password
        if not stringprep.in_table_b1(character)
    )
    prepared = unicodedata.normalize("NFKC", mapped)
    forbidden = any(in_table(character) for character in prepared for in_table in FORBIDDEN)
    return password if forbidden or not prepared or _is_mixed(prepared) else prepared


def _is_mixed(text: str) -> bool:
    """Whether right-to-left text is mixed with left-to-right text, or does not stand at both ends (RFC 3454, 6)."""
    if not any(map(stringprep.in_table_d1, text)):
        return False
    ends = stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1])
    return not ends or any(map(stringprep.in_table_d2, text))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
