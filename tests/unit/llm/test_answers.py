"""What is read, and what is saved, of a chat model's answer."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memoro_core.llm.openai.answers import (
    MAX_ENTITIES,
    MAX_RELATIONSHIPS,
    SCHEMA,
    Answer,
    AnsweredEntity,
    AnsweredRelationship,
    read_answer,
    to_graph,
)

NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zs")), min_size=1, max_size=12)
ENTITIES = st.fixed_dictionaries(
    {"name": NAMES, "type": st.sampled_from(["PERSON", "PLACE"]), "aliases": st.lists(NAMES, max_size=2)}
)
RELATIONSHIPS = st.fixed_dictionaries(
    {
        "source": NAMES,
        "predicate": st.sampled_from(["MET", "WORKS_AT"]),
        "target": NAMES,
        "confidence": st.floats(0, 1),
        "valid_from": st.sampled_from([None, "2021-05-07"]),
        "valid_to": st.none(),
    }
)
ANSWERS = st.fixed_dictionaries(
    {"entities": st.lists(ENTITIES, max_size=4), "relationships": st.lists(RELATIONSHIPS, max_size=4)}
)


@given(ANSWERS, st.booleans(), st.sampled_from(["", "```json\n", "Sure! Here it is:\n"]))
def test_a_whole_answer_is_read_whole(answer: dict[str, Any], ascii_only: bool, before: str) -> None:
    found = read_answer(before + json.dumps(answer, ensure_ascii=ascii_only) + ("\n```" if before else ""))

    assert found.problem is None
    assert found.answer == Answer.model_validate(answer)


@settings(max_examples=30, deadline=None)
@given(ANSWERS)
def test_of_a_cut_answer_just_the_complete_items_are_kept(answer: dict[str, Any]) -> None:
    """Wherever it is cut, an item is kept if and only if its last brace is there, each value as it was written."""
    text = json.dumps(answer)
    whole = Answer.model_validate(answer)
    for cut in range(len(text)):
        found = read_answer(text[:cut])

        assert found.problem is not None
        kept = _complete(answer["entities"], text, cut, "entities")
        assert found.answer.entities == whole.entities[:kept]
        kept = _complete(answer["relationships"], text, cut, "relationships")
        assert found.answer.relationships == whole.relationships[:kept]


def _complete(items: list[Any], text: str, cut: int, name: str) -> int:
    position = text.index(f'"{name}": [') + len(name) + 5
    for index, item in enumerate(items):
        position += len(json.dumps(item)) + (2 if index else 0)
        if position > cut:
            return index
    return len(items)


@given(st.text())
def test_any_text_at_all_is_survived(text: str) -> None:
    found = read_answer(text)

    assert found.problem is None or isinstance(found.problem, str)


@pytest.mark.parametrize(
    "text",
    ["", "no", "[]", "{", "{}", '{"entities": 1}', "{" * 5000, "[" * 100 + "{" + "[" * 100_000, '{"entities": [{}]}'],
)
def test_what_is_no_answer_says_what_is_wrong(text: str) -> None:
    found = read_answer(text)

    assert found.problem
    assert not found


def test_a_problem_does_not_repeat_the_answers_words() -> None:
    found = read_answer('{"entities": [{"name": 5, "type": {"secret": "words"}}], "relationships": []}')

    assert found.problem is not None
    assert "entities.0.name" in found.problem
    assert "secret" not in found.problem


def test_valid_items_survive_bad_neighbours() -> None:
    good = {"name": "Alice", "type": "person", "aliases": []}
    found = read_answer(json.dumps({"entities": [good, {"name": ""}, 7], "relationships": "none"}))

    assert found.problem
    assert [entity.name for entity in found.answer.entities] == ["Alice"]
    assert found.answer.entities[0].type == "PERSON"


def test_values_are_brought_into_shape() -> None:
    relationship = AnsweredRelationship.model_validate(
        {
            "source": "  Al\x00ice\n Smith ",
            "predicate": "works at",
            "target": "x" * 500,
            "confidence": 7,
            "valid_from": "2021",
            "valid_to": "0001-01-01T00:00:00+14:00",
        }
    )

    assert relationship.source == "Al ice Smith"
    assert relationship.predicate == "WORKS_AT"
    assert len(relationship.target) == 120
    assert relationship.confidence == 1.0
    assert relationship.valid_from == datetime(2021, 1, 1, tzinfo=UTC)
    assert relationship.valid_to is None


def test_ends_are_matched_to_entities() -> None:
    answer = Answer(
        entities=[AnsweredEntity(name="Robert Smith", type="PERSON", aliases=["Bob"])],
        relationships=[
            AnsweredRelationship(source="bob", predicate="KNOWS", target="Chess"),
            AnsweredRelationship(source="Robert smith", predicate="KNOWS", target="chess"),
            AnsweredRelationship(source="Bob", predicate="IS", target="Robert Smith"),
        ],
    )

    entities, relationships, cut = to_graph(answer)

    assert [(entity.name, entity.type, entity.aliases) for entity in entities] == [
        ("Robert Smith", "PERSON", ("Bob",)),
        ("Chess", "TOPIC", ()),
    ]
    assert [(one.source, one.predicate, one.target) for one in relationships] == [("Robert Smith", "KNOWS", "Chess")]
    assert not cut


def test_too_much_is_cut() -> None:
    answer = Answer(
        entities=[AnsweredEntity(name=f"E{index}", type="TOPIC") for index in range(100)],
        relationships=[
            AnsweredRelationship(source="E0", predicate=f"P{index}", target="E1")
            for index in range(MAX_RELATIONSHIPS + 1)
        ],
    )

    entities, relationships, cut = to_graph(answer)

    assert (len(entities), len(relationships), cut) == (MAX_ENTITIES, MAX_RELATIONSHIPS, True)


def test_the_schema_asks_for_what_is_read() -> None:
    """Strict mode wants every property required and no others."""

    def check(schema: dict[str, Any], model: Any) -> None:
        items = schema["items"]
        assert set(items["properties"]) == set(items["required"]) == set(model.model_fields)
        assert items["additionalProperties"] is False

    assert set(SCHEMA["properties"]) == set(SCHEMA["required"]) == set(Answer.model_fields)
    check(SCHEMA["properties"]["entities"], AnsweredEntity)
    check(SCHEMA["properties"]["relationships"], AnsweredRelationship)
