"""What the service's own role can do by plain SQL, in every table: nothing without a tenant, nothing beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio

from memoro_core.embedded.stack import Stack
from memoro_core.ids import TenantId
from tests.support.one_row_each import Owner, drop_checks, insertion, other_tables, tables_of_tenants

pytestmark = pytest.mark.asyncio(loop_scope="module")

OURS, THEIRS = TenantId(UUID(int=1)), TenantId(UUID(int=2))
DEPLOYMENT = TenantId(UUID(int=0))
OF_MEMORY = (
    "conversations",
    "memories",
    "memory_embeddings",
    "entities",
    "entity_aliases",
    "mentions",
    "relationships",
    "relationship_sources",
)
SHARED = {"budgets", "budget_days", "alerts"}
"""Here the deployment has rows too, which a tenant's job counts against, or raises."""
REFUSED = (asyncpg.InsufficientPrivilegeError,)
"""What PostgreSQL says both of a missing right and of a row that the policy does not let in."""


@dataclass(frozen=True)
class Walls:
    """A database in which each of two tenants, and the deployment, has one row in every table."""

    owner: Owner
    service: Owner
    other: Owner
    """One more connection of the service."""
    tables: Sequence[str]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def walls(quiet_stack: Stack) -> AsyncIterator[Walls]:
    owner = await asyncpg.connect(quiet_stack.owner_url)
    service, other = [await asyncpg.connect(quiet_stack.database_url) for _ in range(2)]
    tables = await tables_of_tenants(owner)
    assert {*OF_MEMORY, "jobs", "api_keys", "tenants", *SHARED} <= set(tables)
    await drop_checks(owner)
    # Foreign keys and triggers are of no concern here.
    await owner.execute("SET session_replication_role = replica")
    for table in tables:
        for tenant in (OURS, THEIRS, DEPLOYMENT):
            await owner.execute(await insertion(owner, table, tenant))
    yield Walls(owner, service, other, tables)
    await service.close()
    await other.close()
    await owner.close()


@asynccontextmanager
async def rolled_back(connection: Owner, *, tenant: TenantId | None = None, role: str = "") -> AsyncIterator[None]:
    """A transaction that leaves nothing, as a tenant or as a role."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        if tenant is not None:
            await connection.execute(f"SET LOCAL app.tenant_id = '{tenant}'")
        if role:
            await connection.execute(f"SET LOCAL ROLE {role}")
        yield
    finally:
        await transaction.rollback()


async def attempt(connection: Owner, statement: str) -> str:
    """The statement's command tag, or `refused`. What it did is undone."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        return await connection.execute(statement)
    except REFUSED:
        return "refused"
    finally:
        await transaction.rollback()


async def seen(connection: Owner, table: str) -> int | None:
    """How many rows show themselves; None when the table may not be read at all."""
    try:
        async with connection.transaction():
            return int(await connection.fetchval(f"SELECT count(*) FROM {table}"))
    except REFUSED:
        return None


async def test_without_a_tenant_no_row_is_there(walls: Walls) -> None:
    async with rolled_back(walls.service):
        for table in walls.tables:
            assert await walls.owner.fetchval(f"SELECT count(*) FROM {table}") == 3
            assert await seen(walls.service, table) in {0, None}, table
            assert await attempt(walls.service, f"DELETE FROM {table}") in {"DELETE 0", "refused"}, table
            update = f"UPDATE {table} SET tenant_id = tenant_id"
            assert await attempt(walls.service, update) in {"UPDATE 0", "refused"}, table
            for tenant in (OURS, DEPLOYMENT):
                insert = await insertion(walls.owner, table, tenant)
                assert await attempt(walls.service, insert) == "refused", (table, tenant)


@pytest.mark.parametrize("nobody", ["", "00000000-0000-0000-0000-000000000009"])
async def test_a_tenant_that_is_not_there_has_no_row(walls: Walls, nobody: str) -> None:
    async with rolled_back(walls.service):
        await walls.service.execute(f"SET LOCAL app.tenant_id = '{nobody}'")
        for table in walls.tables:
            of_deployment = 1 if nobody and table in SHARED else 0
            assert await seen(walls.service, table) in {of_deployment, None}, table


async def test_a_tenant_sees_and_changes_its_own_rows_only(walls: Walls) -> None:
    async with rolled_back(walls.service, tenant=OURS):
        for table in walls.tables:
            own = 2 if table in SHARED else 1
            assert await seen(walls.service, table) in {own, None}, table
            where = f"WHERE tenant_id = '{THEIRS}'"
            assert await attempt(walls.service, f"DELETE FROM {table} {where}") in {"DELETE 0", "refused"}, table
            into = f"UPDATE {table} SET tenant_id = '{THEIRS}'"
            assert await attempt(walls.service, f"{into} {where}") in {"UPDATE 0", "refused"}, table
            # Not even its own row can become another's.
            assert await attempt(walls.service, into) == "refused", table
            assert await attempt(walls.service, await insertion(walls.owner, table, THEIRS)) == "refused", table
        for table in OF_MEMORY:
            assert await seen(walls.service, table) == 1, table


async def test_credentials_and_the_audit_are_out_of_a_tenants_reach(walls: Walls) -> None:
    async with rolled_back(walls.service, tenant=OURS):
        for table in ("api_keys", "audit_events", "daily_units"):
            assert await seen(walls.service, table) is None
        # Whether an alert stands is all that is asked of them: two columns of a table are two rights.
        assert await walls.service.fetchval("SELECT count(dedupe_key) FROM alerts") == 2
        for column in await columns_of(walls.owner, "alerts"):
            if column != "dedupe_key":
                assert await attempt(walls.service, f"SELECT {column} FROM alerts") == "refused", column


async def columns_of(owner: Owner, table: str) -> Sequence[str]:
    return [
        record["attname"]
        for record in await owner.fetch(
            "SELECT attname FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped", table
        )
    ]


async def test_the_role_across_tenants_sees_no_memory(walls: Walls) -> None:
    async with rolled_back(walls.service, role="memoro_system"):
        assert await seen(walls.service, "jobs") == 3
        for table in OF_MEMORY:
            assert await seen(walls.service, table) is None, table
            for column in await columns_of(walls.owner, table):
                assert await attempt(walls.service, f"SELECT {column} FROM {table}") == "refused", (table, column)
            for statement in (
                f"DELETE FROM {table}",
                f"UPDATE {table} SET tenant_id = tenant_id",
                await insertion(walls.owner, table, OURS),
            ):
                assert await attempt(walls.service, statement) == "refused", statement
    # The tenant that a transaction names gives that role nothing more.
    async with rolled_back(walls.service, tenant=OURS, role="memoro_system"):
        assert {await seen(walls.service, table) for table in OF_MEMORY} == {None}


async def test_a_tenant_is_named_within_its_transaction_only(walls: Walls) -> None:
    async with rolled_back(walls.service, tenant=OURS):
        assert await walls.service.fetchval("SELECT tenant_id FROM memories") == OURS
        await walls.service.execute(f"SET LOCAL app.tenant_id = '{THEIRS}'")
        assert await walls.service.fetchval("SELECT tenant_id FROM memories") == THEIRS
        async with walls.service.transaction():
            await walls.service.execute(f"SET LOCAL app.tenant_id = '{OURS}'")
            await walls.service.execute("SAVEPOINT inner_one")
            await walls.service.execute(f"SET LOCAL app.tenant_id = '{THEIRS}'")
            await walls.service.execute("ROLLBACK TO SAVEPOINT inner_one")
            assert await walls.service.fetchval("SELECT tenant_id FROM memories") == OURS
    assert await walls.service.fetchval("SELECT current_tenant()") is None
    assert await seen(walls.service, "memories") == 0
    async with rolled_back(walls.service, tenant=OURS):
        assert await seen(walls.other, "memories") == 0


async def test_nothing_lets_the_service_out(walls: Walls) -> None:
    owner_name = await walls.owner.fetchval("SELECT current_user")
    async with rolled_back(walls.service, tenant=OURS):
        for statement in (
            f"SET ROLE {owner_name}",
            f"SET SESSION AUTHORIZATION {owner_name}",
            "ALTER TABLE memories NO FORCE ROW LEVEL SECURITY",
            "ALTER TABLE memories DISABLE ROW LEVEL SECURITY",
            "DROP POLICY tenant_isolation ON memories",
            "CREATE POLICY mine ON memories USING (true)",
            "GRANT ALL ON api_keys TO memoro_app",
            "GRANT memoro_system TO memoro_app",
            "CREATE OR REPLACE FUNCTION current_tenant() RETURNS uuid LANGUAGE sql RETURN NULL::uuid",
            "CREATE TABLE mine (id integer)",
            "TRUNCATE memories CASCADE",
            "SET session_replication_role = replica",
            "ALTER ROLE memoro_app BYPASSRLS",
            "COPY memories TO PROGRAM 'cat'",
            "COPY api_keys TO STDOUT",
            # It is an error rather than a way round.
            "SET LOCAL row_security = off; SELECT * FROM memories",
        ):
            assert await attempt(walls.service, statement) == "refused", statement


async def test_no_function_of_the_callers_is_asked_about_a_hidden_row(walls: Walls) -> None:
    async with rolled_back(walls.service, tenant=OURS):
        # So cheap that the planner would ask it before anything else, if it were allowed to.
        await walls.service.execute(
            "CREATE FUNCTION pg_temp.overhear(t text) RETURNS boolean LANGUAGE plpgsql COST 0.000001 AS $$"
            " BEGIN PERFORM set_config('overheard.texts', coalesce(current_setting('overheard.texts', true), '') || t,"
            " true); RETURN true; END $$"
        )
        assert await walls.service.fetchval("SELECT count(*) FROM memories WHERE pg_temp.overhear(text)") == 1
        heard = await walls.service.fetchval("SELECT current_setting('overheard.texts', true)")
        assert heard == await walls.service.fetchval("SELECT text FROM memories")


async def test_the_statistics_of_the_planner_tell_nothing(walls: Walls) -> None:
    await walls.owner.execute("ANALYZE")
    told = "SELECT count(*) FROM pg_stats WHERE tablename = ANY ($1)"
    assert await walls.owner.fetchval(told, [*walls.tables]) > 0
    assert await walls.service.fetchval(told, [*walls.tables]) == 0


async def test_every_table_of_tenants_is_walled_in(walls: Walls) -> None:
    facts = await walls.owner.fetch(
        "SELECT relname, relrowsecurity, relforcerowsecurity,"
        " pg_has_role('memoro_service', relowner, 'MEMBER') AS owned"
        " FROM pg_class WHERE relname = ANY ($1) AND relnamespace = 'public'::regnamespace",
        [*walls.tables],
    )
    assert len(facts) == len(walls.tables)
    for fact in facts:
        assert (fact["relrowsecurity"], fact["relforcerowsecurity"], fact["owned"]) == (True, True, False), fact


async def test_every_policy_is_for_one_role_and_a_tenants_names_its_tenant(walls: Walls) -> None:
    policies = await walls.owner.fetch("SELECT * FROM pg_policies")
    assert {policy["tablename"] for policy in policies} == {*walls.tables}
    for policy in policies:
        assert policy["roles"] in (["memoro_app"], ["memoro_system"]), policy
        if policy["roles"] == ["memoro_app"]:
            assert "current_tenant()" in policy["qual"], policy
            assert "current_tenant()" in policy["with_check"], policy


async def test_the_service_owns_nothing_and_passes_by_nothing(walls: Walls) -> None:
    roles = await walls.owner.fetch(
        "SELECT rolname, rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolreplication FROM pg_roles"
        " WHERE rolname IN ('memoro_app', 'memoro_system') OR rolname = $1",
        await walls.service.fetchval("SELECT session_user"),
    )
    assert len(roles) == 3
    for role in roles:
        assert not any([*role.values()][1:]), role
    owned = await walls.owner.fetchval(
        "SELECT count(*) FROM pg_shdepend WHERE deptype = 'o' AND refclassid = 'pg_authid'::regclass"
        " AND refobjid IN (SELECT oid FROM pg_roles WHERE rolname ~ '^memoro_(app|system|service)$')"
    )
    assert owned == 0


async def test_what_is_no_tenants_a_tenant_can_only_read(walls: Walls) -> None:
    async with rolled_back(walls.service, tenant=OURS):
        for table in await other_tables(walls.owner):
            # The first that stores a vector says which model it is of; there is one row and it stays.
            writes = ["UPDATE", "DELETE", "TRUNCATE"] + ([] if table == "embedding_model" else ["INSERT"])
            for right in writes:
                may = f"SELECT has_table_privilege('{table}', '{right}')"
                assert await walls.service.fetchval(may) is False, (table, right)
                if right in {"UPDATE", "INSERT"}:
                    may = f"SELECT has_any_column_privilege('{table}', '{right}')"
                    assert await walls.service.fetchval(may) is False, (table, right)


async def test_nothing_is_granted_to_everybody(walls: Walls) -> None:
    granted = await walls.owner.fetch(
        "SELECT relname, privilege_type FROM pg_class, aclexplode(relacl)"
        " WHERE relnamespace = 'public'::regnamespace AND grantee = 0"
    )
    assert granted == []
    beyond = await walls.owner.fetch(
        "SELECT relname, grantee::regrole, privilege_type, is_grantable FROM pg_class, aclexplode(relacl)"
        " WHERE relnamespace = 'public'::regnamespace AND grantee <> relowner"
        " AND (is_grantable OR privilege_type IN ('TRUNCATE', 'REFERENCES', 'TRIGGER', 'MAINTAIN'))"
    )
    assert beyond == []


async def test_no_function_or_view_acts_as_the_owner(walls: Walls) -> None:
    """What runs with the owner's rights would see what its caller may not."""
    own = "oid NOT IN (SELECT objid FROM pg_depend WHERE deptype = 'e')"
    definers = await walls.owner.fetch(
        f"SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND prosecdef AND {own}"
    )
    assert definers == []
    views = await walls.owner.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('v', 'm')"
        f" AND NOT coalesce('security_invoker=true' = ANY (reloptions), false) AND {own}"
    )
    assert views == []
