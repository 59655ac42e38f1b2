"""Whatever is changed behind the service's back, checking the ledger finds it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from memoro_core.billing.model import Cause, Grant, HoldRequest
from memoro_core.billing.service import BillingService
from memoro_core.errors import MemoroError
from memoro_core.ids import GrantId, new_id
from memoro_core.postgres import credit_store
from tests.support.billing import USERS, job
from tests.support.credit_world import CreditWorld
from tests.support.job_world import SetClock

ENTRIES = 5


@pytest.fixture(autouse=True)
async def _history(world: CreditWorld) -> None:
    for amount in (100, 200):
        grant = Grant(GrantId(new_id()), amount, amount, 0, None, "", world.now)
        await world.store.add_credits(world.tenant, grant, Cause(), None, now=world.now)
    await world.hold([HoldRequest(job(number), USERS[0], 20) for number in range(2)], 0)
    await world.resolve([job(0)], end=True)


@asynccontextmanager
async def unguarded(world: CreditWorld) -> AsyncIterator[None]:
    """As whoever owns the database can do it."""
    await world.owner.execute("SET session_replication_role = replica")
    yield
    await world.owner.execute("SET session_replication_role = origin")


async def test_nothing_is_wrong(world: CreditWorld) -> None:
    verification = await world.verify()
    assert (verification.valid, verification.entries, verification.complete) == (True, ENTRIES, True)
    assert verification.head_hash == (await world.balance()).account.last_hash


@pytest.mark.parametrize(
    ("change", "seq", "problem"),
    [
        ("UPDATE ledger_entries SET note = 'x' WHERE tenant_id = $1 AND seq = 2", 2, "hash"),
        ("UPDATE ledger_entries SET actor = tenant_id WHERE tenant_id = $1 AND seq = 4", 4, "hash"),
        ("UPDATE ledger_entries SET created_at = now() WHERE tenant_id = $1 AND seq = 5", 5, "hash"),
        ("UPDATE ledger_entries SET hash = sha256('') WHERE tenant_id = $1 AND seq = 1", 1, "hash"),
        (
            "UPDATE ledger_entries SET available = 201, granted = -201 WHERE tenant_id = $1 AND seq = 2",
            2,
            "available and held after it",
        ),
        ("DELETE FROM ledger_entries WHERE tenant_id = $1 AND seq = 3", 3, "entry 3 is missing"),
        ("DELETE FROM ledger_entries WHERE tenant_id = $1 AND seq = 5", 5, "entry 5 is missing"),
        (
            "INSERT INTO ledger_entries (tenant_id, seq, kind, available_after, held_after, created_at, hash) "
            "VALUES ($1, 6, 'GRANT', 0, 0, now(), sha256(''))",
            6,
            "does not know of it",
        ),
        (
            "UPDATE credit_accounts SET available = available + 1, granted = granted + 1 WHERE tenant_id = $1",
            0,
            "account's",
        ),
        ("UPDATE credit_accounts SET last_hash = sha256('') WHERE tenant_id = $1", 0, "account's last_hash"),
        ("UPDATE credit_grants SET remaining = remaining - 1 WHERE tenant_id = $1", 0, "grants have"),
        ("UPDATE credit_holds SET amount = 1 WHERE tenant_id = $1 AND state = 'PENDING'", 0, "jobs hold"),
    ],
)
async def test_a_change_is_found(world: CreditWorld, change: str, seq: int, problem: str) -> None:
    async with unguarded(world):
        await world.owner.execute(change, world.tenant)
    verification = await world.verify()
    assert not verification.valid
    assert (verification.first_invalid_seq, verification.entries) == (seq, seq - 1 if seq else ENTRIES)
    assert problem in verification.problem


@pytest.mark.parametrize("at_once", [500_000, 2])
async def test_a_check_goes_on_where_another_stopped(
    world: CreditWorld, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(credit_store, "_SUMMED_AT_ONCE", at_once)
    hashes = [entry.hash for entry in await world.entries()]
    for seq in range(1, ENTRIES + 1):
        found = await world.store.verify(world.tenant, after_seq=seq, after_hash=hashes[seq - 1], within=60)
        assert (found.problem, found.complete, found.entries, found.head_hash) == ("", True, ENTRIES, hashes[-1])
    broken_off = await world.store.verify(world.tenant, after_seq=2, after_hash=hashes[1], within=0)
    assert (broken_off.complete, broken_off.entries, broken_off.head_hash) == (False, 2, hashes[1])


@pytest.mark.parametrize(
    ("change", "seq", "problem"),
    [
        # What was changed before is found by its sum, if not by its hash.
        ("UPDATE ledger_entries SET available = 201, granted = -201 WHERE tenant_id = $1 AND seq = 2", 4, "after it"),
        ("UPDATE ledger_entries SET hash = sha256('') WHERE tenant_id = $1 AND seq = 3", 3, "was kept"),
        ("UPDATE ledger_entries SET note = 'x' WHERE tenant_id = $1 AND seq = 4", 4, "hash"),
        ("DELETE FROM ledger_entries WHERE tenant_id = $1 AND seq = 1", 3, "an entry before it is missing"),
        ("DELETE FROM ledger_entries WHERE tenant_id = $1 AND seq >= 3", 3, "entry 3 is missing"),
    ],
)
async def test_a_check_that_goes_on_finds_what_was_changed(
    world: CreditWorld, change: str, seq: int, problem: str
) -> None:
    kept = (await world.entries())[2].hash
    async with unguarded(world):
        await world.owner.execute(change, world.tenant)
    found = await world.store.verify(world.tenant, after_seq=3, after_hash=kept, within=60)
    assert (found.valid, found.first_invalid_seq) == (False, seq)
    assert problem in found.problem


async def test_a_check_can_not_go_on_after_what_is_not_there(world: CreditWorld) -> None:
    for seq in (ENTRIES + 1, 2**62):
        found = await world.store.verify(world.tenant, after_seq=seq, after_hash=b"h" * 32, within=60)
        assert (found.valid, found.first_invalid_seq, found.problem) == (False, seq, f"entry {seq} is missing")


async def test_a_number_and_its_hash_go_together(world: CreditWorld) -> None:
    billing = BillingService(world.store, SetClock(world.now))
    for after_seq, after_hash in ((1, b""), (0, b"h" * 32)):
        with pytest.raises(MemoroError, match="after_hash"):
            await billing.verify(world.tenant, after_seq=after_seq, after_hash=after_hash, within=1)


async def test_a_check_that_runs_out_of_time_says_so(world: CreditWorld) -> None:
    verification = await world.store.verify(world.tenant, within=0)
    assert (verification.valid, verification.complete, verification.entries) == (True, False, 0)
