"""Buckets of tokens in tests: what may happen to one, and how much may pass in any time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memoro_core.limits.bucket import SECOND
from memoro_core.limits.model import Rate


@dataclass(frozen=True, slots=True)
class Admission:
    """Weight that passed at a time, in microseconds."""

    at: int
    weight: int


@dataclass(frozen=True, slots=True)
class Passage:
    """Weight that passed at some moment between two times, in microseconds: when it was asked for and answered."""

    since: int
    until: int
    weight: int = 1


@dataclass(frozen=True, slots=True)
class InForce:
    """A policy, and from when on it was in force."""

    since: int
    rate: Rate


def most_over(
    admissions: Sequence[Admission], policies: Sequence[InForce], *, lag: int = 0, lost: Sequence[tuple[int, int]] = ()
) -> float:
    """How much more passed, in the worst of all windows, than the burst and what came in its time: 0 or less is none.

    Of policies that were in force in the window, or up to `lag` before it, the larger burst counts, and each moment's
    larger rate. A window that meets a time at which the buckets were lost or away may pass one burst more.
    """
    ordered = sorted(admissions, key=lambda one: one.at)
    worst = float("-inf")
    for first, start in enumerate(ordered):
        passed = 0
        for number in range(first, len(ordered)):
            passed += ordered[number].weight
            if number + 1 < len(ordered) and ordered[number + 1].at == ordered[number].at:
                continue
            allowed = allowance(start.at, ordered[number].at, policies, lag=lag, lost=lost)
            worst = max(worst, passed - allowed)
    return worst


def surely_over(passages: Sequence[Passage], rate: Rate, *, lost: Sequence[tuple[int, int]] = ()) -> float:
    """As `most_over`, of what surely passed within a window, because it was asked for and answered there.

    So it does not matter how long calls take, nor how unevenly.
    """
    ordered = sorted(passages, key=lambda one: one.until)
    worst = float("-inf")
    for start in {one.since for one in passages}:
        passed = 0
        for one in ordered:
            if one.since >= start:
                passed += one.weight
                worst = max(worst, passed - allowance(start, one.until, [InForce(0, rate)], lost=lost))
    return worst


def allowance(
    start: int, end: int, policies: Sequence[InForce], *, lag: int = 0, lost: Sequence[tuple[int, int]] = ()
) -> float:
    """What may pass from one time to another."""
    burst, came = 0, 0.0
    for number, policy in enumerate(policies):
        until = policies[number + 1].since + lag if number + 1 < len(policies) else end
        if policy.since <= end and until >= start:
            burst = max(burst, policy.rate.burst)
            came += max(0, min(until, end) - max(policy.since, start)) * policy.rate.per_minute / (60 * SECOND)
    bursts = 1 + any(gone <= end and back >= start for gone, back in lost)
    return burst * bursts + came
