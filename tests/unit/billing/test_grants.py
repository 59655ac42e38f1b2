"""Grants: the order in which they are used up, and what of them is lost."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memoro_core.billing.grants import changed_by, consume, expire, in_order_of_use, lapse, next_expiry
from memoro_core.billing.model import Grant
from memoro_core.ids import GrantId
from tests.support.billing import HOUR, NOW, some_grants, total


def grant(number: int, remaining: int, *, priority: int = 0, expires_in: timedelta | None = None) -> Grant:
    expires_at = None if expires_in is None else NOW + expires_in
    return Grant(GrantId(UUID(int=number)), remaining, remaining, priority, expires_at, "", NOW)


def test_the_lowest_priority_comes_first_then_what_expires_first_then_the_oldest() -> None:
    ordered = [
        grant(5, 1, priority=0, expires_in=HOUR),
        grant(4, 1, priority=0),
        grant(6, 1, priority=0),
        grant(1, 1, priority=1, expires_in=HOUR),
        grant(2, 1, priority=1, expires_in=2 * HOUR),
        grant(0, 1, priority=1),
    ]
    assert in_order_of_use(reversed(ordered)) == ordered


@settings(deadline=None)
@given(some_grants(), st.data())
def test_what_is_taken_is_taken_from_the_first(grants: Sequence[Grant], data: st.DataObject) -> None:
    amount = data.draw(st.integers(0, total(grants)))
    after = changed_by(grants, consume(grants, amount))
    assert total(after) == total(grants) - amount
    assert all(0 <= new.remaining <= old.remaining for new, old in zip(after, grants, strict=True))
    # One of them may be used in part; those before it are used up, those after it are untouched.
    left = {new.id: new.remaining for new in after}
    touched = [one for one in in_order_of_use(grants) if left[one.id] != one.remaining]
    assert all(left[one.id] == 0 for one in touched[:-1])
    if touched:
        untouched_before = [
            one for one in in_order_of_use(grants)[: in_order_of_use(grants).index(touched[-1])] if one not in touched
        ]
        assert all(one.remaining == 0 for one in untouched_before)


@settings(deadline=None)
@given(some_grants())
def test_more_than_there_is_can_not_be_taken(grants: Sequence[Grant]) -> None:
    with pytest.raises(ValueError, match="1 less"):
        consume(grants, total(grants) + 1)


@settings(deadline=None)
@given(some_grants(), st.data())
def test_what_is_held_is_never_lost(grants: Sequence[Grant], data: st.DataObject) -> None:
    held = data.draw(st.integers(0, total(grants)))
    expired = expire(grants, held, NOW)
    lost = sum(amount for _, amount in expired)
    after = changed_by(grants, [one for one, _ in expired])
    assert total(after) == total(grants) - lost >= held
    assert all(amount > 0 and one.expires_at and one.expires_at <= NOW for one, amount in expired)
    assert all(sum(lapse(one, amount).postings.values()) == 0 for one, amount in expired)
    assert not expire(after, held, NOW), "nothing is lost twice"
    # When the holds end without cost, all that is over is lost.
    ended = changed_by(after, [one for one, _ in expire(after, 0, NOW)])
    assert total(ended) == sum(one.remaining for one in grants if not one.expires_at or one.expires_at > NOW)


@settings(deadline=None)
@given(some_grants(), st.data())
def test_it_does_not_matter_whether_a_hold_ends_before_or_after_an_expiry_is_seen_to(
    grants: Sequence[Grant], data: st.DataObject
) -> None:
    held = data.draw(st.integers(0, total(grants)))
    charged = data.draw(st.integers(0, held))
    seen_to = changed_by(grants, [one for one, _ in expire(grants, held, NOW)])

    def settled(before: Sequence[Grant]) -> Sequence[Grant]:
        after = changed_by(before, consume(before, charged))
        return changed_by(after, [one for one, _ in expire(after, 0, NOW)])

    assert settled(seen_to) == settled(grants)


def test_holds_claim_grants_in_their_order_of_use() -> None:
    first, second = grant(1, 100, expires_in=timedelta()), grant(2, 50, priority=1, expires_in=-HOUR)
    assert [(one.remaining, lost) for one, lost in expire([second, first], 120, NOW)] == [(20, 30)]
    assert [(one.remaining, lost) for one, lost in expire([second, first], 30, NOW)] == [(30, 70), (0, 50)]


def test_the_next_expiry_is_one_to_come_of_a_grant_with_something_left() -> None:
    over, soon, used_up = grant(1, 5, expires_in=-HOUR), grant(2, 5, expires_in=2 * HOUR), grant(3, 0, expires_in=HOUR)
    assert next_expiry([over, soon, used_up, grant(4, 5)], NOW) == NOW + 2 * HOUR
    assert next_expiry([over, used_up, grant(4, 5)], NOW) is None
