"""Weighted deficit round-robin: in proportion, without waste, and no one waits for ever."""

from __future__ import annotations

from collections import Counter
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from memoro_core.ids import TenantId
from memoro_core.jobs.fairness import DeficitRoundRobin, Turns, WaitingTenant

TENANTS = [TenantId(UUID(int=number)) for number in range(8)]
waiting_tenants = st.lists(
    st.builds(WaitingTenant, st.sampled_from(TENANTS), st.integers(1, 20), st.integers(0, 50)),
    max_size=8,
    unique_by=lambda tenant: tenant.tenant_id,
)


@given(st.lists(st.tuples(waiting_tenants, st.integers(0, 60)), max_size=6))
def test_no_slot_is_wasted_and_no_tenant_gets_more_than_it_can_use(
    calls: list[tuple[list[WaitingTenant], int]],
) -> None:
    turns = DeficitRoundRobin()
    for waiting, slots in calls:
        shares = turns.share(waiting, slots)
        jobs = {tenant.tenant_id: tenant.jobs for tenant in waiting}
        assert sum(shares.values()) == min(slots, sum(jobs.values()))
        assert all(0 < share <= jobs[tenant_id] for tenant_id, share in shares.items())


@given(st.lists(st.integers(1, 20), min_size=2, max_size=8), st.lists(st.integers(1, 40), min_size=1, max_size=40))
def test_tenants_that_always_wait_share_by_weight_however_few_slots_there_are_at_a_time(
    weights: list[int], slots: list[int]
) -> None:
    turns = DeficitRoundRobin()
    waiting = [WaitingTenant(tenant, weight, 1000) for tenant, weight in zip(TENANTS, weights, strict=False)]
    total: Counter[TenantId] = Counter()
    for number in slots:
        total.update(turns.share(waiting, number))
    rounds = sum(slots) / sum(weights)
    for tenant in waiting:
        # Nobody is more than one turn ahead or behind.
        assert abs(total[tenant.tenant_id] - rounds * tenant.weight) <= tenant.weight


def test_a_tenant_that_comes_late_is_served_within_one_round() -> None:
    turns = DeficitRoundRobin()
    heavy = [WaitingTenant(tenant, 4, 1000) for tenant in TENANTS[:3]]
    turns.share(heavy, 7)
    late = WaitingTenant(TENANTS[7], 1, 1)
    assert turns.share([*heavy, late], 12)[late.tenant_id] == 1


def test_who_had_nothing_to_begin_has_saved_nothing_up() -> None:
    turns = DeficitRoundRobin()
    idle, busy = WaitingTenant(TENANTS[0], 5, 0), WaitingTenant(TENANTS[1], 5, 1000)
    for _ in range(10):
        turns.share([idle, busy], 10)
    awake = WaitingTenant(TENANTS[0], 5, 1000)
    assert turns.share([awake, busy], 20) == {TENANTS[0]: 10, TENANTS[1]: 10}


def test_what_was_put_off_gets_what_the_others_leave() -> None:
    turns = Turns()
    usual = WaitingTenant(TENANTS[0], 1, 5)
    released = WaitingTenant(TENANTS[1], 16, 0, released=100)
    both = WaitingTenant(TENANTS[2], 16, 2, released=100)
    waiting = [released, usual, both]
    assert turns.share(waiting, 6) == {TENANTS[0]: 4, TENANTS[2]: 2}
    shares = turns.share(waiting, 39)
    assert (shares[TENANTS[0]], sum(shares.values())) == (5, 39)
    assert (shares[TENANTS[1]], shares[TENANTS[2]]) == (16, 18)
