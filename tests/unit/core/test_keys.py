"""API keys as texts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoro_core.tenancy.keys import MAX_LENGTH, new_key, parse_key


def test_a_new_key_reads_back_and_fits_a_bearer_header() -> None:
    key = new_key()
    assert parse_key(str(key)) == key
    assert str(key).isascii()
    assert len(str(key)) <= MAX_LENGTH


def test_keys_differ() -> None:
    keys = [new_key() for _ in range(100)]
    assert len({key.prefix for key in keys}) == len({key.secret for key in keys}) == 100


def test_only_the_right_secret_matches() -> None:
    key, other = new_key(), new_key()
    assert key.matches(key.secret_hash)
    assert not other.matches(key.secret_hash)


def test_a_secret_does_not_show_when_a_key_is_logged() -> None:
    key = new_key()
    assert key.secret not in repr(key)
    assert key.prefix in repr(key)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "memoro",
        "memoro_",
        "memoro_abc_def",
        f"other_{'a' * 16}_{'b' * 64}",
        f"memoro_{'a' * 16}_{'é' * 64}",
        f"memoro_{chr(0) * 16}_{'b' * 64}",
        f"memoro_{'A' * 16}_{'b' * 64}",
        f"memoro_{'a' * 16}_{'b' * 64}x",
    ],
)
def test_what_is_no_key_is_none(text: str) -> None:
    assert parse_key(text) is None


@given(st.text())
def test_no_text_makes_parsing_fail(text: str) -> None:
    parse_key(text)
