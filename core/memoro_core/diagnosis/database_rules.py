"""What PostgreSQL must be like."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from memoro_core.diagnosis.model import (
    DatabaseFacts,
    Diagnosis,
    RoleFacts,
    ServerFacts,
    Setup,
    VectorFacts,
    WallFacts,
)
from memoro_core.diagnosis.requirements import MAX_INDEXED_DIMENSIONS, OLDEST_PGVECTOR, OLDEST_POSTGRES
from memoro_core.diagnosis.saying import failed, listed, numbers, ok, warning


def of_database(facts: DatabaseFacts, setup: Setup) -> Iterator[Diagnosis]:
    """A diagnosis for each thing that PostgreSQL was asked."""
    yield _role(facts.role)
    yield _walls(facts.walls)
    yield _migrations(facts.migrations, setup.migrations)
    yield _version(facts.server)
    yield _encryption(facts.server)
    yield _connections(facts.server, setup)
    yield _pgvector(facts.vectors)
    yield _vectors(facts.vectors, setup)


def _role(role: RoleFacts) -> Diagnosis:
    powers = [
        *(["is a superuser"] if role.superuser else []),
        *(["has BYPASSRLS"] if role.bypasses_rls else []),
        *([f"owns {listed(role.owned)}, by itself or through a role it belongs to"] if role.owned else []),
    ]
    if powers:
        return failed(
            "database-role",
            f"the services' role {role.name} {' and '.join(powers)}, so that row-level security does not bind it: let "
            "MEMORO_DATABASE_URL name a role that owns nothing (memoro migrate makes one), or take that from it",
        )
    return ok("database-role", f"{role.name} owns nothing and passes by nothing")


def _walls(walls: WallFacts) -> Diagnosis:
    holes = []
    if walls.unforced:
        holes.append(
            f"row-level security is not enabled and forced on {listed(walls.unforced)}: as the owner, run "
            "ALTER TABLE … ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"
        )
    if walls.strange:
        holes.append(f"policies that no migration made let others in: drop or mend {listed(walls.strange)}")
    if holes:
        return failed("row-level-security", "; ".join(holes))
    return ok("row-level-security", "forced on every table of tenants")


def _migrations(applied: frozenset[str], known: Sequence[str]) -> Diagnosis:
    missing = [version for version in known if version not in applied]
    if missing:
        return failed("migrations", f"the database lacks {listed(missing)}: run memoro migrate")
    beyond = sorted(applied.difference(known))
    if beyond:
        return warning("migrations", f"the database has {listed(beyond)} of a newer Memoro: update this server")
    return ok("migrations", f"up to date with {known[-1]}" if known else "none to apply")


def _version(server: ServerFacts) -> Diagnosis:
    if server.version < OLDEST_POSTGRES:
        return failed("postgresql-version", f"{server.version_name} is too old: PostgreSQL 16 or later is needed")
    return ok("postgresql-version", server.version_name)


def _encryption(server: ServerFacts) -> Diagnosis:
    if not server.encrypted:
        return warning(
            "postgresql-tls",
            "the connection to PostgreSQL leaves this machine unencrypted: add ?sslmode=verify-full to "
            "MEMORO_DATABASE_URL, unless the network is closed",
        )
    return ok("postgresql-tls", "encrypted, or on this machine")


def _connections(server: ServerFacts, setup: Setup) -> Diagnosis:
    told = (
        f"a server and a worker of these settings may open {setup.connections} connections, of the "
        f"{server.connection_limit} that PostgreSQL gives the services' role; {server.connections} are open"
    )
    if setup.connections > server.connection_limit:
        return warning(
            "postgresql-connections",
            f"{told}: raise max_connections, lower MEMORO_DATABASE_POOL_SIZE, or put a pooler between",
        )
    return ok("postgresql-connections", told)


def _pgvector(vectors: VectorFacts) -> Diagnosis:
    if numbers(vectors.version)[:2] < OLDEST_PGVECTOR:
        return failed(
            "pgvector", f"{vectors.version} is too old: install 0.8 or later, and ALTER EXTENSION vector UPDATE"
        )
    if not vectors.iterative_scan:
        return failed(
            "pgvector",
            f"{vectors.version} is installed, but its library knows no hnsw.iterative_scan, so that searches miss "
            "what is there: install the library of the same version, and restart PostgreSQL",
        )
    return ok("pgvector", f"{vectors.version}, with iterative scans")


def _vectors(vectors: VectorFacts, setup: Setup) -> Diagnosis:
    if vectors.stored_model not in {None, setup.embedding_model}:
        return failed(
            "embeddings",
            f"the stored vectors are of {vectors.stored_model}, but {setup.embedding_model} is configured: "
            "set the old one again",
        )
    if setup.dimensions > MAX_INDEXED_DIMENSIONS:
        return warning(
            "embeddings",
            f"vectors of {setup.dimensions} dimensions have no index: searches of users with many memories are slow; "
            f"choose {MAX_INDEXED_DIMENSIONS} at most",
        )
    if not vectors.index_valid:
        how = "is not there" if vectors.index_valid is None else "was not built to its end"
        return warning(
            "embeddings",
            f"the index for vectors of {setup.dimensions} dimensions {how}, so that searches of users with "
            "many memories are slow: run memoro migrate",
        )
    return ok("embeddings", f"{setup.embedding_model}, indexed")
