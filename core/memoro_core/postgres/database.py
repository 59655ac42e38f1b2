"""The pool, and the two doors to it: `tenant_tx` for one tenant's data, `system_tx` for what crosses tenants."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy
from pgvector.asyncpg import register_vector
from pydantic_core import from_json, to_json

from memoro_core.errors import Code, MemoroError, Reason, unavailable
from memoro_core.ids import TenantId
from memoro_core.settings import Settings

Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"

_CLAIM_LOCKS = 0x636C6D
"""The advisory locks of claims: one per tenant, which a few tenants may share."""
_LOCK_MASK = 0x7FFFFFFF
_CLAIM_PATIENCE = "2s"

_UNREACHABLE = (
    asyncpg.PostgresConnectionError,
    # What asyncpg says of a connection that PostgreSQL has ended and whose end has not arrived yet.
    asyncpg.InternalClientError,
    asyncpg.InterfaceError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    # Two transactions were in each other's way, and this one was given up: whatever it was to do can be done again.
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    OSError,
    TimeoutError,
)
"""What says that the database is away, overloaded or turning over, rather than that a statement is wrong."""


class Database:
    """A pool of connections, lent for one transaction at a time.

    Both doors commit when their block ends well, and raise UNAVAILABLE when PostgreSQL is away.
    """

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], *, acquire_timeout: float) -> None:
        self._pool = pool
        self._acquire_timeout = acquire_timeout

    @asynccontextmanager
    async def tenant_tx(
        self, tenant_id: TenantId, *, durable: bool = True, generic_plans: bool = False
    ) -> AsyncIterator[Connection]:
        """A transaction that sees and writes one tenant's rows only. The only way to a tenant's data.

        With `durable=False` the commit does not wait for the disk: for what a crash may take back. With `generic_plans`
        statements are planned for the average tenant: for those that join many rows by key. Of a tenant that came after
        the last ANALYZE the planner would think that it has next to no rows, and read all of them for each key.
        """
        # One round trip opens the transaction and the door; `tenant_id` is a UUID, so it can't carry SQL.
        begin = f"BEGIN; SET LOCAL app.tenant_id = '{tenant_id!s}'"
        if generic_plans:
            begin += "; SET LOCAL plan_cache_mode = force_generic_plan"
        async with self._transaction(
            begin if durable else f"{begin}; SET LOCAL synchronous_commit = off"
        ) as connection:
            yield connection

    @asynccontextmanager
    async def system_tx(
        self, *, durable: bool = True, claiming_for: Collection[TenantId] = ()
    ) -> AsyncIterator[Connection]:
        """A transaction over the queue and the credentials of all tenants; no memory can be read in it.

        One that claims jobs for some tenants waits until no other does for any of them, so that what it counts stays
        true.
        """
        begin = "BEGIN; SET LOCAL ROLE memoro_system"
        if claiming_for:
            # Always in one order, so that no two wait for each other; and not held for long by a process that is
            # stopped.
            locks = sorted({tenant_id.int & _LOCK_MASK for tenant_id in claiming_for})
            begin += f"; SET LOCAL idle_in_transaction_session_timeout = '{_CLAIM_PATIENCE}'"
            begin += "".join(f"; SELECT pg_advisory_xact_lock({_CLAIM_LOCKS}, {lock})" for lock in locks)
        async with self._transaction(
            begin if durable else f"{begin}; SET LOCAL synchronous_commit = off"
        ) as connection:
            yield connection

    @asynccontextmanager
    async def _transaction(self, begin: str) -> AsyncIterator[Connection]:
        try:
            async with self._pool.acquire(timeout=self._acquire_timeout) as connection:
                try:
                    await connection.execute(begin)
                    yield connection
                    # Of a transaction in which a statement failed, PostgreSQL answers COMMIT with a silent ROLLBACK.
                    if await connection.execute("COMMIT") != "COMMIT":
                        raise RuntimeError("a failed transaction can't be committed: let its exception pass")
                except BaseException:
                    # Asked in any case: while a statement is being cancelled, the connection does not know yet whether
                    # that one began a transaction. One that is lost can't be asked, and has nothing to roll back.
                    with suppress(*_UNREACHABLE):
                        await connection.execute("ROLLBACK")
                    raise
        except MemoroError:
            raise
        except _UNREACHABLE as error:
            raise unavailable("database") from error

    async def ping(self) -> None:
        """Asks PostgreSQL for a sign of life. Raises UNAVAILABLE."""
        try:
            async with self._pool.acquire(timeout=self._acquire_timeout) as connection:
                await connection.execute("SELECT 1")
        except _UNREACHABLE as error:
            raise unavailable("database") from error

    @property
    def in_use(self) -> int:
        """Connections lent at the moment."""
        return self._pool.get_size() - self._pool.get_idle_size()

    @property
    def size(self) -> int:
        """Connections open at the moment."""
        return self._pool.get_size()


@asynccontextmanager
async def open_database(settings: Settings) -> AsyncIterator[Database]:
    """The database of these settings, closed at the end.

    Raises UNAVAILABLE when it can't be reached, FAILED_PRECONDITION when it refuses the service or has no schema.
    """
    try:
        pool = await asyncpg.create_pool(
            str(settings.database_url),
            min_size=1,
            max_size=settings.database_pool_size,
            command_timeout=settings.database_timeout,
            timeout=settings.database_timeout,
            statement_cache_size=settings.database_statement_cache,
            max_inactive_connection_lifetime=300,
            init=_prepare,
            reset=_reset,
            server_settings={
                "application_name": "memoro",
                "jit": "off",
                # A process that is stopped or cut off in the middle of a transaction must not keep its locks.
                "idle_in_transaction_session_timeout": str(round(settings.database_timeout * 2000)),
            },
        )
    except (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError) as error:
        # PostgreSQL names the role or the database, never the password.
        raise MemoroError(Code.FAILED_PRECONDITION, Reason.INTERNAL, f"PostgreSQL refuses: {error}") from error
    except _UNREACHABLE as error:
        [host] = settings.database_url.hosts()[:1]
        where = f"{host['host']}:{host['port'] or 5432}"
        raise MemoroError(
            Code.UNAVAILABLE, Reason.DEPENDENCY_UNAVAILABLE, f"PostgreSQL at {where} can't be reached", retry_after=1.0
        ) from error
    try:
        yield Database(pool, acquire_timeout=settings.database_timeout)
    finally:
        try:
            await pool.close()
        except BaseException:
            pool.terminate()
            raise


async def _prepare(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    try:
        await register_vector(connection)
    except ValueError:
        raise MemoroError(
            Code.FAILED_PRECONDITION, Reason.INTERNAL, "the database has no schema yet: run memoro migrate"
        ) from None
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        format="binary",
        encoder=lambda value: b"\x01" + to_json(value),
        decoder=lambda data: from_json(data[1:]),
    )


async def _reset(connection: Any) -> None:
    """Every setting is made with SET LOCAL, so that the usual round trip of RESET ALL has nothing to do."""
    if connection.is_in_transaction():
        await connection.execute("ROLLBACK")


def rows_of(status: str) -> int:
    """How many rows a statement touched, from its command tag (`UPDATE 3`)."""
    return int(status.rsplit(" ", 1)[-1])
