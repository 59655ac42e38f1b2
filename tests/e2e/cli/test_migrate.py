"""`memoro migrate`, as an operator runs it."""

from __future__ import annotations

import asyncio
import json
import os
import sys

from memoro_core.clock import SystemClock
from memoro_core.embedded.stack import Stack
from memoro_core.postgres.database import open_database
from memoro_core.postgres.tenancy_store import PostgresTenancyStore
from memoro_core.settings import Settings
from memoro_core.tenancy.authentication import Authenticator
from memoro_core.tenancy.model import Scope


async def migrate(stack: Stack, *arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", "import typer; from memoro_core.postgres.command import migrate; typer.run(migrate)"),
        *arguments,
        env={
            "PATH": os.environ["PATH"],
            "MEMORO_DATABASE_URL": stack.database_url,
            "MEMORO_MIGRATION_DATABASE_URL": stack.owner_url,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


async def test_a_migrated_database_has_nothing_left_to_apply(stack: Stack) -> None:
    code, output, errors = await migrate(stack, "--json")
    assert (code, errors) == (0, "")
    assert json.loads(output)["applied"] == []
    code, output, _ = await migrate(stack, "--status", "--json")
    assert code == 0
    assert set(json.loads(output).values()) == {"applied"}


async def test_the_first_admin_key_works(stack: Stack) -> None:
    code, output, _ = await migrate(stack, "--admin-key", "--json")
    assert code == 0
    key = json.loads(output)["admin_key"]
    async with open_database(Settings.model_validate({"database_url": stack.database_url})) as database:
        authenticator = Authenticator(PostgresTenancyStore(database), SystemClock(), ttl=1)
        assert (await authenticator.authenticate(f"Bearer {key}")).scopes == {Scope.ADMIN}


async def test_a_wrong_url_is_an_error_that_says_so() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", "import typer; from memoro_core.postgres.command import migrate; typer.run(migrate)"),
        env={"PATH": os.environ["PATH"], "MEMORO_DATABASE_URL": "mysql://secret:word@nowhere/x"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate()
    assert process.returncode == 2
    assert "database_url" in errors.decode()
    assert "word" not in errors.decode()
