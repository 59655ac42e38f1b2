"""Pages and their tokens."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoro_core.errors import Code, MemoroError, Reason
from memoro_core.paging import cut, decode_token, encode_token, identifier, page_size

POSITIONS = st.lists(st.text(max_size=40), max_size=4).map(tuple)


@given(list_key=st.text(), position=POSITIONS)
def test_a_token_brings_its_position_back(list_key: str, position: tuple[str, ...]) -> None:
    token = encode_token(list_key, position)
    assert decode_token(list_key, token) == position
    assert token.isascii()


def test_no_position_is_an_empty_token() -> None:
    assert encode_token("list", None) == ""
    assert decode_token("list", "") is None


@given(key=st.text(), other=st.text(), position=POSITIONS)
def test_a_token_fits_no_other_list(key: str, other: str, position: tuple[str, ...]) -> None:
    if key == other:
        return
    with pytest.raises(MemoroError) as caught:
        decode_token(other, encode_token(key, position))
    assert caught.value.reason is Reason.PAGE_TOKEN_INVALID


@given(token=st.text(min_size=1))
def test_garbage_is_refused_with_a_violation(token: str) -> None:
    with pytest.raises(MemoroError) as caught:
        decode_token("list", token)
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert caught.value.violations[0].field == "page_token"


@pytest.mark.parametrize(("requested", "size"), [(0, 50), (1, 1), (500, 500), (501, 500), (2**31 - 1, 500)])
def test_page_sizes_are_coerced(requested: int, size: int) -> None:
    assert page_size(requested) == size


def test_a_negative_page_size_is_refused() -> None:
    with pytest.raises(MemoroError) as caught:
        page_size(-1)
    assert caught.value.reason is Reason.INVALID_FIELD


@given(rows=st.lists(st.integers(), max_size=12), size=st.integers(1, 10))
def test_a_page_is_cut_where_a_further_row_shows_that_more_follows(rows: list[int], size: int) -> None:
    page = cut(rows[: size + 1], size, ("after",))
    assert list(page.items) == rows[:size]
    assert (page.next_position is None) == (len(rows) <= size)


@given(st.uuids())
def test_an_id_in_a_position_is_read(made: UUID) -> None:
    assert identifier(("name", str(made)), 1) == made


@given(position=POSITIONS)
def test_a_made_up_position_is_an_invalid_token_and_no_failure(position: tuple[str, ...]) -> None:
    with pytest.raises(MemoroError) as caught:
        identifier(position)
    assert caught.value.reason is Reason.PAGE_TOKEN_INVALID
