"""Double entry: movements of money become numbered, hash-chained entries, and entries are checked and summed up again.

The hash of an entry is the SHA-256 of, one after the other:

- the hash of the entry before it (32 bytes; none before the first),
- the tenant's id (16 bytes),
- `seq`, the microseconds from 1970 to `created_at`, the nine amounts in the order of `LedgerAccount`,
  `available_after` and `held_after` (8 bytes each, signed, big-endian),
- whether there is a job (one byte, 0 or 1) and its id (16 bytes, zeros for none), and the same for the actor,
- the lengths in bytes of `kind`, `request_id` and `note` (2 bytes each, big-endian), and the three texts in UTF-8.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Final
from uuid import UUID

from memoro_core.billing.model import Cause, CreditAccount, EntryKind, LedgerAccount, LedgerEntry
from memoro_core.ids import TenantId

_FIXED: Final = struct.Struct(">16s2q9q2q?16s?16sHHH")
_ACCOUNTS: Final = tuple(LedgerAccount)
_NOTHING: Final = (0,) * len(_ACCOUNTS)
_KINDS: Final = {kind: kind.encode() for kind in EntryKind}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_NOBODY: Final = bytes(16)
_CHARGED: Final = (
    LedgerAccount.REVENUE,
    LedgerAccount.PROVIDER_COST,
    LedgerAccount.ROUNDING,
    LedgerAccount.LOSS,
)


@dataclass(frozen=True, slots=True)
class Movement:
    """Money that is to move from account to account, and why. `postings` sum to zero."""

    kind: EntryKind
    postings: Mapping[LedgerAccount, int]
    cause: Cause


def post(
    account: CreditAccount, movements: Iterable[Movement], now: datetime
) -> tuple[CreditAccount, Sequence[LedgerEntry]]:
    """The entries of movements, in order, and the account after them.

    Raises ValueError for a movement that is not balanced, or that takes what is not there.
    """
    tenant_id, created_at = account.tenant_id, _microseconds(now)
    seq, last_hash = account.last_seq, account.last_hash
    available, held = account.available, account.held
    entries: list[LedgerEntry] = []
    moved: list[Sequence[int]] = []
    for movement in movements:
        amounts = _amounts(movement.postings)
        if sum(amounts) != 0:
            raise ValueError(f"a {movement.kind} must sum to zero: {dict(movement.postings)}")
        seq += 1
        available += amounts[0]
        held += amounts[1]
        if available < 0 or held < 0:
            raise ValueError(f"a {movement.kind} takes what is not there: {dict(movement.postings)}")
        cause = movement.cause
        last_hash = _hash(last_hash, tenant_id, seq, created_at, movement.kind, amounts, available, held, cause)
        entries.append(
            LedgerEntry(tenant_id, seq, movement.kind, movement.postings, available, held, cause, now, last_hash)
        )
        moved.append(amounts)
    if not entries:
        return account, ()
    totals = dict(zip(_ACCOUNTS, map(sum, zip(*moved, strict=True)), strict=True))
    return _moved(account, totals, seq, last_hash), entries


def replay(tenant_id: TenantId, entries: Iterable[LedgerEntry]) -> CreditAccount:
    """The account that all entries of a tenant make, without what is set by hand or reckoned from grants."""
    account = CreditAccount(tenant_id)
    for entry in entries:
        account = after(account, entry)
    return account


def after(account: CreditAccount, entry: LedgerEntry) -> CreditAccount:
    """An account after one more entry, whatever is to be said of that entry."""
    return _moved(account, entry.postings, entry.seq, entry.hash)


def entry_hash(previous: bytes, entry: LedgerEntry) -> bytes:
    """What the hash of an entry must be, reckoned from its other fields and from the hash before it."""
    return _hash(
        previous,
        entry.tenant_id,
        entry.seq,
        _microseconds(entry.created_at),
        entry.kind,
        _amounts(entry.postings),
        entry.available_after,
        entry.held_after,
        entry.cause,
    )


def problem_of(account: CreditAccount, entry: LedgerEntry) -> str:
    """What is wrong with the entry that should follow those which `account` sums up; empty: nothing."""
    if entry.seq != account.last_seq + 1:
        return f"entry {account.last_seq + 1} is missing"
    if sum(entry.postings.values()) != 0:
        return "its postings do not sum to zero"
    then = after(account, entry)
    if (entry.available_after, entry.held_after) != (then.available, then.held):
        return "what it says was available and held after it is not what the entries make"
    if min(then.available, then.held) < 0:
        return "it takes what is not there"
    if entry_hash(account.last_hash, entry) != entry.hash:
        return "its hash does not fit it and the entry before it"
    return ""


def difference(account: CreditAccount, replayed: CreditAccount) -> str:
    """In what an account differs from its entries; empty: in nothing."""
    names = ("available", "held", "granted", "spent", "expired", "refunded", "last_seq", "last_hash")
    wrong = [name for name in names if getattr(account, name) != getattr(replayed, name)]
    return f"the account's {', '.join(wrong)} is not what its entries make" if wrong else ""


def _moved(account: CreditAccount, postings: Mapping[LedgerAccount, int], seq: int, last_hash: bytes) -> CreditAccount:
    return dataclasses.replace(
        account,
        available=account.available + postings.get(LedgerAccount.AVAILABLE, 0),
        held=account.held + postings.get(LedgerAccount.HELD, 0),
        granted=account.granted - postings.get(LedgerAccount.GRANTED, 0),
        spent=account.spent + sum(postings.get(place, 0) for place in _CHARGED),
        expired=account.expired + postings.get(LedgerAccount.EXPIRED, 0),
        refunded=account.refunded + postings.get(LedgerAccount.REFUNDED, 0),
        last_seq=seq,
        last_hash=last_hash,
    )


def _amounts(postings: Mapping[LedgerAccount, int]) -> Sequence[int]:
    """One for each account."""
    return tuple(map(postings.get, _ACCOUNTS, _NOTHING))


def _hash(
    previous: bytes,
    tenant_id: UUID,
    seq: int,
    created_at: int,
    kind: EntryKind,
    amounts: Sequence[int],
    available: int,
    held: int,
    cause: Cause,
) -> bytes:
    kind_text, request_id, note = _KINDS[kind], cause.request_id.encode(), cause.note.encode()
    job_id, actor = cause.job_id, cause.actor
    fixed = _FIXED.pack(
        tenant_id.bytes,
        seq,
        created_at,
        *amounts,
        available,
        held,
        job_id is not None,
        job_id.bytes if job_id is not None else _NOBODY,
        actor is not None,
        actor.bytes if actor is not None else _NOBODY,
        len(kind_text),
        len(request_id),
        len(note),
    )
    return sha256(previous + fixed + kind_text + request_id + note).digest()


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND
