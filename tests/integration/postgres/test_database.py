"""The two doors to the database, and what they do when it is away."""

from __future__ import annotations

import asyncio
import contextlib

import asyncpg
import pytest

from memoro_core.embedded.ports import free_port
from memoro_core.errors import Code, MemoroError, Reason
from memoro_core.postgres.database import open_database
from memoro_core.settings import Settings
from tests.support.domain import Domain


async def test_the_tenant_is_set_for_one_transaction_only(domain: Domain) -> None:
    async with domain.database.tenant_tx(domain.tenant) as connection:
        assert await connection.fetchval("SELECT current_tenant()") == domain.tenant
    async with domain.database.system_tx() as connection:
        assert await connection.fetchval("SELECT current_tenant()") is None
        assert await connection.fetchval("SELECT current_user") == "memoro_system"


async def test_concurrent_transactions_of_two_tenants_see_each_their_own(domain: Domain) -> None:
    other = await domain.new_tenant()

    async def seen(tenant: object) -> object:
        async with domain.database.tenant_tx(tenant) as connection:  # type: ignore[arg-type]
            await asyncio.sleep(0)
            return await connection.fetchval("SELECT current_tenant()")

    tenants = [domain.tenant, other] * 50
    assert await asyncio.gather(*(seen(tenant) for tenant in tenants)) == tenants


async def test_an_exception_rolls_back_and_leaves_the_connection_usable(domain: Domain) -> None:
    async def fail() -> None:
        async with domain.database.tenant_tx(domain.tenant) as connection:
            await connection.execute("INSERT INTO conversations VALUES ($1, 'u', 'c', 0, now(), now())", domain.tenant)
            raise ZeroDivisionError

    for _ in range(30):
        with pytest.raises(ZeroDivisionError):
            await fail()
    assert await domain.count("conversations") == 0


async def test_a_cancelled_transaction_is_rolled_back(domain: Domain) -> None:
    started = asyncio.Event()

    async def insert() -> None:
        async with domain.database.tenant_tx(domain.tenant) as connection:
            await connection.execute("INSERT INTO conversations VALUES ($1, 'u', 'c', 0, now(), now())", domain.tenant)
            started.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(insert())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await domain.count("conversations") == 0


async def test_a_transaction_that_is_cancelled_at_any_moment_leaves_a_clean_connection(domain: Domain) -> None:
    complaints: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))

    async def ask() -> None:
        async with domain.database.tenant_tx(domain.tenant) as connection:
            await connection.fetchval("SELECT 1")

    for turns in range(40):
        task = asyncio.create_task(ask())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    async with domain.database.system_tx() as connection:
        assert await connection.fetchval("SELECT current_tenant()") is None
    assert not complaints


async def test_a_block_that_swallows_a_failure_does_not_pass_for_committed(domain: Domain) -> None:
    async def swallow() -> None:
        async with domain.database.tenant_tx(domain.tenant) as connection:
            with contextlib.suppress(asyncpg.PostgresError):
                await connection.execute("SELECT 1 / 0")

    with pytest.raises(RuntimeError, match="failed transaction"):
        await swallow()


async def test_an_exhausted_pool_is_unavailable_within_its_timeout(settings: Settings) -> None:
    tight = settings.model_copy(update={"database_pool_size": 2, "database_timeout": 0.3})
    async with open_database(tight) as database, database.system_tx(), database.system_tx():
        with pytest.raises(MemoroError) as caught:
            async with database.system_tx():
                pass
    assert caught.value.reason is Reason.DEPENDENCY_UNAVAILABLE


async def test_a_database_that_is_away_is_unavailable() -> None:
    settings = Settings.model_validate({"database_url": f"postgresql://nobody@127.0.0.1:{free_port()}/none"})
    with pytest.raises(MemoroError) as caught:
        async with open_database(settings):
            pass
    assert caught.value.reason is Reason.DEPENDENCY_UNAVAILABLE


async def test_a_connection_that_the_server_ends_is_unavailable_once_and_replaced(
    domain: Domain, owner_database_url: str
) -> None:
    owner = await asyncpg.connect(owner_database_url)

    async def lose_the_connection() -> None:
        async with domain.database.system_tx() as connection:
            pid = await connection.fetchval("SELECT pg_backend_pid()")
            await owner.execute("SELECT pg_terminate_backend($1, 5000)", pid)
            await connection.fetchval("SELECT 1")

    with pytest.raises(MemoroError) as caught:
        await lose_the_connection()
    await owner.close()
    assert caught.value.reason is Reason.DEPENDENCY_UNAVAILABLE
    await domain.database.ping()


async def test_a_transaction_that_is_given_up_in_a_deadlock_may_be_tried_again(domain: Domain) -> None:
    both = asyncio.Barrier(2)

    async def lock(first: int, second: int) -> None:
        async with domain.database.tenant_tx(domain.tenant) as connection:
            await connection.execute("SELECT pg_advisory_xact_lock(4711, $1::integer)", first)
            await both.wait()
            await connection.execute("SELECT pg_advisory_xact_lock(4711, $1::integer)", second)

    results = await asyncio.gather(lock(1, 2), lock(2, 1), return_exceptions=True)
    [given_up] = [result for result in results if result is not None]
    assert isinstance(given_up, MemoroError)
    assert (given_up.code, given_up.retry_after) == (Code.UNAVAILABLE, 1.0)
