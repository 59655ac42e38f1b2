"""How an endpoint's vectors, usage and wishes to wait are read."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoro_core.errors import ProviderError
from memoro_core.llm.openai.failures import MAX_RETRY_AFTER, retry_after
from memoro_core.llm.openai.vectors import read_tokens, read_vectors, share_tokens

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after": "Sun, 01 Mar 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Sun, 01 Mar 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after": "-5"}, 0.0),
        ({"retry-after": "1e9"}, MAX_RETRY_AFTER),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after-ms": "?", "retry-after": "3"}, 3.0),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, NOW) == seconds


@given(st.integers(0, 10_000))
def test_retry_after_as_a_date(seconds: int) -> None:
    date = (NOW + timedelta(seconds=seconds)).strftime("%a, %d %b %Y %H:%M:%S GMT")

    assert retry_after({"retry-after": date}, NOW) == min(float(seconds), MAX_RETRY_AFTER)


@given(st.integers(0, 10**6), st.lists(st.integers(1, 10**5), min_size=1, max_size=20))
def test_shares_add_up(tokens: int, sizes: list[int]) -> None:
    shares = share_tokens(tokens, sizes)

    assert sum(shares) == tokens
    assert all(abs(share - tokens * size / sum(sizes)) <= 1 for share, size in zip(shares, sizes, strict=True))


def vectors(*embeddings: Any, count: int | None = None) -> list[Any]:
    data = [{"index": index, "embedding": embedding} for index, embedding in enumerate(embeddings)]
    return list(read_vectors({"data": data}, count=len(embeddings) if count is None else count, dimensions=3))


def test_vectors_get_unit_length_and_their_inputs_order() -> None:
    encoded = base64.b64encode(np.array([0, 0, 4], dtype="<f4").tobytes()).decode()
    data = [{"index": 1, "embedding": [0, 3, 4]}, {"index": 0, "embedding": encoded}]

    first, second = read_vectors({"data": data}, count=2, dimensions=3)

    np.testing.assert_allclose(np.asarray(first), [0, 0, 1])
    np.testing.assert_allclose(np.asarray(second), [0, 0.6, 0.8])


@pytest.mark.parametrize(
    "bad",
    [
        [1.0, 2.0],
        [1.0, 2.0, 3.0, 4.0],
        [],
        None,
        7,
        {"0": 1},
        "not base64!",
        "AAAA",
        [float("nan"), 1.0, 1.0],
        [float("inf"), 1.0, 1.0],
        [1e300, 1e300, 1e300],
        [0.0, 0.0, 0.0],
        ["1", "2", "3"],
        [True, False, True],
        [None, 1.0, 1.0],
        [10**400, 1, 1],
    ],
)
def test_a_bad_vector_spoils_only_itself(bad: Any) -> None:
    with np.errstate(over="ignore"):
        good, spoilt = vectors([1.0, 0.0, 0.0], bad)

    assert isinstance(good, np.ndarray)
    assert isinstance(spoilt, ProviderError)
    assert not spoilt.retryable
    assert "invalid response" in spoilt.message


def test_a_missing_vector_spoils_only_its_input() -> None:
    first, second = vectors([1.0, 0.0, 0.0], count=2)

    assert isinstance(first, np.ndarray)
    assert isinstance(second, ProviderError)


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"data": None},
        {"data": {}},
        {"data": [1]},
        {"data": [{"index": 0, "embedding": [1, 0, 0]}] * 2},
        {"data": [{"index": 5, "embedding": [1, 0, 0]}]},
        {"data": [{"index": "0", "embedding": [1, 0, 0]}]},
        {"data": [{"index": True, "embedding": [1, 0, 0]}]},
        {"data": [{"embedding": [1, 0, 0]}]},
        {"data": [{"index": index, "embedding": [1, 0, 0]} for index in range(3)]},
    ],
)
def test_an_answer_that_matches_no_inputs_is_refused(answer: dict[str, Any]) -> None:
    with pytest.raises(ProviderError, match="invalid response"):
        read_vectors(answer, count=2, dimensions=3)


@pytest.mark.parametrize(
    ("answer", "tokens"),
    [({"usage": {"prompt_tokens": value}}, value) for value in (9, 0)]
    + [({}, None), ({"usage": None}, None), ({"usage": {"completion_tokens": 9}}, None)]
    + [({"usage": {"prompt_tokens": value}}, None) for value in ("9", None, True, 1.5, -1)],
)
def test_usage_is_believed_only_if_it_is_a_count(answer: dict[str, Any], tokens: int | None) -> None:
    assert read_tokens(answer, "prompt_tokens") == tokens
