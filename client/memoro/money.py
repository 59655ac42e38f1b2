"""Money as text, exactly: amounts are integers everywhere, and no float ever comes near them.

A credit is a US cent and has 1,000,000 micro-credits; a dollar has 100 credits. What providers charge is in
nano-dollars, of which a micro-credit has ten.
"""

from __future__ import annotations

import re
from typing import Final

MICRO_CREDITS_PER_CREDIT: Final = 1_000_000
MICRO_CREDITS_PER_DOLLAR: Final = 100_000_000

_CREDIT_PLACES: Final = 6
_DOLLAR_PLACES: Final = 8
_NANO_DOLLAR_PLACES: Final = 9
_CENTS: Final = 2

_DECIMAL = re.compile(r"([0-9]{1,18})(?:\.([0-9]{1,18}))?")


def parse_credits(text: str) -> int:
    """The micro-credits of an amount in credits: 12,500,000 of `12.5`. Raises ValueError for what they can't tell."""
    return parse_decimal(text, _CREDIT_PLACES)


def format_credits(micro_credits: int) -> str:
    """An amount in credits: `12.5` of 12,500,000 micro-credits."""
    return format_decimal(micro_credits, _CREDIT_PLACES)


def format_dollars(micro_credits: int) -> str:
    """An amount in dollars, with cents at least: `$0.125` of 12,500,000 micro-credits."""
    return _dollars(micro_credits, _DOLLAR_PLACES)


def format_nano_dollars(nano_dollars: int) -> str:
    """What a provider charges, in dollars: `$0.00005` of 50,000 nano-dollars."""
    return _dollars(nano_dollars, _NANO_DOLLAR_PLACES)


def parse_decimal(text: str, places: int) -> int:
    """A decimal number in units of its last place: 1,250,000 of `1.25` with 6 places.

    Raises ValueError for what is not a number from 0 up in plain digits, or has more places than these.
    """
    matched = _DECIMAL.fullmatch(text.strip())
    if matched is None:
        raise ValueError(f"{text!r} is not an amount: digits, and a point where needed, e.g. 12.5")
    whole, fraction = matched[1], matched[2] or ""
    if len(fraction.rstrip("0")) > places:
        raise ValueError(f"{text!r} is too fine: at most {places} digits after the point")
    return int(whole + fraction[:places].ljust(places, "0"))


def format_decimal(units: int, places: int, *, least: int = 0) -> str:
    """The other way round, without zeros at the end but `least` digits after the point."""
    whole, part = divmod(abs(units), 10**places)
    fraction = f"{part:0{places}d}".rstrip("0").ljust(least, "0")
    return f"{'-' if units < 0 else ''}{whole}{'.' if fraction else ''}{fraction}"


def _dollars(units: int, places: int) -> str:
    sign = "-" if units < 0 else ""
    return f"{sign}${format_decimal(abs(units), places, least=_CENTS)}"
