"""What the commands print: tables and sentences for people, one JSON object per line for machines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from datetime import date, datetime, timedelta
from typing import Any, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from memoro.cli.amounts import in_words
from memoro.errors import DailyLimit, InsufficientCredits, MemoroError, QuotaExceeded

Column = str | Callable[[Any], Any]
"""The path of an attribute, or what makes a cell of a value."""

C = TypeVar("C", bound=Column)

_NO_LIMIT = 10_000


class Output:
    """Prints to standard output; in JSON mode nothing but JSON."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        console = Console(highlight=False, soft_wrap=True)
        # What goes into a file or a pipe is not folded.
        self.console = console if console.is_terminal else Console(highlight=False, soft_wrap=True, width=_NO_LIMIT)

    def record(self, value: Any, text: str) -> None:
        """One thing: `value` as a line of JSON, or `text`."""
        if self.as_json:
            self._line(value)
        else:
            self.console.print(escape(text))

    def records(self, values: Iterable[Any], columns: Mapping[C, str], *, empty: str = "nothing") -> None:
        """Several things: a line of JSON each, or a table of `columns` (what is in it → heading)."""
        if self.as_json:
            for value in values:
                self._line(value)
            return
        table = Table(box=None, header_style="bold", pad_edge=False)
        for heading in columns.values():
            table.add_column(heading, overflow="fold", no_wrap=heading == "id")
        for value in values:
            table.add_row(*(escape(shown(_cell(value, column))) for column in columns))
        self.console.print(table if table.row_count else empty)

    def say(self, text: str = "") -> None:
        """A line for people, in rich's markup; nothing in JSON mode."""
        if not self.as_json:
            self.console.print(text)

    def json_line(self, value: Any) -> None:
        """A line for machines; nothing otherwise."""
        if self.as_json:
            self._line(value)

    def _line(self, value: Any) -> None:
        typer.echo(json.dumps(plain(value), ensure_ascii=False))


def plain(value: Any) -> Any:
    """What JSON can hold of a value: dataclasses as objects, times in ISO 8601, periods in seconds, bytes in hex."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes):
        return value.hex()
    return value


def shown(value: Any) -> str:
    """A value in a cell of a table."""
    match value:
        case None:
            return ""
        case datetime():
            return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        case bool():
            return "yes" if value else ""
        case float():
            return f"{value:.3f}"
        case tuple():
            return ", ".join(shown(item) for item in value)
        case _:
            return str(value)


def fail(message: str, *, code: int = 1) -> typer.Exit:
    """Prints an error on one line of standard error; raise what it returns."""
    typer.echo("error: " + " ".join(message.split()), err=True)
    return typer.Exit(code)


def describe(error: MemoroError) -> str:
    """An error of a call in one line, with the fields to mend and the time to wait."""
    text = str(error)
    if isinstance(error, InsufficientCredits) and error.need:
        text = (
            f"it may cost up to {in_words(error.need)}, and {in_words(error.have)} are available: have credits added, "
            f"by an operator with memoro billing add ({error.reason})"
        )
    others = [f"{bad.field}: {bad.description}" for bad in error.violations]
    if others and not any(other in text for other in others):
        text += "; " + "; ".join(others)
    if error.retry_after:
        text += f"; try again in {error.retry_after:g} s"
    elif isinstance(error, QuotaExceeded):
        text += "; delete some, or ask an operator for more"
    elif isinstance(error, DailyLimit):
        text += "; wait for the next day, or ask an operator for more"
    return text


def _cell(value: Any, column: Column) -> Any:
    if callable(column):
        return column(value)
    for name in column.split("."):
        value = getattr(value, name)
    return value
