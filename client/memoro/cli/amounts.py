"""How amounts of money are entered and shown: in credits, exactly, or in micro-credits."""

from __future__ import annotations

from typing import Annotated

import typer

from memoro.money import (
    MICRO_CREDITS_PER_CREDIT,
    format_credits,
    format_decimal,
    format_dollars,
    parse_credits,
    parse_decimal,
)

_PRICE_PLACES = 6

Credits = Annotated[str | None, typer.Option("--credits", metavar="DECIMAL", help="How much, in credits, e.g. 12.5.")]
MicroCredits = Annotated[int | None, typer.Option("--micro-credits", min=0, help="The same in micro-credits.")]


def amount(
    credits: str | None, micro_credits: int | None, name: str = "--credits", micro_name: str = "--micro-credits"
) -> int | None:
    """What two options say, in micro-credits; None when neither is given. Raises ValueError."""
    if credits is not None and micro_credits is not None:
        raise ValueError(f"give {name} or {micro_name}, not both")
    if credits is None:
        return micro_credits
    try:
        return parse_credits(credits)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def token_price(name: str, dollars: str) -> int:
    """Dollars for a million tokens in micro-dollars. Raises ValueError."""
    try:
        return parse_decimal(dollars, _PRICE_PLACES)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def dollars_of_price(micro_dollars: int) -> str:
    """The other way round."""
    return f"${format_decimal(micro_dollars, _PRICE_PLACES, least=2)}"


def in_words(micro_credits: int) -> str:
    """`12.5 credits ($0.125)`."""
    unit = "credit" if micro_credits == MICRO_CREDITS_PER_CREDIT else "credits"
    return f"{format_credits(micro_credits)} {unit} ({format_dollars(micro_credits)})"


def change(micro_credits: int) -> str:
    """In credits with its sign; empty for nothing."""
    return f"{'+' if micro_credits > 0 else ''}{format_credits(micro_credits)}" if micro_credits else ""


def percent(basis_points: int) -> str:
    """Hundredths of a percent: `50 %` of 5,000."""
    return f"{format_decimal(basis_points, 2)} %"
