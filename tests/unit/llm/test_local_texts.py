"""What local extraction does with texts that are long, odd, or part of a conversation."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memoro_core.errors import ProviderError
from memoro_core.llm.local import LocalExtractionProvider
from memoro_core.llm.local.extraction import PIPELINE
from memoro_core.llm.local.graph import MAX_ENTITIES, MAX_RELATIONSHIPS
from memoro_core.llm.model import Extraction, ExtractionSource, Operation

JUMBLE = (
    "Alice Bob's she her it they who that if not never is was to of by from and or , . ? ! : - ( ) \" ' 15 2021 a the "
    "my iPhone TechCorp bought works named called sister dog living been going 🎉 \n ‘ é"
)


def triples(found: Extraction) -> set[str]:
    return {f"{one.source} {one.predicate} {one.target}" for one in found.relationships}


async def test_pronouns_reach_back_into_the_conversation(extraction_provider: LocalExtractionProvider) -> None:
    preceding = ["Ben: I saw Melanie and Tom yesterday.", "Ann: Oh, how is Melanie?"]

    found = await extraction_provider.extract(
        ExtractionSource("She moved to Denver with him.", speaker="Ben", preceding=preceding)
    )

    assert triples(found) == {"Melanie MOVED_TO Denver", "Melanie MOVED_WITH Tom"}


async def test_an_earlier_speaker_may_be_meant(extraction_provider: LocalExtractionProvider) -> None:
    found = await extraction_provider.extract(
        ExtractionSource("He lives in Oslo.", speaker="Ann", preceding=["Ben: I have to leave now."])
    )

    assert triples(found) == {"Ben LIVES_IN Oslo"}


async def test_facts_come_from_the_text_alone(extraction_provider: LocalExtractionProvider) -> None:
    found = await extraction_provider.extract(
        ExtractionSource("She is late.", preceding=["Ben: Maria works at Siemens."])
    )

    assert not found.relationships
    assert not found.entities


async def test_a_pronoun_without_anyone_to_stand_for_says_nothing(extraction_provider: LocalExtractionProvider) -> None:
    found = await extraction_provider.extract(ExtractionSource("She bought it from them. I like him."))

    assert not found.entities
    assert not found.relationships


async def test_a_part_of_a_name_is_an_alias(extraction_provider: LocalExtractionProvider) -> None:
    found = await extraction_provider.extract(ExtractionSource("John Doe lives in Rome. Doe met Ann Lee in Berlin."))

    assert {entity.name: entity.aliases for entity in found.entities}["John Doe"] == ("Doe",)
    assert "John Doe MET Ann Lee" in triples(found)


async def test_dates_bound_what_they_date(extraction_provider: LocalExtractionProvider) -> None:
    found = await extraction_provider.extract(
        ExtractionSource("Lena has been married to Tom since 12 May 2015. Ann worked at Siemens until 2019.")
    )

    periods = {one.predicate: (one.valid_from, one.valid_to) for one in found.relationships}
    assert periods["MARRIED_TO"] == (datetime(2015, 5, 12, tzinfo=UTC), None)
    assert periods["WORKED_AT"] == (None, datetime(2019, 1, 1, tzinfo=UTC))


async def test_doubt_lowers_confidence(extraction_provider: LocalExtractionProvider) -> None:
    stated = await extraction_provider.extract(ExtractionSource("Mark left Microsoft."))
    reported = await extraction_provider.extract(ExtractionSource("Sam said that Mark left Microsoft."))
    possible = await extraction_provider.extract(ExtractionSource("Mark might leave Microsoft."))

    def confidence(found: Extraction) -> float:
        return next(one.confidence for one in found.relationships if one.target == "Microsoft")

    assert confidence(stated) == 1.0
    assert confidence(reported) < 1.0
    assert confidence(possible) < 1.0


@pytest.mark.parametrize(
    "text",
    ["", " ", "\n\n\t", "🎉", "😀🎉" * 5000, "?!", "0", "...", "a" * 65_536, "((((" * 16_384, "([{<" * 9000, "\u200b"],
)
async def test_nothing_is_found_where_nothing_is(extraction_provider: LocalExtractionProvider, text: str) -> None:
    found = await extraction_provider.extract(ExtractionSource(text))

    assert not found.entities
    assert not found.relationships
    assert not found.partial


async def test_emoji_do_not_hide_facts(extraction_provider: LocalExtractionProvider) -> None:
    found = await extraction_provider.extract(ExtractionSource("🎉🎉🎉 Alice works at Initech!!! 🚀🚀"))

    assert "Alice WORKS_AT Initech" in triples(found)
    assert {entity.name for entity in found.entities} == {"Alice", "Initech"}


@pytest.mark.parametrize(
    "text",
    [
        "Ich habe gestern in Berlin mit Anna gearbeitet und wir haben viel gelacht.",
        "Hier j'ai rencontré Marie à Paris et nous avons mangé une pizza ensemble.",
        "Ayer compré un coche nuevo en Madrid y luego fui a casa de mi hermano.",
        "昨日東京で田中さんに会いました。",
        "Вчера я встретил Анну в Москве, и мы долго гуляли по городу.",
    ],
)
async def test_other_languages_give_no_made_up_facts(extraction_provider: LocalExtractionProvider, text: str) -> None:
    found = await extraction_provider.extract(ExtractionSource(text, speaker="Ann"))

    assert not found.relationships


async def test_the_longest_text_is_read_to_its_end_in_time(extraction_provider: LocalExtractionProvider) -> None:
    filler = "The weather was fine and the bread tasted good. " * 1400
    text = ("Alice works at Initech. " + filler)[: 65_536 - 40] + " Bob lives in Lisbon."
    begun = time.monotonic()

    found = await extraction_provider.extract(ExtractionSource(text))

    assert time.monotonic() - begun < 30
    assert {"Alice WORKS_AT Initech", "Bob LIVES_IN Lisbon"} <= triples(found)
    assert not found.partial


async def test_what_is_too_long_is_cut_and_said_so(extraction_provider: LocalExtractionProvider) -> None:
    found = await extraction_provider.extract(ExtractionSource("\n" * 65_536 + "Bob lives in Lisbon."))

    assert not found.relationships
    assert found.partial


async def test_a_text_full_of_names_stays_within_the_limits(extraction_provider: LocalExtractionProvider) -> None:
    places = ["Paris", "Rome", "Oslo", "Cairo", "Lima", "Tokyo", "Delhi", "Quito", "Seoul", "Accra"]
    last_names = ("Smith", "Jones", "Brown", "Clark")
    people = [f"{first} {last}" for first in ("Ann", "Bob", "Carl", "Dora") for last in last_names]
    text = " ".join(f"{person} lived in {', '.join(places[:9])} and {places[9]}." for person in people)
    text += " ".join(f" {person} visited Mount Number{index}." for index, person in enumerate(people * 4))

    found = await extraction_provider.extract(ExtractionSource(text))

    assert len(found.entities) <= MAX_ENTITIES
    assert len(found.relationships) == MAX_RELATIONSHIPS
    assert found.partial


async def test_usage_counts_tokens(extraction_provider: LocalExtractionProvider) -> None:
    (usage,) = (await extraction_provider.extract(ExtractionSource("Alice works at Initech."))).usage

    assert (usage.provider, usage.model, usage.operation) == ("local", PIPELINE, Operation.EXTRACT)
    assert (usage.input_tokens, usage.output_tokens) == (5, 0)


async def test_concurrent_texts_keep_apart(extraction_provider: LocalExtractionProvider) -> None:
    names = ["Alice", "Maria", "Peter", "Susan", "Frank", "Julia"] * 6
    sources = [ExtractionSource(f"I live with {name} in Rome.", speaker=f"Speaker{i}") for i, name in enumerate(names)]

    results = await asyncio.gather(*(extraction_provider.extract(source) for source in sources))

    for index, (name, found) in enumerate(zip(names, results, strict=True)):
        assert f"Speaker{index} LIVES_WITH {name}" in triples(found)
        assert {one.source for one in found.relationships} == {f"Speaker{index}"}


async def test_the_loop_goes_on_while_a_text_is_read(extraction_provider: LocalExtractionProvider) -> None:
    task = asyncio.create_task(extraction_provider.extract(ExtractionSource("Alice met Bob in Paris. " * 600)))
    ticks = 0
    while not task.done():
        await asyncio.sleep(0.001)
        ticks += 1

    await task
    assert ticks > 20


async def test_a_closing_provider_turns_callers_away() -> None:
    provider = LocalExtractionProvider()
    await provider.close()

    with pytest.raises(ProviderError) as caught:
        await provider.extract(ExtractionSource("Alice met Bob."))
    assert caught.value.retryable


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.lists(
        st.sampled_from(JUMBLE.split(" ")),
        max_size=40,
    ).map(" ".join),
    speaker=st.sampled_from([None, "Ann", "O'Neil"]),
)
def test_any_jumble_gives_a_sound_graph(
    extraction_provider: LocalExtractionProvider, text: str, speaker: str | None
) -> None:
    found = asyncio.run(extraction_provider.extract(ExtractionSource(text, speaker=speaker)))

    names = [entity.name for entity in found.entities]
    assert len({name.casefold() for name in names}) == len(names)
    for entity in found.entities:
        assert entity.name == entity.name.strip() != ""
        assert entity.type.isupper()
    for one in found.relationships:
        assert one.source in names
        assert one.target in names
        assert one.source != one.target
        assert 0 < one.confidence <= 1
        assert one.predicate.replace("_", "").isalnum()
        assert one.predicate.isupper()
        assert len(one.predicate) <= 64
