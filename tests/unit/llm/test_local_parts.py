"""The parts that local extraction is made of."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoro_core.llm.dates import absolute_date
from memoro_core.llm.local.pieces import split_pieces
from memoro_core.llm.local.predicates import MAX_PREDICATE_CHARS, snake
from memoro_core.llm.local.referents import Gender, gender_of
from memoro_core.llm.local.verbs import past, present


@pytest.mark.parametrize(
    ("lemma", "third_person", "simple_past"),
    [
        ("work", "works", "worked"),
        ("study", "studies", "studied"),
        ("play", "plays", "played"),
        ("watch", "watches", "watched"),
        ("go", "goes", "went"),
        ("have", "has", "had"),
        ("be", "is", "was"),
        ("buy", "buys", "bought"),
        ("plan", "plans", "planned"),
        ("visit", "visits", "visited"),
        ("love", "loves", "loved"),
        ("fix", "fixes", "fixed"),
        ("refer", "refers", "referred"),
        ("join", "joins", "joined"),
        ("write", "writes", "wrote"),
    ],
)
def test_verb_forms(lemma: str, third_person: str, simple_past: str) -> None:
    assert present(lemma) == third_person
    assert past(lemma) == simple_past


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2021", datetime(2021, 1, 1, tzinfo=UTC)),
        ("May 2021", datetime(2021, 5, 1, tzinfo=UTC)),
        ("Sept. 2021", datetime(2021, 9, 1, tzinfo=UTC)),
        ("7 May 2021", datetime(2021, 5, 7, tzinfo=UTC)),
        ("the 7th of May 2021", datetime(2021, 5, 7, tzinfo=UTC)),
        ("May 7th, 2021", datetime(2021, 5, 7, tzinfo=UTC)),
        ("April 1, 1976", datetime(1976, 4, 1, tzinfo=UTC)),
        ("2021-05-07", datetime(2021, 5, 7, tzinfo=UTC)),
        ("2021-05", datetime(2021, 5, 1, tzinfo=UTC)),
        ("last Tuesday", None),
        ("31 February 2021", None),
        ("Foo 2021", None),
        ("15", None),
        ("", None),
    ],
)
def test_absolute_dates(text: str, moment: datetime | None) -> None:
    assert absolute_date(text) == moment


@given(st.text(st.sampled_from("ab .!?\n((_é🎉"), max_size=400), st.integers(1, 50))
def test_pieces_lose_nothing_but_space_and_runs(text: str, limit: int) -> None:
    pieces = list(split_pieces(text, limit=limit))

    assert all(0 < len(piece) <= limit for piece in pieces)
    assert all(piece == piece.strip() for piece in pieces)

    def letters(value: str) -> str:
        return "".join(character for character in value if character.isalpha())

    assert letters("".join(pieces)) == letters(text)


def test_pieces_end_with_sentences() -> None:
    text = "One is here. Two is there! Is three anywhere? Four."

    assert list(split_pieces(text, limit=30)) == ["One is here. Two is there!", "Is three anywhere? Four."]


def test_runs_of_punctuation_are_shortened() -> None:
    assert list(split_pieces("Wow" + "!" * 500 + "-" * 500)) == ["Wow!!!---"]


@given(st.lists(st.text(max_size=30), max_size=10))
def test_predicates_are_upper_snake_case(words: list[str]) -> None:
    name = snake(*words)

    assert len(name) <= MAX_PREDICATE_CHARS
    assert all(part.isascii() and part.isalnum() and part == part.upper() for part in name.split("_") if name)


@pytest.mark.parametrize(
    ("name", "gender"),
    [
        ("Mary", Gender.FEMININE),
        ("John Doe", Gender.MASCULINE),
        ("Mrs. Jones", Gender.FEMININE),
        ("Ann's brother", Gender.MASCULINE),
        ("Tom's sister", Gender.FEMININE),
        ("Robin", None),
    ],
)
def test_what_a_name_tells_of_gender(name: str, gender: Gender | None) -> None:
    assert gender_of(name) is gender
