"""Entries: balanced, numbered, chained, and summed up again."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memoro_core.billing.ledger import Movement, difference, entry_hash, post, problem_of, replay
from memoro_core.billing.model import Cause, CreditAccount, EntryKind, LedgerAccount, LedgerEntry
from memoro_core.ids import ApiKeyId
from tests.support.billing import NOW, TENANT, balanced, job

GIVEN = {LedgerAccount.GRANTED: -100, LedgerAccount.AVAILABLE: 100}
causes = st.builds(
    Cause,
    job_id=st.none() | st.builds(job, st.integers(0, 5)),
    request_id=st.text("ab1-", max_size=4),
    actor=st.none() | st.uuids().map(ApiKeyId),
    note=st.text("aß ", max_size=4),
)


@st.composite
def histories(draw: st.DrawFn) -> Sequence[Movement]:
    """Movements that never take what is not there."""
    available = held = 0
    made: list[Movement] = []
    for kind in draw(st.lists(st.sampled_from(["give", "hold", "settle", "expire", "refund"]), max_size=12)):
        amount = draw(st.integers(1, 1000))
        postings: dict[LedgerAccount, int] = {}
        match kind:
            case "hold" if available:
                amount = min(amount, available)
                available, held = available - amount, held + amount
                postings = {LedgerAccount.AVAILABLE: -amount, LedgerAccount.HELD: amount}
            case "settle" if held:
                cost, loss = draw(st.integers(0, held)), draw(st.integers(0, 50))
                postings = {
                    LedgerAccount.HELD: -held,
                    LedgerAccount.AVAILABLE: held - cost,
                    LedgerAccount.PROVIDER_COST: cost + loss,
                    LedgerAccount.LOSS: -loss,
                }
                available, held = available + held - cost, 0
            case "expire" | "refund" if available:
                amount = min(amount, available)
                available -= amount
                against = LedgerAccount.EXPIRED if kind == "expire" else LedgerAccount.REFUNDED
                postings = {LedgerAccount.AVAILABLE: -amount, against: amount}
            case _:
                available += amount
                postings = {LedgerAccount.GRANTED: -amount, LedgerAccount.AVAILABLE: amount}
        made.append(Movement(draw(st.sampled_from(EntryKind)), postings, draw(causes)))
    return made


@settings(deadline=None)
@given(histories(), st.integers(0, 12))
def test_entries_make_the_account_however_they_are_posted(movements: Sequence[Movement], cut: int) -> None:
    at_once, entries = post(CreditAccount(TENANT), movements, NOW)
    first, before = post(CreditAccount(TENANT), movements[:cut], NOW)
    then, after = post(first, movements[cut:], NOW)
    assert (then, [*before, *after]) == (at_once, [*entries])
    assert balanced(at_once)
    assert [entry.seq for entry in entries] == list(range(1, len(movements) + 1))
    assert all(sum(entry.postings.values()) == 0 for entry in entries)
    assert replay(TENANT, entries) == at_once
    assert not difference(at_once, replay(TENANT, entries))


@settings(deadline=None)
@given(histories().filter(bool), st.data())
def test_no_part_of_an_entry_can_be_changed_unseen(movements: Sequence[Movement], data: st.DataObject) -> None:
    _, entries = post(CreditAccount(TENANT), movements, NOW)
    place = data.draw(st.integers(0, len(entries) - 1))
    entry = entries[place]
    before = replay(TENANT, entries[:place])
    assert problem_of(before, entry) == ""
    changes = {
        "kind": next(kind for kind in EntryKind if kind is not entry.kind),
        "postings": {**entry.postings, LedgerAccount.REVENUE: 1, LedgerAccount.LOSS: -1},
        "available_after": entry.available_after + 1,
        "held_after": entry.held_after + 1,
        "seq": entry.seq + 1,
        "created_at": NOW.replace(microsecond=1),
        "hash": sha256().digest(),
        "cause": dataclasses.replace(entry.cause, note=entry.cause.note + "x"),
    }
    name = data.draw(st.sampled_from(sorted(changes)))
    changed = dataclasses.replace(entry, **{name: changes[name]})  # type: ignore[arg-type]
    assert problem_of(before, changed) != ""
    assert changed.hash != entry_hash(before.last_hash, changed)


@settings(deadline=None)
@given(causes, causes)
def test_causes_that_differ_have_other_hashes(one: Cause, other: Cause) -> None:
    def hashed(cause: Cause) -> bytes:
        _, [entry] = post(CreditAccount(TENANT), [Movement(EntryKind.GRANT, GIVEN, cause)], NOW)
        return entry.hash

    assert (hashed(one) == hashed(other)) == (one == other)


def test_an_entry_that_is_missing_or_comes_twice_is_found() -> None:
    _, entries = post(CreditAccount(TENANT), [Movement(EntryKind.GRANT, GIVEN, Cause())] * 3, NOW)
    assert problem_of(replay(TENANT, entries[:1]), entries[2]) == "entry 2 is missing"
    assert problem_of(replay(TENANT, entries[:1]), entries[0]) == "entry 2 is missing"


def test_a_chain_forged_from_some_entry_on_has_another_head() -> None:
    movements = [Movement(EntryKind.GRANT, GIVEN, Cause(note=str(number))) for number in range(3)]
    true, _ = post(CreditAccount(TENANT), movements, NOW)
    forged, _ = post(CreditAccount(TENANT), [movements[0], movements[0], movements[2]], NOW)
    assert (true.available, true.last_seq) == (forged.available, forged.last_seq)
    assert difference(forged, true) == "the account's last_hash is not what its entries make"


@pytest.mark.parametrize(
    "postings",
    [
        {LedgerAccount.GRANTED: -100, LedgerAccount.AVAILABLE: 99},
        {LedgerAccount.AVAILABLE: 1},
        {LedgerAccount.AVAILABLE: -1, LedgerAccount.HELD: 1},
        {LedgerAccount.HELD: -1, LedgerAccount.AVAILABLE: 1},
    ],
)
def test_what_is_not_balanced_or_not_there_is_not_posted(postings: dict[LedgerAccount, int]) -> None:
    with pytest.raises(ValueError, match=r"must sum to zero|what is not there"):
        post(CreditAccount(TENANT), [Movement(EntryKind.HOLD, postings, Cause())], NOW)


def test_the_hash_is_what_its_description_says() -> None:
    """Reckoned here from the description alone."""
    actor = ApiKeyId(job(9))
    cause = Cause(job(1), "r-1", actor, "größer")
    _, [entry] = post(CreditAccount(TENANT, available=5, granted=5), [Movement(EntryKind.GRANT, GIVEN, cause)], NOW)
    assert isinstance(entry, LedgerEntry)

    def eight(number: int) -> bytes:
        return number.to_bytes(8, "big", signed=True)

    texts = [b"GRANT", b"r-1", "größer".encode()]
    parts = [
        TENANT.bytes,
        eight(1),
        eight(int(NOW.timestamp()) * 1_000_000),
        *map(eight, [100, 0, -100, 0, 0, 0, 0, 0, 0]),
        eight(105),
        eight(0),
        b"\x01" + job(1).bytes,
        b"\x01" + actor.bytes,
        *(len(text).to_bytes(2, "big") for text in texts),
        *texts,
    ]
    assert entry.hash == sha256(b"".join(parts)).digest()
