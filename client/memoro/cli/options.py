"""How options say times, JSON, and one of several names."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, TypeVar

import typer

E = TypeVar("E", bound=StrEnum)
RequestId = Annotated[str | None, typer.Option(help="Makes the call safe to repeat.")]

_UNITS = {"s": timedelta(seconds=1), "m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}


def choices(kind: type[E], **more: Any) -> Any:
    """A typer option that takes names of the enumeration's members, in any case; given to a list, again and again."""
    names = [member.lower() for member in kind if member != "UNKNOWN"]
    return typer.Option(parser=_parser(kind, names), metavar="|".join(names), **more)


def chosen(kind: type[E], **more: Any) -> Any:
    """The same as an argument."""
    names = [member.lower() for member in kind if member != "UNKNOWN"]
    return typer.Argument(parser=_parser(kind, names), metavar="|".join(names), **more)


def _parser(kind: type[E], names: list[str]) -> Callable[[str], E]:
    def parse(text: str) -> E:
        if text.lower() not in names:
            raise typer.BadParameter(f"{text!r} is not one of {', '.join(names)}")
        return kind(text.upper())

    return parse


def json_object(name: str, text: str | None) -> dict[str, Any] | None:
    """What an option holds as JSON. Raises ValueError."""
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{name}: expected a JSON object")
    return value


def moment(text: str) -> datetime:
    """A time in ISO 8601, UTC when it names no offset. Raises ValueError."""
    time = datetime.fromisoformat(text)
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def duration(text: str) -> timedelta:
    """A time span as 90s, 15m, 2h or 30d; 0 needs no unit. Raises ValueError."""
    match = re.fullmatch(r"(\d{1,6})([smhd])|0", text)
    if match is None:
        raise ValueError(f"{text!r} is not a time span: say 90s, 15m, 2h or 30d")
    return timedelta() if text == "0" else int(match[1]) * _UNITS[match[2]]


def day(text: str) -> date:
    """A day, as 2026-01-31. Raises ValueError."""
    return date.fromisoformat(text)
