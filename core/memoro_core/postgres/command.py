"""`memoro migrate`."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator, Mapping
from typing import Annotated

import asyncpg
import typer
from pydantic import ValidationError

from memoro_core.clock import SystemClock
from memoro_core.errors import MemoroError
from memoro_core.postgres.database import open_database
from memoro_core.postgres.embedding_model import ensure_vector_index
from memoro_core.postgres.migrate import migrate as run_migrations
from memoro_core.postgres.migrate import status as migration_status
from memoro_core.postgres.migration_errors import MigrationError
from memoro_core.postgres.tenancy_store import PostgresTenancyStore
from memoro_core.settings import LOCAL_EMBEDDING_DIMENSIONS, Settings, problems_of
from memoro_core.tenancy.bootstrap import Bootstrap
from memoro_core.tenancy.model import Scope


def migrate(
    status: Annotated[bool, typer.Option("--status", help="Only say which migrations the database has.")] = False,
    admin_key: Annotated[
        bool, typer.Option("--admin-key", help="Afterwards make a key with the scope admin, and print it.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Brings the database to the current schema, and sees to the role that services connect as.

    MEMORO_MIGRATION_DATABASE_URL is the owner's, MEMORO_DATABASE_URL the services'.
    """
    try:
        report = asyncio.run(_status() if status else _migrate(admin_key))
    except ValidationError as error:
        _fail("\n".join(problems_of(error)), 2)
    except (MigrationError, MemoroError) as error:
        _fail(str(error), 1)
    else:
        sys.stdout.write(json.dumps(report) + "\n" if as_json else "".join(f"{line}\n" for line in _words(report)))


async def _status() -> dict[str, object]:
    return {
        f"{one.version} {one.name}": "applied" if one.applied else "missing"
        for one in await migration_status(Settings().owner_database_url)
    }


async def _migrate(admin_key: bool) -> dict[str, object]:
    settings = Settings()
    report = await run_migrations(settings.owner_database_url, service_url=str(settings.database_url))
    local = settings.embedding_provider == "local"
    owner = await asyncpg.connect(settings.owner_database_url)
    try:
        await ensure_vector_index(owner, LOCAL_EMBEDDING_DIMENSIONS if local else settings.openai_embedding_dimensions)
    finally:
        await owner.close()
    result: dict[str, object] = {
        "applied": list(report.applied),
        "created_database": report.created_database,
        "service_role": report.service_role,
    }
    if admin_key:
        async with open_database(settings) as database:
            bootstrap = Bootstrap(PostgresTenancyStore(database), SystemClock())
            result["admin_key"] = await bootstrap.key(await bootstrap.operator(), "first admin key", (Scope.ADMIN,))
    return result


def _words(report: Mapping[str, object]) -> Iterator[str]:
    """A report for people, a line each."""
    match report:
        case {"applied": list(applied), "created_database": created, "service_role": role}:
            if created:
                yield "created the database"
            yield f"applied {', '.join(applied)}" if applied else "up to date"
            yield (
                f"services connect as {role}"
                if role
                else ("services have no role of their own yet: let MEMORO_DATABASE_URL name one, and migrate again")
            )
            if "admin_key" in report:
                yield f"admin key, shown only now: {report['admin_key']}"
        case _:
            yield from (f"{name}: {state}" for name, state in report.items())


def _fail(text: str, code: int) -> None:
    sys.stderr.write(f"error: {text}\n")
    raise typer.Exit(code)
