"""What operators do with balances, and what can be read of them."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import asyncpg
import pytest

from memoro_core.billing.model import EntryKind, LedgerAccount, LedgerFilter
from memoro_core.billing.service import BillingService
from memoro_core.errors import MemoroError, Reason
from memoro_core.idempotency import Idempotency
from memoro_core.ids import ApiKeyId, TenantId, new_id
from memoro_core.limits.model import NO_LIMITS
from memoro_core.postgres.answer_store import PostgresAnswerStore
from memoro_core.postgres.idempotency_store import PostgresRequestStore
from memoro_core.tenancy.model import FREE_TIER, Principal, Scope
from tests.support.billing import HOUR, job
from tests.support.credit_world import CreditWorld
from tests.support.domain import Domain
from tests.support.job_world import SetClock

OPERATOR = Principal(TenantId(new_id()), ApiKeyId(new_id()), frozenset({Scope.ADMIN}), FREE_TIER, NO_LIMITS)
ASKED = Idempotency("r-1", b"f" * 32)


@pytest.fixture
def clock(world: CreditWorld) -> SetClock:
    return SetClock(world.now)


@pytest.fixture
def billing(world: CreditWorld, clock: SetClock) -> BillingService:
    return BillingService(world.store, clock)


async def test_a_grant_is_there_with_who_gave_it_and_why(billing: BillingService, world: CreditWorld) -> None:
    expires_at = world.now + HOUR
    grant, balance = await billing.add_credits(
        OPERATOR, world.tenant, 100, priority=3, expires_at=expires_at, note="invoice 7", idempotency=ASKED
    )
    assert (grant.amount, grant.remaining, grant.priority, grant.expires_at) == (100, 100, 3, expires_at)
    assert (balance.account.available, balance.account.granted, list(balance.grants)) == (100, 100, [grant])
    [entry] = await world.entries()
    assert (entry.kind, entry.cause.actor, entry.cause.request_id) == (EntryKind.GRANT, OPERATOR.api_key_id, "r-1")
    assert entry.cause.note == "invoice 7"
    assert entry.postings == {LedgerAccount.AVAILABLE: 100, LedgerAccount.GRANTED: -100}


async def test_the_same_request_gives_once_however_often_and_at_once_it_comes(
    billing: BillingService, world: CreditWorld, clock: SetClock
) -> None:
    expires_at = world.now + HOUR

    async def ask(amount: int, fingerprint: bytes = b"f" * 32) -> int:
        grant, _ = await billing.add_credits(
            OPERATOR, world.tenant, amount, expires_at=expires_at, idempotency=Idempotency("r-1", fingerprint)
        )
        return grant.amount

    assert await asyncio.gather(*(ask(100) for _ in range(5))) == [100] * 5
    # A repeated request is answered even when what it asked for would no longer be allowed.
    clock.moment += 2 * HOUR
    assert await ask(100) == 100
    assert (await world.balance()).account.granted == 100
    with pytest.raises(MemoroError) as caught:
        await ask(200, b"g" * 32)
    assert caught.value.reason is Reason.REQUEST_ID_REUSED
    assert caught.value.metadata == {"request_id": "r-1"}


async def test_what_moved_money_is_known_when_other_requests_are_forgotten(
    billing: BillingService, world: CreditWorld, clock: SetClock
) -> None:
    """An invoice that is sent again months later is not booked twice."""
    set_once = Idempotency("r-2", b"f" * 32)
    await billing.add_credits(OPERATOR, world.tenant, 100, idempotency=ASKED)
    await billing.set_balance(OPERATOR, world.tenant, available=70, idempotency=set_once)
    answers = PostgresAnswerStore(world.database)
    other = Idempotency("r-3", b"f" * 32)
    await answers.record(world.tenant, other, {}, now=clock.moment)
    clock.moment += 2400 * HOUR
    assert await PostgresRequestStore(world.database).forget(before=clock.moment, limit=10_000) >= 1
    assert await answers.find(world.tenant, other) is None
    grant, balance = await billing.add_credits(OPERATOR, world.tenant, 100, idempotency=ASKED)
    assert (grant.amount, grant.remaining, balance.account.available) == (100, 70, 70)
    await billing.add_credits(OPERATOR, world.tenant, 5)
    assert (
        await billing.set_balance(OPERATOR, world.tenant, available=70, idempotency=set_once)
    ).account.available == 75
    with pytest.raises(MemoroError) as caught:
        await billing.add_credits(OPERATOR, world.tenant, 1, idempotency=Idempotency("r-1", b"g" * 32))
    assert caught.value.reason is Reason.REQUEST_ID_REUSED


async def test_an_operators_request_ids_are_not_those_of_the_tenant(
    billing: BillingService, world: CreditWorld
) -> None:
    own = Principal(world.tenant, OPERATOR.api_key_id, OPERATOR.scopes, OPERATOR.tier, OPERATOR.limits)
    for principal in (OPERATOR, own):
        await billing.add_credits(principal, world.tenant, 100, idempotency=ASKED)
    assert (await world.balance()).account.granted == 200
    assert [entry.cause.request_id for entry in await world.entries()] == ["r-1", "r-1"]


async def test_there_is_no_money_of_a_tenant_that_there_is_not(billing: BillingService) -> None:
    nobody = TenantId(new_id())
    for call in (
        billing.balance(nobody),
        billing.add_credits(OPERATOR, nobody, 1, idempotency=ASKED),
        billing.set_balance(OPERATOR, nobody, available=1),
        billing.list_entries(nobody, LedgerFilter(), size=5, position=None),
        billing.verify(nobody, within=1),
    ):
        with pytest.raises(MemoroError) as caught:
            await call
        assert caught.value.reason is Reason.TENANT_NOT_FOUND


async def test_a_tenant_without_credits_has_an_empty_ledger(billing: BillingService, world: CreditWorld) -> None:
    assert (await billing.balance(world.tenant)).account.granted == 0
    assert (await billing.list_entries(world.tenant, LedgerFilter(), size=5, position=None)).items == []
    verification = await billing.verify(world.tenant, within=1)
    assert (verification.valid, verification.entries, verification.head_hash) == (True, 0, b"")


@pytest.mark.parametrize("late_by", [timedelta(), HOUR])
async def test_what_is_given_must_not_be_over_already(
    billing: BillingService, world: CreditWorld, late_by: timedelta
) -> None:
    with pytest.raises(MemoroError, match="expire_time: must be in the future"):
        await billing.add_credits(OPERATOR, world.tenant, 100, expires_at=world.now - late_by, idempotency=ASKED)
    assert await world.entries() == []
    # Nothing was done, so that the id may be used for what is right.
    await billing.add_credits(OPERATOR, world.tenant, 100, idempotency=ASKED)


async def test_a_tenant_can_not_be_granted_more_than_can_be_counted(
    billing: BillingService, world: CreditWorld
) -> None:
    await billing.set_balance(OPERATOR, world.tenant, available=10**18)
    for call in (
        billing.add_credits(OPERATOR, world.tenant, 1),
        billing.set_balance(OPERATOR, world.tenant, available=10**18 + 1),
    ):
        with pytest.raises(MemoroError, match="can be granted"):
            await call


async def test_setting_a_balance_says_by_how_much_it_was_changed(billing: BillingService, world: CreditWorld) -> None:
    await billing.add_credits(OPERATOR, world.tenant, 100, priority=1)
    await billing.set_balance(OPERATOR, world.tenant, available=150, note="a gift", idempotency=ASKED)
    await billing.set_balance(OPERATOR, world.tenant, available=20)
    repeated = await billing.set_balance(OPERATOR, world.tenant, available=150, note="a gift", idempotency=ASKED)
    assert (repeated.account.available, repeated.account.refunded) == (20, 130)
    # The gift had the lower number, and went first.
    assert [(grant.amount, grant.remaining) for grant in repeated.grants] == [(100, 20)]
    _, up, down = await world.entries()
    assert up.postings == {LedgerAccount.AVAILABLE: 50, LedgerAccount.GRANTED: -50}
    assert (up.kind, up.cause.note, up.cause.actor) == (EntryKind.ADJUSTMENT, "a gift", OPERATOR.api_key_id)
    assert down.postings == {LedgerAccount.AVAILABLE: -130, LedgerAccount.REFUNDED: 130}
    await billing.set_balance(OPERATOR, world.tenant, available=20)
    assert len(await world.entries()) == 3


async def test_a_tenant_is_told_once_that_little_is_left(billing: BillingService, world: CreditWorld) -> None:
    await billing.add_credits(OPERATOR, world.tenant, 100)
    await billing.set_balance(OPERATOR, world.tenant, low_balance=50)
    assert not await world.events()
    for available in (49, 10, 50, 49):
        await billing.set_balance(OPERATOR, world.tenant, available=available)
    assert (await world.events())["balance.low"] == 2
    await billing.set_balance(OPERATOR, world.tenant, low_balance=0)
    assert not (await world.balance()).account.is_low


async def test_entries_come_in_pages_the_last_first(billing: BillingService, world: CreditWorld) -> None:
    for amount in range(1, 6):
        await billing.add_credits(OPERATOR, world.tenant, amount)
    await billing.set_balance(OPERATOR, world.tenant, available=0)
    first = await billing.list_entries(world.tenant, LedgerFilter(), size=4, position=None)
    rest = await billing.list_entries(world.tenant, LedgerFilter(), size=4, position=first.next_position)
    assert [entry.seq for entry in (*first.items, *rest.items)] == [6, 5, 4, 3, 2, 1]
    assert rest.next_position is None
    for position in (("x",), ("-1",), ("9" * 30,), ("²",), ()):
        if position:
            with pytest.raises(MemoroError) as caught:
                await billing.list_entries(world.tenant, LedgerFilter(), size=4, position=position)
            assert caught.value.reason is Reason.PAGE_TOKEN_INVALID


async def test_entries_can_be_chosen(billing: BillingService, world: CreditWorld, clock: SetClock) -> None:
    await billing.add_credits(OPERATOR, world.tenant, 100)
    clock.moment += HOUR
    await billing.set_balance(OPERATOR, world.tenant, available=0)
    for chosen, expected in (
        (LedgerFilter(kinds=[EntryKind.ADJUSTMENT]), [2]),
        (LedgerFilter(kinds=[EntryKind.GRANT, EntryKind.ADJUSTMENT]), [2, 1]),
        (LedgerFilter(job_id=job(1)), []),
        (LedgerFilter(created_from=clock.moment), [2]),
        (LedgerFilter(created_until=clock.moment), [1]),
    ):
        page = await billing.list_entries(world.tenant, chosen, size=5, position=None)
        assert [entry.seq for entry in page.items] == expected


async def test_what_is_not_used_in_time_is_lost(billing: BillingService, world: CreditWorld) -> None:
    await billing.add_credits(OPERATOR, world.tenant, 100, expires_at=world.now + HOUR, note="for today")
    await billing.add_credits(OPERATOR, world.tenant, 50)
    await billing.expire(world.now)
    assert (await world.balance()).account.expired == 0
    await billing.expire(world.now + HOUR)
    await billing.expire(world.now + HOUR)
    account = (await world.balance()).account
    assert (account.available, account.expired, account.next_expiry_at) == (50, 100, None)
    *_, entry = await world.entries()
    assert (entry.kind, entry.cause.actor) == (EntryKind.EXPIRY, None)
    assert entry.postings == {LedgerAccount.AVAILABLE: -100, LedgerAccount.EXPIRED: 100}


async def test_the_ledger_can_not_be_changed(billing: BillingService, world: CreditWorld) -> None:
    await billing.add_credits(OPERATOR, world.tenant, 100)
    for statement in ("UPDATE ledger_entries SET note = 'x'", "DELETE FROM ledger_entries", "TRUNCATE ledger_entries"):
        with pytest.raises(asyncpg.RaiseError, match="append only"):
            await world.owner.execute(statement)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with world.database.tenant_tx(world.tenant) as connection:
            await connection.execute("UPDATE ledger_entries SET note = 'x'")


async def test_money_of_another_tenant_is_not_to_be_seen(
    billing: BillingService, world: CreditWorld, domain: Domain
) -> None:
    await billing.add_credits(OPERATOR, world.tenant, 100, idempotency=ASKED)
    for table in (
        "credit_accounts",
        "ledger_entries",
        "credit_grants",
        "credit_holds",
        "ai_calls",
        "idempotency_records",
    ):
        assert await domain.count(table) == 0
