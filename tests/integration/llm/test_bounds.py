"""What a call uses stays within the bound that was told before it, even where each byte is a token."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from memoro_core.llm.model import ExtractionSource, Usage
from memoro_core.llm.openai import OpenAIEmbeddingProvider, OpenAIEndpoint, OpenAIExtractionProvider
from memoro_core.llm.openai.extraction import MAX_OUTPUT_TOKENS
from tests.fakes.openai_server import FakeOpenAI, Fault

# Not what a JSON file or a database would not take.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
# Without capitals, of which the provider would make a name that is longer than any answer may be.
LONG = st.builds(
    str.__mul__, st.text(st.characters(exclude_categories=["Cs", "Lu", "Lt"]), min_size=1, max_size=4), st.just(9_000)
)
SPEAKER = st.none() | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=128)
TIME = st.none() | st.datetimes(timezones=st.just(UTC))
TURN = st.text(st.characters(exclude_categories=["Cs"]), max_size=1_200)


def byte_tokens(text: str) -> int:
    return len(text.encode())


@asynccontextmanager
async def expensive() -> AsyncIterator[tuple[FakeOpenAI, OpenAIEndpoint]]:
    """A provider for which each byte is a token."""
    async with FakeOpenAI() as server:
        server.tokens_of = byte_tokens
        async with OpenAIEndpoint(api_key=server.api_key, base_url=server.base_url, timeout=20.0) as endpoint:
            yield server, endpoint


def tokens(usages: Sequence[Usage]) -> tuple[int, int, int]:
    return (
        sum(usage.input_tokens for usage in usages),
        sum(usage.output_tokens for usage in usages),
        sum(usage.items for usage in usages),
    )


def check(usages: Sequence[Usage], bound: Usage) -> None:
    used_in, used_out, items = tokens(usages)
    assert used_in <= bound.input_tokens
    assert used_out <= bound.output_tokens
    assert items == bound.items
    assert {(usage.provider, usage.model, usage.operation) for usage in usages} <= {
        (bound.provider, bound.model, bound.operation)
    }


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(TEXT | LONG, min_size=1, max_size=6), min_size=1, max_size=6))
def test_of_calls_that_share_requests_each_stays_within_its_own(calls: list[list[str]]) -> None:
    async def embed() -> None:
        async with expensive() as (server, endpoint):
            provider = OpenAIEmbeddingProvider(endpoint, model="m", dimensions=server.dimensions)
            answers = await asyncio.gather(*(provider.embed(texts) for texts in calls))
            for texts, answer in zip(calls, answers, strict=True):
                check(answer.usage, provider.bound(texts))
            assert server.billed == sum(tokens(answer.usage)[0] for answer in answers)
            await provider.close()

    asyncio.run(embed())


@settings(max_examples=30, deadline=None)
@given(
    st.builds(ExtractionSource, TEXT | LONG, SPEAKER, TIME, st.lists(TURN, max_size=8)),
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=900), max_size=2),
)
def test_an_extraction_that_has_to_be_asked_for_twice_stays_within_it(source: ExtractionSource, bad: list[str]) -> None:
    async def extract() -> None:
        async with expensive() as (server, endpoint):
            provider = OpenAIExtractionProvider(endpoint, model="m")
            longest = (text.encode()[:MAX_OUTPUT_TOKENS].decode(errors="ignore") for text in bad)
            server.script(
                "chat", *(Fault(content=text + '{"entities": [{"name": "A", "type": "X"}]}') for text in longest)
            )
            found = await provider.extract(source)
            check(found.usage, provider.bound(source))
            assert server.billed == sum(tokens(found.usage)[:2])

    asyncio.run(extract())


def test_the_longest_answers_to_the_longest_prompt_stay_within_it() -> None:
    source = ExtractionSource(
        "\x01" * 70_000, "\x02" * 128, datetime(2026, 1, 2, 3, 4, 5, 678901, UTC), ["\x03" * 2_000] * 9
    )

    async def extract() -> None:
        async with expensive() as (server, endpoint):
            provider = OpenAIExtractionProvider(endpoint, model="m")
            # Without relationships it is no whole answer.
            head, tail = '{"entities": [{"name": "A", "type": "X"}], "more": "', '"}'
            answer = head + "x" * (MAX_OUTPUT_TOKENS - len(head) - len(tail)) + tail
            server.script("chat", *[Fault(content=answer)] * 2)
            found = await provider.extract(source)
            check(found.usage, provider.bound(source))
            assert server.count("chat") == 2
            assert tokens(found.usage)[1] == provider.bound(source).output_tokens

    asyncio.run(extract())
