"""What every benchmark prints: a table for people, and as the last line one JSON object for machines."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Result:
    """What came out: Memoro's figure, its floor measured in the same run, their ratio, and the ratio to reach."""

    name: str
    value: float
    floor: float
    ratio: float
    target: float
    passed: bool


def percentile(values: Sequence[float], rank: int) -> float:
    """What `rank` percent of the values, one at least, do not exceed; between two values, in proportion."""
    if len(values) == 1:
        return values[0]
    return statistics.quantiles(values, n=100, method="inclusive")[rank - 1]


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as text."""
    grid = Table(*header, title=title, title_justify="left")
    for row in rows:
        grid.add_row(*row)
    console = Console(width=140, record=False)
    with console.capture() as captured:
        console.print(grid)
    return captured.get()


def publish(result: Result) -> None:
    """Prints the last line."""
    sys.stdout.write(
        json.dumps(
            {
                "name": result.name,
                "value": round(result.value, 4),
                "floor": round(result.floor, 4),
                "ratio": round(result.ratio, 4),
                "target": round(result.target, 4),
                "pass": result.passed,
            }
        )
        + "\n"
    )


def skip(name: str, target: float, reason: str) -> None:
    """Prints the last line of a benchmark that has nothing to measure here: no figures, and why."""
    figures = {"value": None, "floor": None, "ratio": None, "target": target, "pass": None}
    sys.stdout.write(json.dumps({"name": name, **figures, "skipped": reason}) + "\n")
