"""Each thing that can be wrong with a deployment, broken for a while in a real one, and told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
import trustme
from redis.asyncio import Redis

from memoro_core.container import open_container
from memoro_core.diagnosis.model import Verdict
from memoro_core.embedded.provision import provision_dev
from memoro_core.embedded.stack import Stack
from memoro_core.settings import Settings

pytestmark = pytest.mark.asyncio(loop_scope="module")

EXPECTED = {"secret-key": Verdict.WARNING}
"""What tests do without."""


@dataclass(frozen=True)
class Patient:
    """A deployment that may be hurt."""

    stack: Stack
    owner: Any

    async def found(self, **settings: object) -> dict[str, tuple[Verdict, str]]:
        """What is not as it should be, beside what tests always do without."""
        urls = {"database_url": self.stack.database_url, "redis_url": self.stack.redis_url}
        async with open_container(Settings.model_validate({**urls, **settings})) as container:
            return await found_in(container)


async def found_in(container: Any) -> dict[str, tuple[Verdict, str]]:
    return {
        it.check: (it.verdict, it.message)
        for it in await container.diagnosis.diagnose()
        if it.verdict is not Verdict.OK and EXPECTED.get(it.check) is not it.verdict
    }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def patient(quiet_stack: Stack) -> AsyncIterator[Patient]:
    owner = await asyncpg.connect(quiet_stack.owner_url)
    yield Patient(quiet_stack, owner)
    await owner.close()


@asynccontextmanager
async def broken(patient: Patient, harm: str, cure: str) -> AsyncIterator[None]:
    await patient.owner.execute(harm)
    try:
        yield
    finally:
        await patient.owner.execute(cure)


async def test_of_a_sound_deployment_nothing_bad_is_said(patient: Patient) -> None:
    assert await patient.found() == {}
    assert await patient.found(secret_key="a key of at least thirty-two characters") == {}


@pytest.mark.parametrize(
    ("harm", "cure", "check", "words"),
    [
        (
            "ALTER TABLE memories NO FORCE ROW LEVEL SECURITY",
            "ALTER TABLE memories FORCE ROW LEVEL SECURITY",
            "row-level-security",
            "forced on memories:",
        ),
        (
            "ALTER TABLE jobs DISABLE ROW LEVEL SECURITY",
            "ALTER TABLE jobs ENABLE ROW LEVEL SECURITY",
            "row-level-security",
            "forced on jobs:",
        ),
        (
            "CREATE TABLE forgotten (tenant_id uuid)",
            "DROP TABLE forgotten",
            "row-level-security",
            "forced on forgotten:",
        ),
        (
            "CREATE POLICY everybody ON entities USING (true)",
            "DROP POLICY everybody ON entities",
            "row-level-security",
            "entities.everybody",
        ),
        (
            "CREATE POLICY careless ON entities TO memoro_app USING (true)",
            "DROP POLICY careless ON entities",
            "row-level-security",
            "entities.careless",
        ),
        (
            "INSERT INTO embedding_model (model, dimensions, created_at) VALUES ('other/model@9', 9, now())",
            "DELETE FROM embedding_model",
            "embeddings",
            "other/model@9",
        ),
        (
            "UPDATE pg_extension SET extversion = '0.7.4' WHERE extname = 'vector'",
            "UPDATE pg_extension SET extversion = '0.8.1' WHERE extname = 'vector'",
            "pgvector",
            "0.7.4 is too old",
        ),
        (
            "UPDATE schema_migrations SET version = '1' WHERE version = '20260101000006'",
            "UPDATE schema_migrations SET version = '20260101000006' WHERE version = '1'",
            "migrations",
            "lacks 20260101000006",
        ),
        (
            "GRANT pg_signal_backend TO memoro_service; CREATE ROLE landlord; ALTER TABLE mentions OWNER TO landlord;"
            " GRANT landlord TO memoro_service",
            "ALTER TABLE mentions OWNER TO CURRENT_USER; REVOKE landlord, pg_signal_backend FROM memoro_service;"
            " DROP OWNED BY landlord; DROP ROLE landlord",
            "database-role",
            "owns mentions",
        ),
        (
            "ALTER ROLE memoro_service BYPASSRLS",
            "ALTER ROLE memoro_service NOBYPASSRLS",
            "database-role",
            "has BYPASSRLS",
        ),
        (
            "ALTER ROLE memoro_service SUPERUSER",
            "ALTER ROLE memoro_service NOSUPERUSER",
            "database-role",
            "is a superuser",
        ),
    ],
)
async def test_a_dangerous_database_is_told(patient: Patient, harm: str, cure: str, check: str, words: str) -> None:
    # What a server would not start with may come while it runs.
    urls = {"database_url": patient.stack.database_url, "redis_url": patient.stack.redis_url}
    async with open_container(Settings.model_validate(urls)) as container:
        assert await found_in(container) == {}
        async with broken(patient, harm, cure):
            bad = await found_in(container)
        assert await found_in(container) == {}
    assert bad[check][0] is Verdict.FAILED, bad
    assert words in bad[check][1]


async def test_an_index_that_is_missing_is_told(patient: Patient) -> None:
    async with broken(
        patient,
        "ALTER INDEX memory_embeddings_hnsw_256 RENAME TO gone",
        "ALTER INDEX gone RENAME TO memory_embeddings_hnsw_256",
    ):
        assert {check: bad[0] for check, bad in (await patient.found()).items()} == {"embeddings": Verdict.WARNING}


async def test_too_few_connections_are_told(patient: Patient) -> None:
    assert "postgresql-connections" in await patient.found(database_pool_size=500)
    async with broken(
        patient, "ALTER ROLE memoro_service CONNECTION LIMIT 20", "ALTER ROLE memoro_service CONNECTION LIMIT -1"
    ):
        told = (await patient.found())["postgresql-connections"]
        assert told[0] is Verdict.WARNING
        assert "of the 20" in told[1]


async def test_settings_for_a_closed_network_are_told_of_an_open_one(patient: Patient, tmp_path: Path) -> None:
    bad = await patient.found(grpc_host="0.0.0.0", webhook_allow_private=True)
    assert {check: told[0].value for check, told in bad.items()} == {
        "tls": "FAILED",
        "reflection": "WARNING",
        "webhook-addresses": "WARNING",
    }
    ending = trustme.CA().issue_cert("localhost", not_after=datetime.now(UTC) + timedelta(days=3))
    chain, key = tmp_path / "server.pem", tmp_path / "server.key"
    ending.cert_chain_pems[0].write_to_path(chain)
    ending.private_key_pem.write_to_path(key)
    bad = await patient.found(grpc_host="0.0.0.0", reflection=False, tls_cert_file=chain, tls_key_file=key)
    assert list(bad) == ["tls"]
    assert "renew it" in bad["tls"][1]


async def test_keys_for_development_and_without_an_end_are_told(patient: Patient) -> None:
    settings = Settings.model_validate(
        {"database_url": patient.stack.database_url, "redis_url": patient.stack.redis_url}
    )
    await provision_dev(settings, None)
    bad = await patient.found()
    assert {check: told[0].value for check, told in bad.items()} == {
        "operator-keys": "WARNING",
        "development-keys": "WARNING",
    }
    assert "2 keys of memoro dev" in bad["development-keys"][1]
    assert (await patient.found(grpc_host="0.0.0.0"))["development-keys"][0] is Verdict.FAILED
    # Keys that can't be used are no danger.
    async with broken(patient, "UPDATE api_keys SET revoked_at = now()", "UPDATE api_keys SET revoked_at = NULL"):
        assert await patient.found() == {}
    await patient.owner.execute("DELETE FROM api_keys")


async def test_a_redis_that_forgets_what_it_should_not_is_told(patient: Patient) -> None:
    async with Redis.from_url(patient.stack.redis_url) as redis:
        await redis.config_set("maxmemory-policy", "allkeys-lru")
        bad = await patient.found()
        await redis.config_set("maxmemory-policy", "noeviction")
    assert {check: told[0].value for check, told in bad.items()} == {"redis-eviction": "WARNING"}
    assert await patient.found() == {}


async def test_a_redis_that_is_away_is_told(patient: Patient) -> None:
    bad = await patient.found(redis_url="redis://127.0.0.1:1/0")
    assert {check: told[0].value for check, told in bad.items()} == {"redis-version": "FAILED"}


@pytest.mark.parametrize(
    ("url", "open_"),
    [
        ("redis://:hunter2@redis.invalid:1/0", True),
        ("redis+cluster://127.0.0.1:1,redis.invalid:1", True),
        ("rediss://:hunter2@redis.invalid:1/0", False),
        ("rediss+cluster://redis.invalid:1", False),
    ],
)
async def test_a_redis_beyond_this_machine_without_tls_is_told(patient: Patient, url: str, open_: bool) -> None:
    bad = await patient.found(redis_url=url)
    assert {check: told[0].value for check, told in bad.items() if check != "redis-version"} == (
        {"redis-tls": "WARNING"} if open_ else {}
    )
    assert "hunter2" not in str(bad)


async def test_a_clock_that_is_off_is_told(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    urls = {"database_url": patient.stack.database_url, "redis_url": patient.stack.redis_url}
    async with open_container(Settings.model_validate(urls)) as container:
        now = container.clock.now
        monkeypatch.setattr(type(container.clock), "now", lambda _: now() + timedelta(seconds=3))
        bad = await found_in(container)
    assert list(bad) == ["clocks"]
    assert "PostgreSQL by 3.0 s" in bad["clocks"][1]
    assert "Redis by 3.0 s" in bad["clocks"][1]
