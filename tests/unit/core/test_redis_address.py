"""What MEMORO_REDIS_URL may say."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from memoro_core.errors import MemoroError
from memoro_core.redis.client import open_redis, ping
from memoro_core.redis_address import Topology, parse_redis_url
from memoro_core.settings import Settings, problems_of

SECRET = "a%40secret"


@pytest.mark.parametrize(
    ("url", "topology", "hosts", "server_url", "master"),
    [
        ("redis://h", Topology.STANDALONE, [("h", 6379)], "redis://h:6379/0", None),
        ("redis://h:1/2", Topology.STANDALONE, [("h", 1)], "redis://h:1/2", None),
        ("rediss://u:p%2F@h/2", Topology.STANDALONE, [("h", 6379)], "rediss://u:p%2F@h:6379/2", None),
        ("redis://[::1]:1", Topology.STANDALONE, [("::1", 1)], "redis://[::1]:1/0", None),
        (
            "rediss://h?ssl_ca_certs=/a.pem",
            Topology.STANDALONE,
            [("h", 6379)],
            "rediss://h:6379/0?ssl_ca_certs=%2Fa.pem",
            None,
        ),
        ("redis+cluster://a:1,b:2", Topology.CLUSTER, [("a", 1), ("b", 2)], "redis://a:1/0", None),
        ("rediss+cluster://:p@a,b/0", Topology.CLUSTER, [("a", 6379), ("b", 6379)], "rediss://:p@a:6379/0", None),
        ("redis+sentinel://a,b:2/m", Topology.SENTINEL, [("a", 26379), ("b", 2)], "redis://a:26379/0", "m"),
        ("rediss+sentinel://u:p@a/m/3", Topology.SENTINEL, [("a", 26379)], "rediss://u:p@a:26379/3", "m"),
    ],
)
def test_each_topology_has_its_scheme(
    url: str, topology: Topology, hosts: list[tuple[str, int]], server_url: str, master: str | None
) -> None:
    address = parse_redis_url(url)
    assert (address.topology, list(address.hosts), address.master) == (topology, hosts, master)
    assert address.server_url == server_url


def test_sentinels_may_have_a_login_of_their_own() -> None:
    address = parse_redis_url("redis+sentinel://:p@a/m?sentinel_username=u&sentinel_password=q%26&ssl_cert_reqs=none")
    assert address.sentinel_login == ("u", "q&")
    assert address.server_url == "redis://:p@a:26379/0?ssl_cert_reqs=none"
    assert "q&" not in repr(address)
    assert ":p@" not in repr(address)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "the scheme"),
        ("http://h", "the scheme"),
        ("redis+x://h", "the scheme"),
        ("redis://", "host:port"),
        (f"redis://u:{SECRET}@", "host:port"),
        ("redis://h:x", "host:port"),
        ("redis://h:70000", "host:port"),
        ("redis://h:0", "host:port"),
        ("redis+cluster://a,,b", "host:port"),
        (f"redis://u:{SECRET}@a,b", "redis+cluster"),
        ("redis://h/x", "a number"),
        ("redis://h/1/2", "a number"),
        ("redis+cluster://h/1", "other than 0"),
        ("redis+cluster://h/0/1", "a number"),
        ("redis+cluster://h?decode_responses=yes", "ssl_"),
        (f"redis+sentinel://u:{SECRET}@h", "name of the master"),
        ("redis+sentinel://h/m/x", "a number"),
    ],
)
def test_what_can_t_be_meant_is_refused_without_telling_the_password(url: str, problem: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Settings(redis_url=url)
    (told,) = problems_of(refused.value)
    assert "redis_url" in told
    assert problem in told
    assert SECRET not in told


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
@pytest.mark.parametrize("rest", ["://:p@127.0.0.1:1/0", "+cluster://:p@127.0.0.1:1", "+sentinel://:p@127.0.0.1:1/m"])
async def test_a_client_opens_while_redis_is_away(scheme: str, rest: str) -> None:
    async with open_redis(Settings(redis_url=scheme + rest)) as client:
        with pytest.raises(MemoroError, match="redis"):
            await ping(client)
