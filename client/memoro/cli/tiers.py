"""`memoro admin tiers`: what the tenants of each tier may do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from datetime import timedelta
from typing import Annotated, Any

import typer
from google.protobuf.json_format import ParseDict, ParseError

from memoro import convert_tiers
from memoro.cli.options import duration, json_object
from memoro.cli.output import Column
from memoro.cli.session import Session, connected
from memoro.types import Limits, RateLimit, Tier
from memoro.v1 import admin_pb2

app = typer.Typer(no_args_is_help=True, help="What the tenants of each tier may do, and how they share the workers.")

_NONE = "none"
_RATE = "PER-MINUTE/BURST"
_KEPT = "12h|30d"


def _cell(name: str) -> Column:
    return lambda tier: in_words(getattr(tier.limits, name))


_COLUMNS: Mapping[Column, str] = {
    "name": "tier",
    "weight": "weight",
    (lambda tier: f"{tier.tenant_in_flight}/{tier.user_in_flight}"): "in flight",
    _cell("requests"): "requests",
    _cell("reads"): "reads",
    _cell("writes"): "writes",
    _cell("searches"): "searches",
    _cell("user_requests"): "of a user",
    _cell("daily_units"): "a day",
    _cell("open_streams"): "streams",
    _cell("relation_detections"): "detections",
    _cell("max_memories"): "memories",
    _cell("max_bytes"): "bytes",
    "shadow": "shadow",
}


@app.command("list")
@connected
def list_tiers(session: Session) -> None:
    """Lists the tiers by their weight. Rates are told as tokens per minute/burst."""
    session.output.records(session.client.admin.tiers.list(), _COLUMNS)


@app.command("put")
@connected
def put_tier(
    session: Session,
    name: Annotated[str, typer.Argument(help="Lower case letters, digits and hyphens.")],
    *,
    requests: Annotated[str | None, typer.Option(metavar=_RATE, help="All calls of a tenant, e.g. 600/120.")] = None,
    reads: Annotated[str | None, typer.Option(metavar=_RATE, help="Its calls that read.")] = None,
    writes: Annotated[str | None, typer.Option(metavar=_RATE, help="Its calls that change something.")] = None,
    searches: Annotated[str | None, typer.Option(metavar=_RATE, help="Its calls that look for something.")] = None,
    user_requests: Annotated[str | None, typer.Option(metavar=_RATE, help="The calls about each user.")] = None,
    daily_units: Annotated[str | None, typer.Option(metavar="NUMBER", help="The weight of a day's calls.")] = None,
    open_streams: Annotated[str | None, typer.Option(metavar="NUMBER", help="Watches open at a time.")] = None,
    relation_detections: Annotated[
        str | None, typer.Option(metavar="NUMBER", help="Jobs of a user whose facts are found in an hour.")
    ] = None,
    max_memories: Annotated[str | None, typer.Option(metavar="NUMBER", help="Memories of a tenant.")] = None,
    max_bytes: Annotated[str | None, typer.Option(metavar="NUMBER", help="Bytes of text and metadata.")] = None,
    shadow: Annotated[
        bool | None, typer.Option("--shadow/--no-shadow", help="Only count calls beyond a limit, refuse none.")
    ] = None,
    weight: Annotated[int | None, typer.Option(min=1, help="A tenant's share in the workers. New: 1.")] = None,
    tenant_in_flight: Annotated[int | None, typer.Option(min=1, help="Jobs of a tenant at once. New: 8.")] = None,
    user_in_flight: Annotated[int | None, typer.Option(min=1, help="Jobs of a user at once. New: 4.")] = None,
    kept_succeeded: Annotated[str | None, typer.Option(metavar=_KEPT, help="How long to keep other jobs.")] = None,
    kept_failed: Annotated[str | None, typer.Option(metavar=_KEPT, help="How long to keep failed jobs.")] = None,
) -> None:
    """Changes what is given of a tier, or makes it; `none` takes a limit away."""
    rates = {
        "requests": requests,
        "reads": reads,
        "writes": writes,
        "searches": searches,
        "user_requests": user_requests,
    }
    numbers = {
        "daily_units": daily_units,
        "open_streams": open_streams,
        "relation_detections": relation_detections,
        "max_memories": max_memories,
        "max_bytes": max_bytes,
    }
    periods = {"kept_succeeded": kept_succeeded, "kept_failed": kept_failed}
    plain = {
        "shadow": shadow,
        "weight": weight,
        "tenant_in_flight": tenant_in_flight,
        "user_in_flight": user_in_flight,
    }
    limits: dict[str, Any] = {key: _rate(key, text) for key, text in rates.items() if text is not None}
    limits |= {key: _number(key, text) for key, text in numbers.items() if text is not None}
    others: dict[str, Any] = {key: _period(key, text) for key, text in periods.items() if text is not None}
    others |= {key: value for key, value in plain.items() if value is not None}
    tiers = session.client.admin.tiers
    tier = next((one for one in tiers.list() if one.name == name), Tier(name))
    made = tiers.put(replace(tier, limits=replace(tier.limits, **limits), **others))
    session.output.records([made], _COLUMNS)


def limits_of_json(name: str, text: str) -> Limits:
    """The limits that an option holds as JSON: `{"requests": {"per_minute": 600, "burst": 120}}`. Raises ValueError."""
    try:
        return convert_tiers.limits(ParseDict(json_object(name, text) or {}, admin_pb2.Limits()))
    except ParseError as error:
        raise ValueError(f"{name}: {error}") from error


def limits_in_words(limits: Limits) -> str:
    """Those that are set: `requests 600/120, max_memories 1000`."""
    set_ones = ((field.name, getattr(limits, field.name)) for field in fields(limits))
    return ", ".join(f"{name} {in_words(value)}" for name, value in set_ones if value is not None)


def in_words(value: RateLimit | int | None) -> str:
    """A limit: `600/120`, or a number; a dash where there is none."""
    if isinstance(value, RateLimit):
        return f"{value.per_minute}/{value.burst}"
    return "-" if value is None else str(value)


def _rate(name: str, text: str) -> RateLimit | None:
    if text == _NONE:
        return None
    per_minute, _, burst = text.partition("/")
    if not (per_minute.isdecimal() and burst.isdecimal()):
        raise ValueError(f"{_option(name)}: {text!r} is not a rate as 600/120, tokens per minute and burst, or {_NONE}")
    return RateLimit(int(per_minute), int(burst))


def _number(name: str, text: str) -> int | None:
    if text == _NONE:
        return None
    if not text.isdecimal():
        raise ValueError(f"{_option(name)}: {text!r} is neither a number nor {_NONE}")
    return int(text)


def _period(name: str, text: str) -> timedelta | None:
    if text == _NONE:
        return None
    try:
        return duration(text)
    except ValueError as error:
        raise ValueError(f"{_option(name)}: {error}, or {_NONE}") from error


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
