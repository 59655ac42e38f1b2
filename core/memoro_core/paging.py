"""Pages of lists: keyset positions, carried by opaque tokens that fit only the list they were made for."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Generic, TypeVar
from uuid import UUID

from memoro_core.errors import Code, FieldViolation, MemoroError, Reason, invalid_field
from memoro_core.ids import parse_id

T = TypeVar("T")

DEFAULT_PAGE_SIZE: Final = 50
MAX_PAGE_SIZE: Final = 500
_DIGEST_BYTES: Final = 12
_MAX_DIGITS: Final = 18
"""Which a bigint can hold."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some items of a list, and the position to go on after; None on the last page."""

    items: Sequence[T]
    next_position: tuple[str, ...] | None


def page_size(requested: int, *, default: int = DEFAULT_PAGE_SIZE, maximum: int = MAX_PAGE_SIZE) -> int:
    """0 is the default, too large is the maximum, negative is INVALID_FIELD."""
    if requested < 0:
        raise invalid_field("page_size", "must not be negative; 0 means the default")
    return min(requested, maximum) if requested else default


def cut(rows: Sequence[T], size: int, position: tuple[str, ...] | None) -> Page[T]:
    """A page of `size` from rows that were read with a limit of `size + 1`; `position` is that of the last one kept."""
    return Page(rows[:size], position if len(rows) > size else None)


def moment(position: Sequence[str], place: int) -> datetime:
    """The time at that place of a position, in ISO 8601 with an offset. Raises PAGE_TOKEN_INVALID."""
    try:
        parsed = datetime.fromisoformat(position[place])
    except (IndexError, ValueError):
        raise bad_token() from None
    if parsed.tzinfo is None:
        raise bad_token()
    return parsed


def identifier(position: Sequence[str], place: int = 0) -> UUID:
    """The id at that place of a position. Raises PAGE_TOKEN_INVALID: who makes up a token can put anything into it."""
    parsed = parse_id(position[place]) if place < len(position) else None
    if parsed is None:
        raise bad_token()
    return parsed


def ordinal(position: Sequence[str], place: int = 0) -> int:
    """The number at that place of a position. Raises PAGE_TOKEN_INVALID, as `identifier` does."""
    text = position[place] if place < len(position) else ""
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS):
        raise bad_token()
    return int(text)


def encode_token(list_key: str, position: Sequence[str] | None) -> str:
    """An opaque token for `position` in the list that `list_key` names (method and filter); empty for None."""
    if position is None:
        return ""
    raw = _digest(list_key) + json.dumps(list(position), separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def decode_token(list_key: str, token: str) -> tuple[str, ...] | None:
    """The position in a token, None for an empty one. Raises PAGE_TOKEN_INVALID for a token of another list."""
    if not token:
        return None
    try:
        raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        position = json.loads(raw[_DIGEST_BYTES:])
    except (binascii.Error, ValueError, UnicodeError):
        raise bad_token() from None
    if (
        raw[:_DIGEST_BYTES] != _digest(list_key)
        or not isinstance(position, list)
        or not all(isinstance(part, str) for part in position)
    ):
        raise bad_token()
    return tuple(position)


def _digest(list_key: str) -> bytes:
    return hashlib.blake2b(list_key.encode(), digest_size=_DIGEST_BYTES).digest()


def bad_token() -> MemoroError:
    """INVALID_ARGUMENT / PAGE_TOKEN_INVALID: the token was not made for this list."""
    text = "not a token of this list with this filter; start again without one"
    return MemoroError(
        Code.INVALID_ARGUMENT,
        Reason.PAGE_TOKEN_INVALID,
        f"page_token: {text}",
        violations=(FieldViolation("page_token", text),),
    )
