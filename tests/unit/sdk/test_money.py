"""Money as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoro import format_credits, format_dollars, format_nano_dollars, parse_credits
from memoro.money import MICRO_CREDITS_PER_CREDIT, MICRO_CREDITS_PER_DOLLAR, format_decimal, parse_decimal


@pytest.mark.parametrize(
    ("text", "micro_credits"),
    [
        ("0", 0),
        ("12.5", 12_500_000),
        (" 1 ", MICRO_CREDITS_PER_CREDIT),
        ("0.0075", 7_500),
        ("0.000001", 1),
        ("0.0000010", 1),
        ("00.50", 500_000),
        # As a float, it would be one less.
        ("9007199254.740993", 9_007_199_254_740_993),
    ],
)
def test_credits_are_read_exactly(text: str, micro_credits: int) -> None:
    assert parse_credits(text) == micro_credits


@pytest.mark.parametrize(
    "text", ["", ".", "1.", ".5", "-1", "+1", "1e3", "1,5", "1_000", "nan", "inf", "٣", "0.0000001", "1 000", "1" * 19]
)
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not an amount|is too fine"):
        parse_credits(text)


@given(st.integers(min_value=0, max_value=10**17))
def test_what_is_shown_can_be_entered(micro_credits: int) -> None:
    assert parse_credits(format_credits(micro_credits)) == micro_credits


@given(st.integers(min_value=-(10**17), max_value=10**17), st.integers(min_value=0, max_value=9))
def test_a_sign_is_a_sign(units: int, places: int) -> None:
    text = format_decimal(units, places)
    assert text.startswith("-") == (units < 0)
    assert parse_decimal(text.removeprefix("-"), places) == abs(units)


def test_dollars() -> None:
    assert format_dollars(7_500) == "$0.000075"
    assert format_dollars(MICRO_CREDITS_PER_DOLLAR) == "$1.00"
    assert format_dollars(-12_500_000) == "-$0.125"
    assert format_dollars(50_000_000) == "$0.50"
    assert format_nano_dollars(50_000) == "$0.00005"
    assert format_nano_dollars(0) == "$0.00"
