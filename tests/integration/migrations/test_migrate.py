"""`migrate` on a real server: the files, the lock, the database and the services' role."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from memoro_core.embedded.stack import Stack
from memoro_core.postgres import migrate as migrate_module
from memoro_core.postgres.migrate import Migration, migrate, migrations_dir, pending, status
from memoro_core.postgres.migration_errors import (
    DatabaseUnreachableError,
    LoginRefusedError,
    MigrationBusyError,
    MigrationFailedError,
    RightMissingError,
    ServiceRoleUnsuitableError,
)

ROLES = """
    SELECT pg_has_role('memoro_app', 'USAGE'), pg_has_role('memoro_system', 'USAGE'),
        pg_has_role('memoro_system', 'SET')
"""


def on_database(url: str, name: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def as_user(url: str, user: str, password: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{user}:{password}@{parts.hostname}:{parts.port}"))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Two migrations of no consequence, the second slow enough for others to come in between."""
    (tmp_path / "20260101000001_first.sql").write_text("-- migrate:up\nCREATE TABLE first (id int);\n-- migrate:down\n")
    (tmp_path / "20260101000002_second.sql").write_text(
        "-- migrate:up\nSELECT pg_sleep(0.3);\nCREATE TABLE second (id int);\n-- migrate:down\n"
    )
    return tmp_path


@pytest.fixture
async def fresh(owner_database_url: str) -> AsyncIterator[str]:
    """The owner's URL of a database that does not exist, dropped at the end if it does by then."""
    name = f"Weird \"name' {secrets.token_hex(4)}"
    yield on_database(owner_database_url, name.replace(" ", "%20").replace('"', "%22"))
    connection = await asyncpg.connect(owner_database_url)
    await connection.execute('DROP DATABASE IF EXISTS "{}" WITH (FORCE)'.format(name.replace('"', '""')))
    await connection.close()


@pytest.fixture
async def role(owner_database_url: str) -> AsyncIterator[str]:
    """A role that does not exist yet, dropped at the end."""
    name = f"svc-{secrets.token_hex(4)}"
    yield name
    connection = await asyncpg.connect(owner_database_url)
    await connection.execute(f'DROP ROLE IF EXISTS "{name}"')
    await connection.close()


async def test_creates_the_database_and_applies_the_files_in_order(fresh: str, directory: Path) -> None:
    assert await pending(fresh, directory=directory) == ("20260101000001", "20260101000002")

    report = await migrate(fresh, service_url=None, directory=directory)

    assert report.created_database
    assert report.applied == ("20260101000001", "20260101000002")
    assert await status(fresh, directory=directory) == (
        Migration("20260101000001", "first", True),
        Migration("20260101000002", "second", True),
    )
    again = await migrate(fresh, service_url=None, directory=directory)
    assert (again.applied, again.created_database) == ((), False)


async def test_concurrent_migrators_queue_and_one_does_the_work(fresh: str, directory: Path) -> None:
    reports = await asyncio.gather(*(migrate(fresh, service_url=None, directory=directory) for _ in range(4)))
    assert sorted(len(report.applied) for report in reports) == [0, 0, 0, 2]


async def test_a_lock_held_for_too_long_is_told(stack: Stack, directory: Path) -> None:
    holder = await asyncpg.connect(stack.owner_url)
    await holder.execute("SELECT pg_advisory_lock($1)", migrate_module.LOCK_KEY)
    with pytest.raises(MigrationBusyError):
        await migrate(stack.owner_url, service_url=None, directory=directory, lock_timeout=0.2)
    await holder.close()


async def test_a_failing_migration_leaves_nothing_and_says_why(fresh: str, directory: Path) -> None:
    (directory / "20260101000003_third.sql").write_text(
        "-- migrate:up\nCREATE TABLE third (id int);\nSELECT no_such_function();\n-- migrate:down\n"
    )
    with pytest.raises(MigrationFailedError, match="no_such_function") as raised:
        await migrate(fresh, service_url=None, directory=directory)
    assert (urlsplit(fresh).password or "?") not in str(raised.value)
    assert await pending(fresh, directory=directory) == ("20260101000003",)
    connection = await asyncpg.connect(fresh)
    assert await connection.fetchval("SELECT to_regclass('third')") is None
    await connection.close()


async def test_a_migration_out_of_order_is_refused(fresh: str, directory: Path) -> None:
    await migrate(fresh, service_url=None, directory=directory)
    (directory / "20250101000000_late.sql").write_text("-- migrate:up\nSELECT 1;\n-- migrate:down\n")
    with pytest.raises(MigrationFailedError):
        await migrate(fresh, service_url=None, directory=directory)


async def test_the_services_role_is_made_and_takes_a_new_password(stack: Stack, role: str) -> None:
    for password in ("first-secret", "второй секрет", "p%2540ss", "a\u00adb\u2168", "\u05e9\u05dcabc", "bell%07"):
        url = as_user(stack.owner_url, role, password.replace(" ", "%20"))
        assert (await migrate(stack.owner_url, service_url=url)).service_role == role
        connection = await asyncpg.connect(url)
        assert tuple(*await connection.fetch(ROLES)) == (True, False, True)
        facts = await connection.fetch(
            "SELECT rolsuper, rolbypassrls, rolcreatedb, rolcreaterole FROM pg_roles WHERE rolname = current_user"
        )
        assert tuple(*facts) == (False, False, False, False)
        await connection.close()


async def test_the_password_is_never_in_the_servers_log(stack: Stack, role: str) -> None:
    secret = secrets.token_hex(16)
    owner = await asyncpg.connect(stack.owner_url)
    await owner.execute("ALTER SYSTEM SET log_statement = 'all'")
    await owner.execute("SELECT pg_reload_conf()")
    await asyncio.sleep(0.2)
    await migrate(stack.owner_url, service_url=as_user(stack.owner_url, role, secret))
    await owner.execute("ALTER SYSTEM RESET log_statement")
    await owner.execute("SELECT pg_reload_conf()")
    await owner.close()
    log = (stack.data_dir / "postgres" / "postgres.log").read_text()
    assert f'CREATE ROLE "{role}"' in log
    assert secret not in log


async def test_a_role_that_passes_by_row_security_is_refused(stack: Stack, role: str) -> None:
    owner = await asyncpg.connect(stack.owner_url)
    await owner.execute(f'CREATE ROLE "{role}" LOGIN BYPASSRLS')
    await owner.close()
    with pytest.raises(ServiceRoleUnsuitableError, match=role):
        await migrate(stack.owner_url, service_url=as_user(stack.owner_url, role, "x"))


async def test_an_owner_who_may_not_make_roles_is_told_what_to_do(stack: Stack, role: str) -> None:
    owner = await asyncpg.connect(stack.owner_url)
    await owner.execute(f'CREATE ROLE "{role}" LOGIN PASSWORD \'weak\'; GRANT pg_read_all_data TO "{role}"')
    await owner.close()
    weak = as_user(stack.owner_url, role, "weak")
    with pytest.raises(RightMissingError, match="GRANT memoro_app"):
        await migrate(weak, service_url=as_user(stack.owner_url, "nobody_yet", "x"))
    # Where the role is already as it must be, nothing is asked of the owner.
    assert (await migrate(weak, service_url=stack.database_url)).service_role == "memoro_service"


async def test_the_owner_as_service_is_left_alone(stack: Stack) -> None:
    assert (await migrate(stack.owner_url, service_url=stack.owner_url)).service_role is None


async def test_a_wrong_password_and_a_missing_server_are_told_apart(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(LoginRefusedError):
        await migrate(as_user(stack.owner_url, "postgres", "wrong"), service_url=None)
    monkeypatch.setattr(migrate_module, "CONNECT_PATIENCE", 0.0)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(DatabaseUnreachableError):
            await migrate(f"postgresql://postgres@127.0.0.1:{closed.getsockname()[1]}/memoro", service_url=None)


async def test_the_schemas_own_migrations_are_all_applied(stack: Stack) -> None:
    assert migrations_dir().name == "migrations"
    assert await pending(stack.owner_url) == ()
