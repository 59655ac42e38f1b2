"""Migrations: the files of `migrations/` applied in order, by one migrator at a time."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias
from urllib.parse import unquote, urlsplit

import asyncpg

from memoro_core.diagnosis.requirements import OLDEST_PGVECTOR, OLDEST_POSTGRES
from memoro_core.postgres.dbmate import dbmate_url, run_dbmate
from memoro_core.postgres.migration_errors import (
    DatabaseMissingError,
    DatabaseUnreachableError,
    LoginRefusedError,
    MigrationBusyError,
    MigrationError,
    RightMissingError,
    ServerUnsuitableError,
)
from memoro_core.postgres.queries import load_queries
from memoro_core.postgres.service_role import ensure_service_role

CONNECT_TIMEOUT = 10.0
CONNECT_PATIENCE = 10.0
CONNECT_POLL = 0.2
LOCK_TIMEOUT = 300.0
LOCK_POLL = 0.1
LOCK_KEY = int.from_bytes(b"memoro")
MAINTENANCE_DATABASE = "postgres"

_SQL = load_queries("migrate")
_FILE = re.compile(r"^(?P<version>\d+)_(?P<name>.+)\.sql$")
_Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: its version (YYYYMMDDHHMMSS), its name, and whether the database has it."""

    version: str
    name: str
    applied: bool


@dataclass(frozen=True, slots=True)
class MigrationReport:
    """What `migrate` did: the versions it applied, and the services' role it saw to (None: the owner is theirs)."""

    applied: tuple[str, ...]
    created_database: bool
    service_role: str | None


def migrations_dir() -> Path:
    """The folder of migrations: the one in the installed package, else the one of the repository."""
    package = Path(__file__).resolve().parents[1]
    packaged = package / "migrations"
    return packaged if packaged.is_dir() else package.parents[1] / "migrations"


async def migrate(
    owner_url: str, *, service_url: str | None, directory: Path | None = None, lock_timeout: float = LOCK_TIMEOUT
) -> MigrationReport:
    """Bring the database up to date, creating it when it is missing, and see to the role that services log in as.

    Both URLs are PostgreSQL's, straight to the server rather than through a pooler. Concurrent calls queue, at most
    `lock_timeout` seconds; the later ones find nothing to do. Raises `MigrationError`.
    """
    directory = directory or migrations_dir()
    created = await _ensure_database(owner_url)
    async with _session(owner_url) as connection:
        await _lock(connection, lock_timeout)
        missing = tuple(one.version for one in await _migrations(connection, directory) if not one.applied)
        if missing:
            await _check_server(connection)
            [(user, database, encrypted)] = await connection.fetch(_SQL["session_facts"])
            await run_dbmate(dbmate_url(owner_url, user=user, database=database, encrypted=encrypted), directory)
        role = await ensure_service_role(connection, service_url) if service_url is not None else None
    return MigrationReport(missing, created, role)


async def status(owner_url: str, *, directory: Path | None = None) -> tuple[Migration, ...]:
    """Every migration there is, in order, and whether the database has it. Raises `MigrationError`."""
    directory = directory or migrations_dir()
    try:
        async with _session(owner_url) as connection:
            return await _migrations(connection, directory)
    except DatabaseMissingError:
        return _files(directory, frozenset())


def known_versions() -> tuple[str, ...]:
    """The versions of all migrations of this program, in order."""
    return tuple(one.version for one in _files(migrations_dir(), frozenset()))


async def pending(owner_url: str, *, directory: Path | None = None) -> tuple[str, ...]:
    """The versions that the database still lacks, in order. Raises `MigrationError`."""
    return tuple(one.version for one in await status(owner_url, directory=directory) if not one.applied)


def _files(directory: Path, applied: frozenset[str]) -> tuple[Migration, ...]:
    matches = (_FILE.match(file.name) for file in sorted(directory.glob("*.sql")))
    return tuple(
        Migration(match["version"], match["name"], match["version"] in applied)
        for match in matches
        if match is not None
    )


async def _migrations(connection: _Connection, directory: Path) -> tuple[Migration, ...]:
    applied: frozenset[str] = frozenset()
    if await connection.fetchval(_SQL["is_migrated"]):
        applied = frozenset(record["version"] for record in await connection.fetch(_SQL["applied_migrations"]))
    return _files(directory, applied)


async def _ensure_database(owner_url: str) -> bool:
    """Create the database when there is none; whether there was none."""
    try:
        async with _session(owner_url):
            return False
    except DatabaseMissingError:
        name = unquote(urlsplit(owner_url).path.removeprefix("/"))
    async with _session(owner_url, MAINTENANCE_DATABASE) as connection:
        try:
            await connection.execute(await connection.fetchval(_SQL["create_database"], name))
        except (asyncpg.DuplicateDatabaseError, asyncpg.UniqueViolationError):
            return False  # Another migrator was quicker.
    return True


async def _lock(connection: _Connection, patience: float) -> None:
    """Take the lock of this database's migrations, which ends with the session."""
    deadline = asyncio.get_running_loop().time() + patience
    while not await connection.fetchval(_SQL["try_migration_lock"], LOCK_KEY):
        if asyncio.get_running_loop().time() > deadline:
            raise MigrationBusyError(f"({patience:.0f} s)")
        await asyncio.sleep(LOCK_POLL)


async def _check_server(connection: _Connection) -> None:
    [facts] = await connection.fetch(_SQL["server_facts"])
    if facts["version"] < OLDEST_POSTGRES:
        raise ServerUnsuitableError(f"It is version {facts['version_name']}; 16 or later is needed.")
    if facts["encoding"] != "UTF8":
        raise ServerUnsuitableError(f"The database's encoding is {facts['encoding']}; UTF8 is needed.")
    if facts["pgvector"] is None:
        raise ServerUnsuitableError("It has no pgvector: install that extension on the server.")
    if tuple(int(part) for part in facts["pgvector"].split(".")[:2]) < OLDEST_PGVECTOR:
        raise ServerUnsuitableError(f"Its pgvector is {facts['pgvector']}; 0.8 or later is needed.")


@asynccontextmanager
async def _session(url: str, database: str | None = None) -> AsyncIterator[_Connection]:
    """A connection, whose troubles are told as `MigrationError`s."""
    connection = await _connect(url, database)
    try:
        yield connection
    except asyncpg.InsufficientPrivilegeError as error:
        raise RightMissingError(f"({error})") from error
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise MigrationError(f"({error})") from error
    finally:
        await connection.close(timeout=CONNECT_TIMEOUT)


async def _connect(url: str, database: str | None) -> _Connection:
    """A connection; a server that is just starting is waited for."""
    scheme, separator, rest = url.partition("://")
    dsn = f"{scheme.partition('+')[0]}{separator}{rest}"
    deadline = asyncio.get_running_loop().time() + CONNECT_PATIENCE
    while True:
        try:
            return await asyncpg.connect(dsn, database=database, timeout=CONNECT_TIMEOUT)
        except asyncpg.InvalidCatalogNameError as error:
            raise DatabaseMissingError from error
        except (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InsufficientPrivilegeError) as error:
            raise LoginRefusedError(f"({error})") from error
        except (OSError, TimeoutError, asyncpg.CannotConnectNowError, asyncpg.TooManyConnectionsError) as error:
            if asyncio.get_running_loop().time() > deadline:
                raise DatabaseUnreachableError(f"({error or type(error).__name__})") from error
        except (asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
            raise DatabaseUnreachableError(f"({error})") from error
        await asyncio.sleep(CONNECT_POLL)
