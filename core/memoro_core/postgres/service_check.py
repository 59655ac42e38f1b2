"""Refuses to serve tenants through a role that row-level security does not bind."""

from __future__ import annotations

from typing import Final

import asyncpg

from memoro_core.errors import Code, MemoroError, Reason
from memoro_core.postgres.database import Database
from memoro_core.postgres.queries import load_queries

_SQL: Final = load_queries("service_role")


async def check_service_role(database: Database) -> None:
    """To be called at start. Raises FAILED_PRECONDITION for a superuser, an owner, or a missing schema."""
    try:
        async with database.system_tx() as connection:
            row = (await connection.fetch(_SQL["privileges_of_session"]))[0]
    except (asyncpg.UndefinedTableError, asyncpg.UndefinedObjectError, asyncpg.InvalidParameterValueError):
        raise _refused("the database has no schema yet: run memoro migrate") from None
    if row["unbound"] or row["owns"]:
        raise _refused(
            "MEMORO_DATABASE_URL must name a role that is no superuser and owns nothing, or tenants are not kept "
            "apart; memoro migrate makes one"
        )


def _refused(text: str) -> MemoroError:
    return MemoroError(Code.FAILED_PRECONDITION, Reason.INTERNAL, text)
