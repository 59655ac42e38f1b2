"""Where Redis is: one server, a cluster, or a master that Sentinel looks after, told apart by the URL's scheme."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

_PORT: Final = 6379
_SENTINEL_PORT: Final = 26379
_SENTINEL_OPTIONS: Final = ("sentinel_username", "sentinel_password")


class Topology(StrEnum):
    """How Redis is set up."""

    STANDALONE = "standalone"
    CLUSTER = "cluster"
    SENTINEL = "sentinel"


_SCHEMES: Final = {
    "redis": Topology.STANDALONE,
    "redis+cluster": Topology.CLUSTER,
    "redis+sentinel": Topology.SENTINEL,
}


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """What a URL says; credentials and options in query form are kept in `server_url`."""

    topology: Topology
    hosts: Sequence[tuple[str, int]]
    """One for a single server; some of a cluster's nodes; the Sentinels."""
    server_url: str = field(repr=False)
    """How to connect to the first host as to a single server: `redis://` or, with TLS, `rediss://`."""
    master: str | None = None
    """The name by which Sentinel knows the master."""
    sentinel_login: tuple[str | None, str | None] = field(default=(None, None), repr=False)
    """User and password at the Sentinels."""

    @property
    def tls(self) -> bool:
        """Whether the connections are encrypted."""
        return self.server_url.startswith("rediss:")


def parse_redis_url(url: str) -> RedisAddress:
    """Reads `redis://`, `redis+cluster://` and `redis+sentinel://`, each also as `rediss`, with TLS.

    Raises ValueError that says what is wrong without repeating the URL, which may hold a password.
    """
    parts = urlsplit(url)
    tls = parts.scheme.startswith("rediss")
    topology = _SCHEMES.get(parts.scheme.replace("rediss", "redis", 1))
    if topology is None:
        raise ValueError("the scheme must be redis, redis+cluster or redis+sentinel, or rediss for TLS")
    login, _, names = parts.netloc.rpartition("@")
    default_port = _SENTINEL_PORT if topology is Topology.SENTINEL else _PORT
    hosts = [_host(name, default_port) for name in names.split(",")]
    path = [part for part in parts.path.split("/") if part]
    master = None
    if topology is Topology.STANDALONE and len(hosts) > 1:
        raise ValueError("several hosts are a cluster, redis+cluster://, or Sentinels, redis+sentinel://")
    if topology is Topology.SENTINEL:
        if not path:
            raise ValueError("the name of the master is missing: redis+sentinel://host:port,host:port/name")
        master, *path = path
    if len(path) > 1 or not all(part.isdecimal() for part in path):
        raise ValueError("the database must be a number, at the end of the path")
    if topology is Topology.CLUSTER and path not in ([], ["0"]):
        raise ValueError("a cluster has no databases other than 0")
    options = parse_qsl(parts.query, keep_blank_values=True)
    known = [option for option in options if option[0] not in _SENTINEL_OPTIONS]
    if topology is not Topology.STANDALONE and not all(name.startswith("ssl_") for name, _ in known):
        raise ValueError("options must begin with ssl_, or be sentinel_username or sentinel_password")
    host, port = hosts[0]
    return RedisAddress(
        topology=topology,
        hosts=tuple(hosts),
        server_url=(
            f"{'rediss' if tls else 'redis'}://{login}{'@' if login else ''}{_in_url(host)}:{port}"
            f"/{path[0] if path else 0}{'?' if known else ''}{urlencode(known)}"
        ),
        master=master,
        sentinel_login=(dict(options).get(_SENTINEL_OPTIONS[0]), dict(options).get(_SENTINEL_OPTIONS[1])),
    )


def _host(name: str, default_port: int) -> tuple[str, int]:
    problem = "each host must be host:port, several with commas between them"
    try:
        parts = urlsplit(f"//{name}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError(problem) from None
    if not host or parts.netloc != name or port == 0:
        raise ValueError(problem)
    return host, port or default_port


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else quote(host)
