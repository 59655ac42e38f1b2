"""What is said of a deployment, from what is known of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from memoro_core.diagnosis.database_rules import of_database
from memoro_core.diagnosis.model import (
    DatabaseFacts,
    Diagnosis,
    KeyFacts,
    RedisNode,
    RoleFacts,
    ServerFacts,
    Setup,
    Skew,
    VectorFacts,
    Verdict,
    WallFacts,
)
from memoro_core.diagnosis.service import DiagnosisService
from memoro_core.diagnosis.setup_rules import is_loopback, of_clocks, of_keys, of_redis, of_setup
from memoro_core.errors import unavailable

NOW = datetime(2030, 1, 1, tzinfo=UTC)
SOUND = DatabaseFacts(
    role=RoleFacts("memoro_service", superuser=False, bypasses_rls=False, owned=()),
    walls=WallFacts(unforced=(), strange=()),
    server=ServerFacts(180_000, "18.0", encrypted=True, connection_limit=97, connections=12),
    vectors=VectorFacts("0.8.1", iterative_scan=True, index_valid=True, stored_model="local/wordllama@256"),
    keys=KeyFacts(endless_operator_keys=0, development_keys=0),
    migrations=frozenset({"1", "2"}),
)
SETUP = Setup(
    host="10.0.0.7",
    certificate_ends=NOW + timedelta(days=60),
    reflection=False,
    secret_key=True,
    webhook_allow_private=False,
    redis_in_the_open=("127.0.0.1", "localhost"),
    connections=26,
    embedding_model="local/wordllama@256",
    dimensions=256,
    migrations=("1", "2"),
)
NODE = RedisNode("Valkey", "8.1.0", "noeviction", 1_000_000)


def found(diagnoses: object) -> dict[str, Verdict]:
    return {it.check: it.verdict for it in diagnoses if it.verdict is not Verdict.OK}  # type: ignore[attr-defined]


def test_of_a_sound_deployment_nothing_bad_is_said() -> None:
    assert found(of_database(SOUND, SETUP)) == {}
    assert found(of_keys(SOUND.keys, SETUP)) == {}
    assert found(of_setup(SETUP, NOW)) == {}
    assert found(of_redis([NODE])) == {}
    assert of_clocks([Skew("Redis", timedelta(seconds=0.9))]).verdict is Verdict.OK


@pytest.mark.parametrize(
    ("facts", "check", "verdict", "words"),
    [
        (replace(SOUND, role=replace(SOUND.role, superuser=True)), "database-role", "FAILED", "is a superuser"),
        (replace(SOUND, role=replace(SOUND.role, bypasses_rls=True)), "database-role", "FAILED", "has BYPASSRLS"),
        (
            replace(SOUND, role=replace(SOUND.role, owned=("a", "b", "c", "d", "e", "f"))),
            "database-role",
            "FAILED",
            "owns a, b, c, d, e and 1 more",
        ),
        (replace(SOUND, walls=WallFacts(("jobs",), ())), "row-level-security", "FAILED", "forced on jobs"),
        (replace(SOUND, walls=WallFacts((), ("jobs.mine",))), "row-level-security", "FAILED", "jobs.mine"),
        (replace(SOUND, migrations=frozenset({"1"})), "migrations", "FAILED", "lacks 2: run memoro migrate"),
        (replace(SOUND, migrations=frozenset({"1", "2", "3"})), "migrations", "WARNING", "3 of a newer Memoro"),
        (
            replace(SOUND, server=replace(SOUND.server, version=150_004, version_name="15.4")),
            "postgresql-version",
            "FAILED",
            "15.4 is too old",
        ),
        (
            replace(SOUND, server=replace(SOUND.server, encrypted=False)),
            "postgresql-tls",
            "WARNING",
            "sslmode=verify-full",
        ),
        (
            replace(SOUND, server=replace(SOUND.server, connection_limit=25)),
            "postgresql-connections",
            "WARNING",
            "may open 26 connections, of the 25",
        ),
        (replace(SOUND, vectors=replace(SOUND.vectors, version="0.7.4")), "pgvector", "FAILED", "0.7.4 is too old"),
        (
            replace(SOUND, vectors=replace(SOUND.vectors, iterative_scan=False)),
            "pgvector",
            "FAILED",
            "no hnsw.iterative_scan",
        ),
        (replace(SOUND, vectors=replace(SOUND.vectors, stored_model="x@3")), "embeddings", "FAILED", "are of x@3"),
        (replace(SOUND, vectors=replace(SOUND.vectors, index_valid=None)), "embeddings", "WARNING", "is not there"),
        (replace(SOUND, vectors=replace(SOUND.vectors, index_valid=False)), "embeddings", "WARNING", "not built"),
    ],
)
def test_what_is_wrong_with_the_database_is_told(facts: DatabaseFacts, check: str, verdict: str, words: str) -> None:
    [bad] = [it for it in of_database(facts, SETUP) if it.verdict is not Verdict.OK]
    assert (bad.check, bad.verdict) == (check, Verdict(verdict))
    assert words in bad.message


def test_vectors_that_are_too_long_for_an_index_are_told() -> None:
    assert found(of_database(SOUND, replace(SETUP, dimensions=3072))) == {"embeddings": Verdict.WARNING}
    assert found(of_database(replace(SOUND, vectors=replace(SOUND.vectors, stored_model=None)), SETUP)) == {}


@pytest.mark.parametrize(
    ("setup", "check", "verdict"),
    [
        (replace(SETUP, certificate_ends=None), "tls", "FAILED"),
        (replace(SETUP, certificate_ends=NOW), "tls", "FAILED"),
        (replace(SETUP, certificate_ends=NOW + timedelta(days=13)), "tls", "WARNING"),
        (replace(SETUP, secret_key=False), "secret-key", "WARNING"),
        (replace(SETUP, reflection=True), "reflection", "WARNING"),
        (replace(SETUP, webhook_allow_private=True), "webhook-addresses", "WARNING"),
        (replace(SETUP, redis_in_the_open=("127.0.0.1", "redis.internal")), "redis-tls", "WARNING"),
    ],
)
def test_what_is_wrong_with_the_settings_is_told(setup: Setup, check: str, verdict: str) -> None:
    assert found(of_setup(setup, NOW)) == {check: Verdict(verdict)}


def test_a_server_for_its_own_machine_needs_neither_tls_nor_secrecy_of_its_contract() -> None:
    local = replace(SETUP, host="127.0.0.1", certificate_ends=None, reflection=True)
    assert found(of_setup(local, NOW)) == {}
    assert found(of_keys(KeyFacts(0, 2), local)) == {"development-keys": Verdict.WARNING}


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.1.2.3", False),
        ("memoro.internal", False),
        ("", False),
    ],
)
def test_which_addresses_are_this_machines_own(host: str, local: bool) -> None:
    assert is_loopback(host) is local


def test_keys_that_should_not_be_there_are_told() -> None:
    assert found(of_keys(KeyFacts(1, 0), SETUP)) == {"operator-keys": Verdict.WARNING}
    assert found(of_keys(KeyFacts(0, 1), SETUP)) == {"development-keys": Verdict.FAILED}


@pytest.mark.parametrize(
    ("product", "version", "old"),
    [("Redis", "6.0.16", True), ("Redis", "6.2.0", False), ("Redis", "10.0", False), ("Valkey", "7.2.5", False)],
)
def test_old_servers_of_redis_are_told(product: str, version: str, old: bool) -> None:
    nodes = [NODE, RedisNode(product, version, "noeviction", 0)]
    assert found(of_redis(nodes)) == ({"redis-version": Verdict.FAILED} if old else {})


@pytest.mark.parametrize("policy", ["noeviction", "volatile-lru", "volatile-ttl", "allkeys-lru", "allkeys-random"])
def test_only_what_has_an_end_may_be_evicted(policy: str) -> None:
    bad = policy.startswith("allkeys")
    assert found(of_redis([NODE, replace(NODE, eviction=policy)])) == (
        {"redis-eviction": Verdict.WARNING} if bad else {}
    )


def test_clocks_that_differ_by_a_second_are_told_by_name() -> None:
    told = of_clocks([Skew("PostgreSQL", timedelta(0)), Skew("Redis", timedelta(seconds=1.25))])
    assert (told.verdict, "Redis by 1.2 s" in told.message) == (Verdict.FAILED, True)
    assert "PostgreSQL" not in told.message


class Clock:
    """Stands still."""

    def now(self) -> datetime:
        return NOW


class Database:
    """Says what it was made with."""

    def __init__(self, facts: DatabaseFacts, now: datetime) -> None:
        self._facts = facts
        self._now = now

    async def facts(self, *, dimensions: int) -> DatabaseFacts:
        assert dimensions == SETUP.dimensions
        return self._facts

    async def now(self) -> datetime:
        return self._now


class RedisAway:
    """Does not answer."""

    async def nodes(self) -> list[RedisNode]:
        raise unavailable("redis")

    async def now(self) -> datetime:
        raise unavailable("redis")


async def diagnosed(facts: DatabaseFacts, now: datetime) -> list[Diagnosis]:
    return [*await DiagnosisService(Database(facts, now), RedisAway(), SETUP, Clock()).diagnose()]


async def test_the_worst_stands_first_and_redis_may_be_away() -> None:
    diagnoses = await diagnosed(replace(SOUND, keys=KeyFacts(1, 0)), NOW - timedelta(seconds=5))
    assert [(it.check, it.verdict.value) for it in diagnoses[:3]] == [
        ("redis-version", "FAILED"),
        ("clocks", "FAILED"),
        ("operator-keys", "WARNING"),
    ]
    assert {it.verdict for it in diagnoses[3:]} == {Verdict.OK}
    assert "PostgreSQL by 5.0 s" in diagnoses[1].message
    assert len({it.check for it in diagnoses}) == len(diagnoses)
