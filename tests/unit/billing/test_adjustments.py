"""Giving credits, and setting what is available."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memoro_core.billing.adjustments import give, set_available
from memoro_core.billing.grants import changed_last
from memoro_core.billing.ledger import post
from memoro_core.billing.model import Cause, EntryKind, Grant
from memoro_core.errors import MemoroError
from memoro_core.ids import GrantId
from tests.support.billing import HOUR, NOW, account, balanced, some_grants, total

NEW = GrantId(UUID(int=99))


@settings(deadline=None)
@given(some_grants(), st.data())
def test_what_is_available_is_what_was_asked_for_and_grants_fit_it(
    grants: Sequence[Grant], data: st.DataObject
) -> None:
    held = data.draw(st.integers(0, total(grants)))
    before = account(total(grants) - held, held)
    wanted = data.draw(st.integers(0, 2 * before.available + 10))
    movements, changed = set_available(before, grants, wanted, NEW, Cause(), NOW)
    after, entries = post(before, movements, NOW)
    assert (after.available, after.held) == (wanted, held)
    assert balanced(after)
    assert total(changed_last(grants, changed)) == after.available + after.held
    assert [entry.kind for entry in entries] == [EntryKind.ADJUSTMENT] * (wanted != before.available)
    assert after.refunded == max(0, before.available - wanted)


def test_a_grant_is_given() -> None:
    grant = Grant(NEW, 100, 100, 0, NOW + HOUR, "", NOW)
    after, [entry] = post(account(5), [give(account(5), grant, Cause(note="gift"), NOW)], NOW)
    assert (after.available, after.granted, entry.kind, entry.cause.note) == (105, 105, EntryKind.GRANT, "gift")


@pytest.mark.parametrize("grant", [Grant(NEW, 1, 1, 0, NOW, "", NOW), Grant(NEW, 10**18, 10**18, 0, None, "", NOW)])
def test_a_grant_that_is_over_or_one_too_many_is_not_given(grant: Grant) -> None:
    with pytest.raises(MemoroError):
        give(account(5), grant, Cause(), NOW)
