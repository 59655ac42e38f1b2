"""Whether what is set aside covers what is spent and asked for."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoro_core.billing.calls import cost_of, hash_of, is_free, shortage
from memoro_core.billing.model import Cost, Price
from memoro_core.billing.money import charge
from memoro_core.llm.model import Operation, Usage

COSTS = st.builds(Cost, st.integers(0, 10**15), st.integers(0, 10**9))
SMALL = Usage("openai", "small", Operation.EMBED, 1_000, 10, items=3)


def price(input_price: int, output_price: int, fee: int) -> Price:
    return Price("openai", "small", Operation.EMBED, input_price, output_price, fee, datetime(2020, 1, 1, tzinfo=UTC))


@given(st.integers(0, 10**12), COSTS, st.lists(COSTS, max_size=5), st.integers(0, 20_000))
def test_what_is_missing_is_exactly_what_makes_it_enough(
    held: int, spent: Cost, asked: list[Cost], margin: int
) -> None:
    missing = shortage(held, spent, asked, margin_basis_points=margin)
    total = sum(asked, spent)
    bill = charge(total.pico_dollars, total.fees, margin_basis_points=margin)
    assert held + missing >= bill
    assert missing == 0 or held + missing == bill


@given(COSTS, st.lists(COSTS, max_size=5), st.integers(0, 20_000))
def test_calls_one_by_one_need_no_more_than_together(spent: Cost, asked: list[Cost], margin: int) -> None:
    held = 0
    for number, one in enumerate(asked):
        before = sum(asked[:number], spent)
        held += shortage(held, before, [one], margin_basis_points=margin)
    together = shortage(0, spent, asked, margin_basis_points=margin)
    assert held == (together if asked else 0)


def test_what_a_call_costs() -> None:
    assert cost_of(price(20, 600, 7), SMALL) == Cost(1_000 * 20 + 10 * 600, 21)


@pytest.mark.parametrize(
    ("prices", "free"), [((0, 0, 0), True), ((1, 0, 0), False), ((0, 1, 0), False), ((0, 0, 1), False)]
)
def test_what_is_free(prices: tuple[int, int, int], free: bool) -> None:
    assert is_free(price(*prices)) is free


def test_a_request_is_the_same_when_all_of_it_is() -> None:
    hashes = {
        hash_of(usage, request)
        for usage in (
            SMALL,
            Usage("openai", "smal", Operation.EMBED, 1),
            Usage("openai", "small", Operation.EXTRACT, 1),
            Usage("local", "small", Operation.EMBED, 1),
        )
        for request in (b"", b"l", b"text")
    }
    assert len(hashes) == 12
    assert hash_of(SMALL, b"text") == hash_of(Usage("openai", "small", Operation.EMBED, 5), b"text")
