"""The role that services log in as: its own, powerless by itself, a member of the two roles that the schema knows."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

import asyncpg

from memoro_core.postgres.migration_errors import RightMissingError, ServiceRoleUnsuitableError
from memoro_core.postgres.queries import load_queries
from memoro_core.postgres.scram import scram_verifier

_SQL = load_queries("migrate")
SCHEMA_ROLES = frozenset({"memoro_app", "memoro_system"})


async def ensure_service_role(connection: asyncpg.Connection[asyncpg.Record], service_url: str) -> str | None:
    """See to the role of `service_url`: there, with this password, and able to do what services do; answers its name.

    None when it is the session's own user. A role that could pass by row-level security is refused rather than changed,
    since somebody may depend on its powers. Raises `ServiceRoleUnsuitableError` and `RightMissingError`.
    """
    parts = urlsplit(service_url)
    name = unquote(parts.username or "")
    [session] = await connection.fetch(_SQL["session_facts"])
    if not name or name == session["user_name"]:
        return None
    if name in SCHEMA_ROLES:
        raise ServiceRoleUnsuitableError(f"The role {name} is the schema's own: name another in MEMORO_DATABASE_URL.")
    verifier = scram_verifier(unquote(parts.password)) if parts.password else None
    role = await connection.fetchrow(_SQL["service_role"], name)
    if role is not None and (role["rolsuper"] or role["rolbypassrls"]):
        raise ServiceRoleUnsuitableError(f"The role {name} passes by it.")
    try:
        async with connection.transaction():
            if role is None:
                await connection.execute(await connection.fetchval(_SQL["create_service_role"], name, verifier))
            elif verifier is not None or not role["rolcanlogin"]:
                await connection.execute(await connection.fetchval(_SQL["alter_service_role"], name, verifier))
            await connection.execute(await connection.fetchval(_SQL["grant_service_role"], name))
    except asyncpg.InsufficientPrivilegeError as error:
        # Where roles are somebody else's business, it is enough that the role is as it must be.
        if not await connection.fetchval(_SQL["service_role_suffices"], name):
            raise RightMissingError(
                f"({error}) Let an administrator run: CREATE ROLE {name} LOGIN PASSWORD '…'; "
                f"GRANT memoro_app TO {name} WITH INHERIT TRUE; "
                f"GRANT memoro_system TO {name} WITH INHERIT FALSE, SET TRUE;"
            ) from error
    return name
