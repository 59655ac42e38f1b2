"""Units of money, and the one place where it is rounded.

Credits are integer micro-credits: a credit is a US cent and has 1,000,000 of them. What providers charge is in integer
pico-dollars, because a token of a cheap model costs a fraction of a nano-dollar; a price of so many micro-dollars for a
million tokens is as many pico-dollars for a token.
"""

from __future__ import annotations

from typing import Final

MICRO_CREDITS_PER_CREDIT: Final = 1_000_000
PICO_DOLLARS_PER_MICRO_CREDIT: Final = 10_000
PICO_DOLLARS_PER_NANO_DOLLAR: Final = 1_000
BASIS_POINTS: Final = 10_000
MAX_MICRO_CREDITS: Final = 10**15
"""The most that one grant, balance or budget can be: ten million dollars."""


def charge(cost_pico_dollars: int, fees: int, *, margin_basis_points: int) -> int:
    """What a tenant pays for a job, in micro-credits: cost with margin, rounded up once, and the fees."""
    with_margin = cost_pico_dollars * (BASIS_POINTS + margin_basis_points)
    return ceiling(with_margin, BASIS_POINTS * PICO_DOLLARS_PER_MICRO_CREDIT) + fees


def nano_dollars(cost_pico_dollars: int) -> int:
    """A provider's charge in nano-dollars, rounded up."""
    return ceiling(cost_pico_dollars, PICO_DOLLARS_PER_NANO_DOLLAR)


def ceiling(dividend: int, divisor: int) -> int:
    """The quotient rounded up, without floats."""
    return -(-dividend // divisor)
