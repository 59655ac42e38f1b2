"""The most that the work on memories may cost."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memoro_core.billing import money
from memoro_core.billing.bounds import CostBounds
from memoro_core.errors import Code, MemoroError, Reason
from memoro_core.ids import ConversationId, JobId, UserId, new_id
from memoro_core.llm.local import LocalEmbeddingProvider
from memoro_core.llm.model import ExtractionSource, Operation
from memoro_core.llm.openai import OpenAIEmbeddingProvider, OpenAIEndpoint, OpenAIExtractionProvider
from memoro_core.memory.drafting import draft_messages, draft_text
from memoro_core.memory.enrichment import text_to_embed
from memoro_core.memory.enrichment_ports import MAX_PRECEDING, MAX_PRECEDING_CHARS
from memoro_core.memory.model import Memory, NewConversation, NewMemory, NewMessage
from tests.support.pricing import FixedPrices

NOW = datetime(2026, 1, 2, tzinfo=UTC)
ALICE = UserId("alice")
ENDPOINT = OpenAIEndpoint(api_key="no call is made")
EMBEDDER = OpenAIEmbeddingProvider(ENDPOINT, model="m", dimensions=8)
EXTRACTOR = OpenAIExtractionProvider(ENDPOINT, model="m")
PRICE = st.integers(0, 10**10)
WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=600)


def text(words: str) -> Memory:
    return draft_text(NewMemory(ALICE, words), JobId(new_id()), NOW)


def messages(*words: str) -> list[Memory]:
    new = NewConversation(ALICE, ConversationId("c"), [NewMessage(one, speaker="Ann") for one in words])
    return list(draft_messages(new, JobId(new_id()), NOW))


def bounds(prices: FixedPrices, *, margin: int = 5_000, extracts: bool = True) -> CostBounds:
    return CostBounds(prices, EMBEDDER, EXTRACTOR if extracts else None, margin_basis_points=margin)


def test_500_tokens_at_a_hundredth_of_a_cent_for_a_thousand_with_half_on_top() -> None:
    """$0.0001 for 1,000 tokens are $0.10 for a million: 100,000 micro-dollars, and as many pico-dollars for a token."""
    charge = money.charge(500 * 100_000, 0, margin_basis_points=5_000)
    assert charge == 7_500
    # $0.000075, a credit being a cent.
    assert charge * 10**-8 == pytest.approx(0.000075)


def test_nothing_is_measured_where_nothing_costs_anything() -> None:
    prices = FixedPrices()
    assert bounds(prices).bound([text("x" * 10_000)], at=NOW) == 0
    assert bounds(prices).free(NOW)
    prices.set(Operation.EXTRACT, fee=1)
    assert not bounds(prices).free(NOW)


def test_a_fee_is_for_each_text_and_without_margin() -> None:
    prices = FixedPrices()
    prices.set(Operation.EMBED, fee=7)
    prices.set(Operation.EXTRACT, fee=5)
    assert bounds(prices).bound(messages("one", "two", "three"), at=NOW) == 3 * (7 + 5)
    assert bounds(prices, extracts=False).bound(messages("one", "two", "three"), at=NOW) == 3 * 7


@settings(deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=4), PRICE, PRICE, PRICE, st.integers(0, 10**6), st.integers(0, 100_000))
def test_an_estimate_has_the_lines_that_the_bound_is_made_of(
    words: list[str], embed: int, read: int, written: int, fee: int, margin: int
) -> None:
    prices = FixedPrices()
    prices.set(Operation.EMBED, input_price=embed, fee=fee)
    prices.set(Operation.EXTRACT, input_price=read, output_price=written)
    reckoned, memories = bounds(prices, margin=margin), messages(*words)
    lines = reckoned.estimate(memories, at=NOW)
    assert [line.usage.operation for line in lines] == [Operation.EMBED, Operation.EXTRACT]
    assert [line.usage.items for line in lines] == [len(words)] * 2
    assert reckoned.bound(memories, at=NOW) == money.charge(
        sum(line.pico_dollars for line in lines), fee * len(words), margin_basis_points=margin
    )


@settings(deadline=None)
@given(
    st.lists(WORDS, min_size=1, max_size=4),
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=MAX_PRECEDING_CHARS), max_size=MAX_PRECEDING),
)
def test_a_job_is_bounded_whatever_turns_it_finds_before_its_messages(words: list[str], turns: list[str]) -> None:
    prices = FixedPrices()
    prices.set(Operation.EMBED, input_price=3)
    prices.set(Operation.EXTRACT, input_price=5, output_price=11)
    memories = messages(*words)
    asked = [
        EXTRACTOR.bound(ExtractionSource(memory.text, memory.speaker, memory.occurred_at, turns)) for memory in memories
    ]
    cost = 3 * EMBEDDER.bound([text_to_embed(memory) for memory in memories]).input_tokens
    cost += sum(5 * usage.input_tokens + 11 * usage.output_tokens for usage in asked)
    assert bounds(prices).bound(memories, at=NOW) >= money.charge(cost, 0, margin_basis_points=5_000)


def test_what_has_no_price_is_refused_by_its_name() -> None:
    prices = FixedPrices()
    del prices.prices[Operation.EMBED]
    with pytest.raises(MemoroError) as caught:
        CostBounds(prices, LocalEmbeddingProvider(), None, margin_basis_points=0).bound([text("hello")], at=NOW)
    assert (caught.value.code, caught.value.reason) == (Code.FAILED_PRECONDITION, Reason.PRICE_UNKNOWN)
    assert caught.value.metadata == {"provider": "local", "model": "wordllama-l2-supercat", "operation": "embed"}
