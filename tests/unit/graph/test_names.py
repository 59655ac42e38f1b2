"""Which spellings are one name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoro_core.graph.names import MAX_LABEL_LENGTH, MAX_NAME_LENGTH, clean_label, clean_name, first_name, normalized


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("John Doe", "john doe"),
        ("  John \t Doe\n", "john doe"),
        ("JOHN DOE's", "john doe"),
        ("John Doe\u2019s", "john doe"),
        ("the Joneses'", "the joneses"),
        ('"TechCorp",', "techcorp"),
        ("\uff34\uff45\uff43\uff48", "tech"),
        ("Straße", "strasse"),
        ("AT&T", "at&t"),
        ("O'Neil", "o'neil"),
        ("C++", "c++"),
        ("...", "..."),
        ("", ""),
    ],
)
def test_spellings(name: str, expected: str) -> None:
    assert normalized(name) == expected


@given(st.text())
def test_normalising_twice_changes_nothing(name: str) -> None:
    once = normalized(name)
    assert normalized(once) == once


@given(st.text())
def test_case_and_spaces_never_matter(name: str) -> None:
    assert normalized(f"  {name} ") == normalized(name)
    assert normalized(clean_name(name)) == normalized(name)


@given(st.text())
def test_a_clean_name_can_be_stored_and_shown(name: str) -> None:
    cleaned = clean_name(name)
    cleaned.encode("utf-8")
    assert "\0" not in cleaned
    assert len(cleaned) <= MAX_NAME_LENGTH
    assert cleaned == " ".join(cleaned.split())


@given(st.text())
def test_a_clean_label_is_upper_snake_case(label: str) -> None:
    cleaned = clean_label(label)
    assert len(cleaned) <= MAX_LABEL_LENGTH
    assert cleaned.isascii()
    assert cleaned == cleaned.upper().strip("_")
    assert clean_label(cleaned) == cleaned


def test_labels() -> None:
    assert clean_label("works at") == "WORKS_AT"
    assert clean_label("is-a ") == "IS_A"
    assert clean_label("…") == ""


def test_only_several_words_have_a_first_one() -> None:
    assert first_name("john doe") == "john"
    assert first_name("john") is None
