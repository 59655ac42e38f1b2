"""What the end of a job moves."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from memoro_core.billing.ledger import post
from memoro_core.billing.model import Cost, EntryKind, Hold, LedgerAccount, Price
from memoro_core.billing.settlement import settle
from memoro_core.llm.model import Operation
from tests.support.billing import HOUSE, NOW, USERS, account, amounts, balanced, job

# Of whole micro-credits as well, and of more than a float can count: there it would show if one were used.
costs = st.builds(
    Cost,
    st.integers(0, 10**13) | st.integers(0, 1_000).map(lambda tens: tens * 100_000) | st.integers(0, 10**19),
    amounts,
)
margins = st.sampled_from([0, 1, 333, 1_000, 1_000, 5_000, 10_000])


def held(amount: int, margin: int = 5_000) -> Hold:
    return Hold(job(1), USERS[0], amount, margin, NOW.date(), ())


@settings(deadline=None)
@given(st.integers(1, 10**16), costs, margins)
def test_the_house_and_the_tenant_get_theirs_to_the_fraction(amount: int, cost: Cost, margin: int) -> None:
    settlement = settle(held(amount, margin), cost)
    moved = {place: settlement.movement.postings.get(place, 0) for place in LedgerAccount}
    exact = Fraction(cost.pico_dollars, 10_000) * Fraction(10_000 + margin, 10_000) + cost.fees
    assert settlement.charged == min(-(-exact.numerator // exact.denominator), amount)
    assert moved[LedgerAccount.HELD] == -amount
    assert moved[LedgerAccount.AVAILABLE] == amount - settlement.charged >= 0
    assert moved[LedgerAccount.PROVIDER_COST] == -(-cost.pico_dollars // 10_000)
    assert settlement.charged == sum(moved[place] for place in HOUSE)
    assert moved[LedgerAccount.REVENUE] >= 0 >= moved[LedgerAccount.LOSS] == -settlement.loss
    assert moved[LedgerAccount.ROUNDING] in (0, 1)
    assert not (moved[LedgerAccount.LOSS] and (moved[LedgerAccount.REVENUE] or moved[LedgerAccount.ROUNDING]))
    assert settlement.above_bound == (exact > amount)
    after, _ = post(account(0, amount), [settlement.movement], NOW)
    assert balanced(after)
    assert (after.spent, after.held) == (settlement.charged, 0)


def test_500_tokens_at_a_hundredth_of_a_cent_for_a_thousand_and_half_as_much_again() -> None:
    price = Price("openai", "m", Operation.EMBED, input_price=100_000, output_price=0, fee=0, valid_from=NOW)
    settlement = settle(held(20_000), Cost(price.cost(input_tokens=500, output_tokens=0)))
    assert settlement.charged == 7_500
    assert settlement.movement.kind is EntryKind.SETTLEMENT
    assert settlement.movement.postings == {
        LedgerAccount.AVAILABLE: 12_500,
        LedgerAccount.HELD: -20_000,
        LedgerAccount.REVENUE: 2_500,
        LedgerAccount.PROVIDER_COST: 5_000,
    }


def test_what_needs_no_rounding_is_not_rounded() -> None:
    """In floats, 10 and a tenth of it are a little more than 11."""
    assert [settle(held(10**6, 1_000), Cost(tens * 100_000)).charged for tens in range(1, 8)] == [*range(11, 88, 11)]


def test_what_a_charge_was_rounded_up_by_is_neither_revenue_nor_cost() -> None:
    settlement = settle(held(100), Cost(10_001))
    assert settlement.charged == 2
    assert settlement.movement.postings[LedgerAccount.PROVIDER_COST] == 2
    settlement = settle(held(100), Cost(30_001))
    assert settlement.charged == 5
    moved = settlement.movement.postings
    assert (moved[LedgerAccount.PROVIDER_COST], moved[LedgerAccount.ROUNDING]) == (4, 1)


def test_what_cost_nothing_is_given_back() -> None:
    settlement = settle(held(100), Cost())
    assert settlement.movement.kind is EntryKind.RELEASE
    assert settlement.movement.postings == {LedgerAccount.HELD: -100, LedgerAccount.AVAILABLE: 100}


def test_a_bill_above_the_bound_is_the_loss_of_the_house() -> None:
    settlement = settle(held(100), Cost(3_000_000))
    assert (settlement.charged, settlement.bill, settlement.loss, settlement.above_bound) == (100, 450, 200, True)
    assert settlement.movement.postings == {
        LedgerAccount.HELD: -100,
        LedgerAccount.PROVIDER_COST: 300,
        LedgerAccount.LOSS: -200,
    }


def test_a_bill_that_the_bound_covers_but_not_its_margin_is_no_loss() -> None:
    settlement = settle(held(100), Cost(900_000))
    assert (settlement.charged, settlement.bill, settlement.loss, settlement.above_bound) == (100, 135, 0, True)
