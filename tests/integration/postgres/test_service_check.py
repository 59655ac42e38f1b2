"""No process serves tenants as a role that row-level security does not bind."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from memoro_core.embedded.stack import Stack
from memoro_core.errors import Code, MemoroError
from memoro_core.postgres.database import open_database
from memoro_core.postgres.service_check import check_service_role
from memoro_core.settings import Settings


async def refusal(database_url: str) -> MemoroError:
    async with open_database(Settings.model_validate({"database_url": database_url})) as database:
        with pytest.raises(MemoroError) as caught:
            await check_service_role(database)
    assert caught.value.code is Code.FAILED_PRECONDITION
    return caught.value


async def test_the_service_role_is_accepted(settings: Settings) -> None:
    async with open_database(settings) as database:
        await check_service_role(database)


async def test_the_owner_of_the_tables_is_refused(owner_database_url: str) -> None:
    assert "owns nothing" in str(await refusal(owner_database_url))


async def start_refused(database_url: str) -> MemoroError:
    with pytest.raises(MemoroError) as caught:
        async with open_database(Settings.model_validate({"database_url": database_url})):
            pass
    return caught.value


async def test_a_database_without_the_schema_says_what_to_do(stack: Stack) -> None:
    assert "run memoro migrate" in str(await start_refused(stack.postgres.owner_url("template1")))


async def test_a_refused_login_is_told_without_the_password(database_url: str) -> None:
    parts = urlsplit(database_url)
    wrong = parts._replace(netloc=f"{parts.username}:wrong-word@{parts.hostname}:{parts.port}").geturl()
    error = await start_refused(wrong)
    assert error.code is Code.FAILED_PRECONDITION
    assert str(parts.username) in str(error)
    assert "wrong-word" not in str(error)


async def test_a_database_that_is_not_there_is_named(stack: Stack) -> None:
    assert "nowhere" in str(await start_refused(stack.postgres.owner_url("nowhere")))
