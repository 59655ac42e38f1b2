"""No process serves tenants as a role that row-level security does not bind."""

from __future__ import annotations

import pytest

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
