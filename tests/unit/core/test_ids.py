"""Identifiers."""

from __future__ import annotations

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from memoro_core.ids import new_id, parse_id


def test_ids_are_version_7_and_sorted_by_time() -> None:
    ids = [new_id() for _ in range(1000)]
    assert {made.version for made in ids} == {7}
    assert len(set(ids)) == 1000
    assert ids[0] < ids[-1]


@given(st.uuids())
def test_the_canonical_form_is_read(identifier: UUID) -> None:
    assert parse_id(str(identifier)) == identifier
    assert parse_id(str(identifier).upper()) == identifier


@given(st.text())
def test_nothing_else_is(text: str) -> None:
    parsed = parse_id(text)
    assert parsed is None or str(parsed) == text.lower()


def test_other_spellings_of_a_uuid_are_not_ids() -> None:
    assert parse_id("{12345678-1234-5678-1234-567812345678}") is None
    assert parse_id("12345678123456781234567812345678") is None
