"""A database whose transactions break off: after some statement, as when the process or its connection dies there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

from memoro_core.ids import TenantId
from memoro_core.postgres.database import Connection, Database


class Crashed(Exception):
    """The transaction has come to the statement after which it breaks off."""


class CrashingConnection:
    """Passes statements on, until so many have run; then PostgreSQL ends the connection, or the caller fails."""

    def __init__(self, connection: Connection, statements: int, *, ended: bool) -> None:
        self._connection = connection
        self._left = statements
        self._ended = ended

    async def execute(self, *arguments: Any) -> Any:
        return await self._run("execute", *arguments)

    async def fetch(self, *arguments: Any) -> Any:
        return await self._run("fetch", *arguments)

    async def fetchrow(self, *arguments: Any) -> Any:
        return await self._run("fetchrow", *arguments)

    async def fetchval(self, *arguments: Any) -> Any:
        return await self._run("fetchval", *arguments)

    async def _run(self, method: str, *arguments: Any) -> Any:
        answer = await getattr(self._connection, method)(*arguments)
        self._left -= 1
        if self._left == 0:
            if self._ended:
                await self._connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
            raise Crashed
        return answer


class CrashingDatabase(Database):
    """Lends connections whose transactions break off while `after` is set: after so many statements of each.

    After 0 each is made, and its answer lost: whoever asked does not know. `committed` says that it was.
    """

    def __init__(self, database: Database) -> None:
        super().__init__(database._pool, acquire_timeout=database._acquire_timeout)
        self.after: int | None = None
        self.ended = False
        self.committed = False

    @asynccontextmanager
    async def tenant_tx(
        self, tenant_id: TenantId, *, durable: bool = True, generic_plans: bool = False
    ) -> AsyncIterator[Connection]:
        async with super().tenant_tx(tenant_id, durable=durable, generic_plans=generic_plans) as connection:
            if not self.after:
                yield connection
            else:
                yield cast(Connection, CrashingConnection(connection, self.after, ended=self.ended))
        if self.after == 0:
            self.committed = True
            raise Crashed
