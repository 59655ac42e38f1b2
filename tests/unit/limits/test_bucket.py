"""The bucket: whatever is taken, leased, spent late, handed back or changed, no window passes too much."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from memoro_core.limits.bucket import (
    LEASE,
    SECOND,
    TOKEN,
    Bucket,
    can_lease,
    carry,
    drain,
    hand_back,
    lease,
    new_bucket,
    take,
    under,
    wait_of,
)
from memoro_core.limits.model import Rate
from tests.support.buckets import Admission, InForce, most_over

RATES = st.builds(Rate, st.integers(1, 60_000), st.integers(1, 60))
START = 1_700_000_000 * SECOND


@dataclass
class Lease:
    """Tokens in a server's hand."""

    tokens: int
    leased_at: int
    until: int


@dataclass
class World:
    """A bucket, the servers' leases, and all that passed."""

    bucket: Bucket
    now: int
    policies: list[InForce]
    leases: list[Lease] = field(default_factory=list)
    passed: list[Admission] = field(default_factory=list)


class Windows(RuleBasedStateMachine):
    """Servers take, lease, spend, and hand back; the policy changes."""

    @initialize(rate=RATES)
    def begin(self, rate: Rate) -> None:
        self.world = World(new_bucket(rate, START), START, [InForce(START, rate)])

    def _touch(self) -> Bucket:
        return under(drain(self.world.bucket, self.world.now), self.world.policies[-1].rate)

    @rule(time=st.one_of(st.integers(0, LEASE), st.integers(0, 3 * SECOND)))
    def wait(self, time: int) -> None:
        self.world.now += time

    @rule(weight=st.integers(1, 60))
    def call(self, weight: int) -> None:
        bucket = self._touch()
        weight = min(weight, bucket.rate.burst)
        if not wait_of(bucket, weight):
            bucket = take(bucket, weight)
            self.world.passed.append(Admission(self.world.now, weight))
        self.world.bucket = bucket

    @rule(weight=st.integers(1, 20), times=st.integers(1, 30))
    def rush(self, weight: int, times: int) -> None:
        for _ in range(times):
            self.call(weight)

    @rule(tokens=st.integers(1, 60))
    def ask_for_a_lease(self, tokens: int) -> None:
        bucket = self._touch()
        if tokens := can_lease([bucket], tokens):
            [bucket] = lease([bucket], tokens)
            self.world.leases.append(Lease(tokens, self.world.now, self.world.now + LEASE))
        self.world.bucket = bucket

    @rule(data=st.data())
    def spend(self, data: st.DataObject) -> None:
        good = [one for one in self.world.leases if one.tokens and self.world.now < one.until]
        if good:
            one = data.draw(st.sampled_from(good))
            tokens = data.draw(st.integers(1, one.tokens))
            one.tokens -= tokens
            self.world.passed.append(Admission(self.world.now, tokens))

    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        held = [one for one in self.world.leases if one.tokens]
        if held:
            one = data.draw(st.sampled_from(held))
            tokens = data.draw(st.integers(1, one.tokens))
            one.tokens -= tokens
            self.world.bucket = hand_back(self._touch(), tokens, one.leased_at)

    @rule(rate=RATES)
    def change(self, rate: Rate) -> None:
        self.world.policies.append(InForce(self.world.now, rate))
        self.world.bucket = self._touch()

    @invariant()
    def no_window_passes_too_much(self) -> None:
        if hasattr(self, "world"):
            # A larger bucket's leases count until they are forgotten.
            assert most_over(self.world.passed, self.world.policies, lag=2 * LEASE) <= 0
            unspent = sum(one.tokens for one in self.world.leases if self.world.now < one.until)
            assert self._touch().level >= unspent * TOKEN


Windows.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestWindows = Windows.TestCase


def test_the_checker_finds_what_is_too_much() -> None:
    policies = [InForce(0, Rate(60, 5))]
    assert most_over([Admission(0, 5), Admission(SECOND, 1)], policies) <= 0
    assert most_over([Admission(0, 5), Admission(SECOND - 1, 1)], policies) > 0
    assert most_over([Admission(0, 5), Admission(0, 5)], policies, lost=[(0, 1)]) <= 0
    assert most_over([Admission(0, 5), Admission(0, 6)], policies, lost=[(0, 1)]) > 0


@given(rate=RATES, weights=st.lists(st.integers(1, 60), max_size=40), leased=st.integers(0, 60))
def test_who_waits_as_told_passes_and_not_a_microsecond_earlier(rate: Rate, weights: list[int], leased: int) -> None:
    bucket = new_bucket(rate, START)
    if tokens := can_lease([bucket], leased):
        [bucket] = lease([bucket], tokens)
    for weight in weights:
        if wait := wait_of(bucket, weight):
            assert wait_of(drain(bucket, bucket.at + wait - 1), weight) > 0
            bucket = drain(bucket, bucket.at + wait)
            assert wait_of(bucket, weight) == 0
        bucket = take(bucket, weight)
        assert bucket.room >= 0


@given(RATES, RATES, st.integers(0, 60))
def test_an_upgrade_leaves_no_debt_and_a_downgrade_no_more_room(before: Rate, after: Rate, taken: int) -> None:
    full = take(new_bucket(before, START), taken)
    changed = under(full, after)
    assert 0 <= changed.room <= max(0, full.room + (after.burst - before.burst) * TOKEN)
    if after.burst >= before.burst:
        assert changed.level == full.level


def test_what_was_carried_is_at_most_as_much_again() -> None:
    rate = Rate(60, 10)
    bucket = carry(take(new_bucket(rate, START), 8), 100 * TOKEN)
    assert bucket.level == 20 * TOKEN
    assert carry(bucket, TOKEN).level == 20 * TOKEN


def test_a_clock_that_is_put_back_gives_nothing_and_takes_nothing() -> None:
    bucket = take(new_bucket(Rate(60, 10), START), 5)
    [bucket] = lease([bucket], 2)
    back = drain(bucket, START - 3600 * SECOND)
    assert (back.level, back.leased) == (bucket.level, 2)
    assert drain(back, back.at + 2 * LEASE + 7 * SECOND).level == 0


def test_what_is_handed_back_late_has_drained_away() -> None:
    bucket = new_bucket(Rate(6000, 100), START)
    [bucket] = lease([bucket], 10)
    late = take(drain(bucket, START + 5 * SECOND), 10)
    assert hand_back(late, 10, START) == late
    soon = drain(bucket, START + LEASE)
    assert hand_back(soon, 10, START).level == 0
