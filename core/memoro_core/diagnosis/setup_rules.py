"""What the settings, the keys, Redis and the clocks must be like."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import Final

from memoro_core.diagnosis.model import Diagnosis, KeyFacts, RedisNode, Setup, Skew
from memoro_core.diagnosis.requirements import OLDEST_REDIS, OLDEST_VALKEY
from memoro_core.diagnosis.saying import failed, listed, numbers, ok, warning

_MOST_SKEW: Final = timedelta(seconds=1)
_CERTIFICATE_NOTICE: Final = timedelta(days=14)


def of_setup(setup: Setup, now: datetime) -> Iterator[Diagnosis]:
    """A diagnosis for each setting that matters."""
    yield _tls(setup, now)
    yield _secret_key(setup)
    yield _reflection(setup)
    yield _webhooks(setup)
    yield _redis_tls(setup)


def of_keys(keys: KeyFacts, setup: Setup) -> Iterator[Diagnosis]:
    """Which keys should not be there."""
    if keys.endless_operator_keys:
        yield warning(
            "operator-keys",
            f"{keys.endless_operator_keys} keys with the scope admin never end: make such with --expires, and revoke "
            "the old ones",
        )
    else:
        yield ok("operator-keys", "all of them end")
    if not keys.development_keys:
        yield ok("development-keys", "none")
        return
    told = f"{keys.development_keys} keys of memoro dev, which lie in a file of its data directory, are valid"
    if is_loopback(setup.host):
        yield warning("development-keys", f"{told}: fine for development; in production revoke them")
    else:
        yield failed("development-keys", f"{told} on a server that listens on {setup.host}: revoke them")


def of_redis(nodes: Sequence[RedisNode]) -> Iterator[Diagnosis]:
    """How old the servers are, and what they do when they are full."""
    old = [f"{node.product} {node.version}" for node in nodes if _too_old(node)]
    if old:
        yield failed("redis-version", f"{listed(old)} is too old: Redis 6.2, or Valkey 7.2, or later is needed")
    else:
        yield ok("redis-version", listed(sorted({f"{node.product} {node.version}" for node in nodes})))
    evicting = sorted({node.eviction for node in nodes if node.eviction.startswith("allkeys")})
    if evicting:
        yield warning(
            "redis-eviction",
            f"maxmemory-policy is {listed(evicting)}, with which a full server forgets hints of jobs and what callers "
            "have used of their limits: set noeviction, or one that begins with volatile",
        )
        return
    unbounded = "" if all(node.max_memory for node in nodes) else "; maxmemory is not set"
    yield ok("redis-eviction", listed(sorted({node.eviction for node in nodes})) + unbounded)


def redis_away() -> Diagnosis:
    """What is said when Redis does not answer."""
    return failed(
        "redis-version",
        "MEMORO_REDIS_URL can't be reached: jobs begin late until it can be, and each server limits for itself",
    )


def of_clocks(skews: Sequence[Skew]) -> Diagnosis:
    """Whether all machines have one time."""
    off = [f"{skew.of} by {skew.by.total_seconds():.1f} s" for skew in skews if skew.by >= _MOST_SKEW]
    if off:
        return failed(
            "clocks",
            f"not this server's time: {listed(off)}; leases of jobs and the ends of keys go by it: let all machines "
            "follow one time server",
        )
    return ok(
        "clocks",
        f"{listed([skew.of for skew in skews])} within a second of this server" if skews else "none to compare",
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine gets there; a name other than localhost may be anywhere."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _tls(setup: Setup, now: datetime) -> Diagnosis:
    ends = setup.certificate_ends
    if ends is None and is_loopback(setup.host):
        return ok("tls", f"off, on {setup.host} only")
    if ends is None:
        return failed(
            "tls",
            f"off, while the server listens on {setup.host}, so that keys travel in the open: set MEMORO_TLS_CERT_FILE "
            "and MEMORO_TLS_KEY_FILE, or listen where only a proxy that has TLS gets at it",
        )
    if ends <= now:
        return failed("tls", f"the certificate ended at {ends.isoformat()}: renew it and restart the servers")
    if ends - now < _CERTIFICATE_NOTICE:
        return warning("tls", f"the certificate ends at {ends.isoformat()}: renew it and restart the servers")
    return ok("tls", f"on, with a certificate until {ends.date().isoformat()}")


def _secret_key(setup: Setup) -> Diagnosis:
    if setup.secret_key:
        return ok("secret-key", "set")
    return warning(
        "secret-key",
        "MEMORO_SECRET_KEY is not set, so that secrets of webhooks lie in the database as they are: set it, the same "
        "for all servers and workers, and rotate the secrets",
    )


def _reflection(setup: Setup) -> Diagnosis:
    if setup.reflection and not is_loopback(setup.host):
        return warning("reflection", "on: everybody may read the contract; MEMORO_REFLECTION=false turns it off")
    return ok("reflection", "on, on this machine only" if setup.reflection else "off")


def _webhooks(setup: Setup) -> Diagnosis:
    if setup.webhook_allow_private:
        return warning(
            "webhook-addresses",
            "MEMORO_WEBHOOK_ALLOW_PRIVATE lets tenants make workers call any address of your network: turn it off "
            "unless all tenants are trusted",
        )
    return ok("webhook-addresses", "public ones only")


def _redis_tls(setup: Setup) -> Diagnosis:
    hosts = [host for host in setup.redis_in_the_open if not is_loopback(host)]
    if hosts:
        return warning(
            "redis-tls",
            f"the connection to {listed(hosts)} leaves this machine unencrypted, and with it the password of Redis and "
            "the progress of jobs: let MEMORO_REDIS_URL begin with rediss, unless the network is closed",
        )
    return ok("redis-tls", "on" if not setup.redis_in_the_open else "off, on this machine only")


def _too_old(node: RedisNode) -> bool:
    return numbers(node.version)[:2] < (OLDEST_VALKEY if node.product == "Valkey" else OLDEST_REDIS)
