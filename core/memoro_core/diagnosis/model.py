"""What is known of a deployment, and what is said of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum


class Verdict(StrEnum):
    """How something is."""

    OK = "OK"
    WARNING = "WARNING"
    """It works, but not as it should in production."""
    FAILED = "FAILED"
    """It is dangerous, or does not work."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found when one thing was looked at, and what to do about it."""

    check: str
    verdict: Verdict
    message: str


@dataclass(frozen=True, slots=True)
class Setup:
    """What the settings of the server say.

    `certificate_ends` None: no TLS. `redis_in_the_open`: the hosts of a Redis that is spoken to without TLS.
    `connections`: what a server and a worker of these settings may open together.
    """

    host: str
    certificate_ends: datetime | None
    reflection: bool
    secret_key: bool
    webhook_allow_private: bool
    redis_in_the_open: Sequence[str]
    connections: int
    embedding_model: str
    dimensions: int
    migrations: Sequence[str]
    """The versions that this server was made with, in order."""


@dataclass(frozen=True, slots=True)
class RoleFacts:
    """The role that services log in as. `owned`: tables that are its own, or of a role that it belongs to."""

    name: str
    superuser: bool
    bypasses_rls: bool
    owned: Sequence[str]


@dataclass(frozen=True, slots=True)
class WallFacts:
    """Where row-level security has holes.

    `unforced`: tables of tenants on which it is not enabled and forced. `strange`: policies, as `table.policy`, that
    are for other roles than the schema's, or let a tenant's role at rows without asking whose they are.
    """

    unforced: Sequence[str]
    strange: Sequence[str]


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """The PostgreSQL server, seen from the service.

    `encrypted`: the connection is, or does not leave the machine. `connection_limit`: how many the service's role may
    have in all; `connections`: how many there are, of whomever.
    """

    version: int
    version_name: str
    encrypted: bool
    connection_limit: int
    connections: int


@dataclass(frozen=True, slots=True)
class VectorFacts:
    """pgvector. `index_valid` None: there is no index for vectors of the configured length."""

    version: str
    iterative_scan: bool
    index_valid: bool | None
    stored_model: str | None


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """Keys that could be used now: with the scope admin and no end; made by `memoro dev`."""

    endless_operator_keys: int
    development_keys: int


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """All that PostgreSQL tells."""

    role: RoleFacts
    walls: WallFacts
    server: ServerFacts
    vectors: VectorFacts
    keys: KeyFacts
    migrations: frozenset[str]
    """The versions that the database has."""


@dataclass(frozen=True, slots=True)
class RedisNode:
    """A server of Redis or Valkey; of a cluster, one that holds keys. `max_memory` 0: as much as there is."""

    product: str
    version: str
    eviction: str
    max_memory: int


@dataclass(frozen=True, slots=True)
class Skew:
    """How far the clock of another machine is from this one's, at least: what the time of asking can't explain."""

    of: str
    by: timedelta
