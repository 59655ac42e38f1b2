"""Checks a log of what limiters admitted: that no window of time, however long, has more than its limit allows.

A window may have the burst of its policy and what came in its time. One that meets a change of policies has the larger
burst of those that it meets; one that meets an outage may have one burst more.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from memoro_core.limits.bucket import SECOND
from memoro_core.limits.model import Rate


@dataclass(frozen=True, slots=True)
class Entry:
    """Weight that was admitted at a time in microseconds; `alone`: by a process that could not ask Redis."""

    at: int
    weight: int
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Reign:
    """A policy, and the time in which any process may have followed it."""

    rate: Rate
    since: int
    until: int


@dataclass(frozen=True, slots=True)
class Found:
    """By how much the worst windows are above what is allowed; 0 or less: none is."""

    clean: float
    with_outage: float


def check(entries: Sequence[Entry], reigns: Sequence[Reign], outages: Sequence[tuple[int, int]]) -> Found:
    """The worst windows without an outage, and the worst of all. Entries are in the order of their times."""
    clean = max((_worst(piece, reigns, bursts=1) for piece in _pieces(entries, outages)), default=float("-inf"))
    return Found(clean, _worst(entries, reigns, bursts=2))


def _worst(entries: Sequence[Entry], reigns: Sequence[Reign], *, bursts: int) -> float:
    """Of all windows that meet the reigns from one to another, and no other, each is checked against their bursts."""
    worst = float("-inf")
    for first in range(len(reigns)):
        for last in range(first, len(reigns)):
            met = reigns[first : last + 1]
            since = met[0].since if first == 0 else max(met[0].since, reigns[first - 1].until)
            until = met[-1].until if last == len(reigns) - 1 else min(met[-1].until, reigns[last + 1].since)
            burst = bursts * max(reign.rate.burst for reign in met)
            worst = max(worst, _highest(entries, met, since, until) - burst)
    return worst


def _highest(entries: Sequence[Entry], reigns: Sequence[Reign], since: int, until: int) -> float:
    """The most by which a window in this time has more than came in it: as a bucket that leaks would be filled."""
    level, highest, before = 0.0, 0.0, since
    for entry in entries:
        if since <= entry.at <= until:
            level = max(0.0, level - _came(reigns, before, entry.at)) + entry.weight
            highest, before = max(highest, level), entry.at
    return highest


def _came(reigns: Sequence[Reign], start: int, end: int) -> float:
    """What came at the highest of the rates in force. Reigns overlap while some have not heard of a change."""
    if len(reigns) == 1:
        return (end - start) * reigns[0].rate.per_minute / (60 * SECOND)
    edges = sorted({start, end, *(edge for one in reigns for edge in (one.since, one.until) if start < edge < end)})
    came = 0.0
    for left, right in pairwise(edges):
        rates = [one.rate.per_minute for one in reigns if one.since <= left and one.until >= right]
        came += (right - left) * max(rates, default=0) / (60 * SECOND)
    return came


def _pieces(entries: Sequence[Entry], outages: Sequence[tuple[int, int]]) -> Iterator[Sequence[Entry]]:
    """The entries between outages."""
    first = 0
    for gone, back in sorted(outages):
        end = bisect_left(entries, gone, lo=first, key=_time)
        if end > first:
            yield entries[first:end]
        first = bisect_right(entries, back, lo=end, key=_time)
    yield entries[first:]


def _time(entry: Entry) -> int:
    return entry.at
