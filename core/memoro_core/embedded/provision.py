"""The tenant `dev` and its keys, for `memoro dev`."""

from __future__ import annotations

from memoro_core.clock import SystemClock
from memoro_core.embedded.dev import DevKeys
from memoro_core.postgres.database import open_database
from memoro_core.postgres.tenancy_store import PostgresTenancyStore
from memoro_core.settings import Settings
from memoro_core.tenancy.bootstrap import DEV_ADMIN_KEY, DEV_KEY, DEV_TENANT, Bootstrap
from memoro_core.tenancy.model import DEFAULT_SCOPES, Scope


async def provision_dev(settings: Settings, known: DevKeys | None) -> DevKeys:
    """Makes the tenant `dev` if it is missing; its keys are those known from last time, or new ones."""
    async with open_database(settings) as database:
        bootstrap = Bootstrap(PostgresTenancyStore(database), SystemClock())
        tenant = await bootstrap.tenant(DEV_TENANT, "Development")
        operator = await bootstrap.operator()
        return DevKeys(
            api_key=await bootstrap.key(tenant, DEV_KEY, DEFAULT_SCOPES, known=known.api_key if known else None),
            admin_key=await bootstrap.key(
                operator, DEV_ADMIN_KEY, (Scope.ADMIN,), known=known.admin_key if known else None
            ),
        )
