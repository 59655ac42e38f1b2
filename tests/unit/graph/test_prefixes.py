"""Prefixes as ranges of names."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from memoro_core.graph.service import names_beginning_with

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)


@given(TEXT.filter(bool), TEXT)
def test_a_name_is_in_the_range_exactly_when_it_begins_with_the_prefix(prefix: str, name: str) -> None:
    names = names_beginning_with(prefix)
    assert names is not None
    for candidate in (name, prefix + name):
        # UTF-8 sorts by code point, as the database does.
        inside = names.start.encode() <= candidate.encode() and (
            names.end is None or candidate.encode() < names.end.encode()
        )
        assert inside == candidate.startswith(prefix)


def test_nothing_is_every_name() -> None:
    assert names_beginning_with("") is None
    last = names_beginning_with("\U0010ffff")
    assert last is not None
    assert last.end is None
