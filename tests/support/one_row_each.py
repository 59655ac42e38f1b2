"""A row of a tenant in every table that has tenants, made from the catalogue, so that no table can be added unseen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import asyncpg

from memoro_core.ids import TenantId

Owner: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_VALUES: Final[Mapping[str, str]] = {
    "bigint": "1",
    "boolean": "false",
    "bytea": "'\\x00'",
    "date": "current_date",
    "integer": "1",
    "jsonb": "'{}'",
    "real": "0.5",
    "smallint": "1",
    "text": "gen_random_uuid()::text",
    "timestamp with time zone": "now()",
    "uuid": "gen_random_uuid()",
    "vector": "'[1]'",
    "xid8": "pg_current_xact_id()",
}
"""Something for a column of each type; an array is empty."""


async def tables_of_tenants(connection: Owner) -> Sequence[str]:
    """The tables whose rows are some tenant's."""
    return [
        record["relname"]
        for record in await connection.fetch(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND "
            "EXISTS (SELECT FROM pg_attribute WHERE attrelid = pg_class.oid AND attname = 'tenant_id') ORDER BY 1"
        )
    ]


async def other_tables(connection: Owner) -> Sequence[str]:
    """The tables that belong to the deployment, views among them."""
    return [
        record["relname"]
        for record in await connection.fetch(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
            " AND relkind IN ('r', 'p', 'v', 'm', 'f')"
            " AND NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = pg_class.oid AND attname = 'tenant_id')"
            " ORDER BY 1"
        )
    ]


async def drop_checks(owner: Owner) -> None:
    """Takes the rules off that made-up rows would break. For servers of a module's own."""
    for record in await owner.fetch(
        "SELECT conrelid::regclass::text AS of_table, conname FROM pg_constraint WHERE contype = 'c' AND conrelid <> 0"
        " AND connamespace = 'public'::regnamespace"
    ):
        await owner.execute(f'ALTER TABLE {record["of_table"]} DROP CONSTRAINT "{record["conname"]}"')


async def insertion(connection: Owner, table: str, tenant_id: TenantId) -> str:
    """The statement that gives a tenant a row in this table."""
    columns = await connection.fetch(
        "SELECT attname, format_type(atttypid, NULL) AS type_name FROM pg_attribute"
        " WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped AND attnotnull AND attgenerated = ''"
        " AND attidentity = ''",
        table,
    )
    values = {column["attname"]: _value_of(column["type_name"]) for column in columns}
    values["tenant_id"] = f"'{tenant_id}'"
    return f"INSERT INTO {table} ({', '.join(values)}) VALUES ({', '.join(values.values())})"


def _value_of(type_name: str) -> str:
    return "'{}'" if type_name.endswith("[]") else _VALUES[type_name]
