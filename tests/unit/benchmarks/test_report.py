"""What benchmarks print, and that each can be run and is described."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.__main__ import NAMES
from benchmarks.report import Result, percentile, publish

ROOT = Path(__file__).parents[3]
TIMES = st.floats(min_value=0, max_value=1e6)


@given(values=st.lists(TIMES, min_size=1, max_size=300), rank=st.integers(1, 98))
def test_percentiles_rise_within_the_values(values: list[float], rank: int) -> None:
    low, high = percentile(values, rank), percentile(values, rank + 1)
    slack = 1e-9 * max(values)
    assert min(values) - slack <= low <= high + slack
    assert high <= max(values) + slack


def test_a_percentile_lies_where_its_share_of_the_values_is_below() -> None:
    values = [float(value) for value in range(101)]
    assert [percentile(values, rank) for rank in (1, 50, 99)] == [1.0, 50.0, 99.0]
    assert percentile([7.0], 99) == 7.0


def test_the_last_line_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    publish(Result("watch", 0.123456, 0.1, 1.23456, 4 / 3, True))
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {
        "name": "watch",
        "value": 0.1235,
        "floor": 0.1,
        "ratio": 1.2346,
        "target": 1.3333,
        "pass": True,
    }


@pytest.mark.parametrize("name", NAMES)
def test_each_benchmark_can_be_run_and_is_described(name: str) -> None:
    assert callable(importlib.import_module(f"benchmarks.{name}").main)
    assert f"`{name}`" in (ROOT / "docs/development.md").read_text("utf-8")
