"""Where events may be sent."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoro_core.errors import MemoroError
from memoro_core.webhooks.addresses import is_public, parse_target


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "127.0.0.1",
        "127.255.255.254",
        "169.254.169.254",
        "172.16.0.1",
        "192.0.2.1",
        "192.168.1.1",
        "198.18.0.1",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
        "2001:db8::1",
        "2002:7f00:1::",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
    ],
)
def test_what_is_not_of_the_public_internet(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "64:ff9b::808:808"])
def test_what_is(address: str) -> None:
    assert is_public(ip_address(address))


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_judged_the_same_in_every_wrapping(address: IPv4Address) -> None:
    public = is_public(address)
    number = int(address)
    assert is_public(IPv6Address((0xFFFF << 32) | number)) == public
    assert is_public(IPv6Address((0x64FF9B << 96) | number)) == public
    assert is_public(IPv6Address((0x2002 << 112) | (number << 80))) == public
    # Teredo carries the client's address inverted.
    assert is_public(IPv6Address((0x20010000 << 96) | (0x08080808 << 64) | (number ^ 0xFFFF_FFFF))) == public


@given(st.ip_addresses(v=4))
def test_nothing_public_is_special(address: IPv4Address) -> None:
    special = (
        address.is_private,
        address.is_loopback,
        address.is_link_local,
        address.is_multicast,
        address.is_reserved,
    )
    if is_public(address):
        assert not any(special)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "in ASCII"),
        ("hooks.example.com", "begin with https://"),
        ("ftp://hooks.example.com/", "begin with https://"),
        ("http://hooks.example.com/", "begin with https://"),
        ("https://user:word@hooks.example.com/", "user or password"),
        ("https://user@hooks.example.com/", "user or password"),
        ("https://@hooks.example.com/", "user or password"),
        ("https://hooks.example.com/#part", "fragment"),
        ("https://", "needs a host"),
        ("https:///path", "needs a host"),
        ("https://hooks.example.com:0/", "port"),
        ("https://hooks.example.com:65536/", "not a URL"),
        ("https://hooks.example.com:port/", "not a URL"),
        ("https://[::1/", "not a URL"),
        ("https://hooks.example.com\\@10.0.0.1/", "in ASCII"),
        ("https://hööks.example.com/", "in ASCII"),
        ("https://hooks.example.com/a b", "in ASCII"),
        ("https://hooks.example.com/\r\nx: y", "in ASCII"),
        ("https://a%2eb/", "needs a host"),
        ("https://localhost/", "private"),
        ("https://LOCALHOST./", "private"),
        ("https://db.internal/", "private"),
        ("https://127.0.0.1/", "private"),
        ("https://[::1]/", "private"),
        ("https://[::ffff:10.0.0.1]:8443/", "private"),
        ("https://169.254.169.254/latest/meta-data", "private"),
        ("https://hooks.example.com/" + "x" * 2048, "at most 2048"),
    ],
)
def test_urls_that_are_refused(url: str, words: str) -> None:
    with pytest.raises(MemoroError, match=words) as caught:
        parse_target(url, allow_private=False)
    assert (caught.value.code, caught.value.reason) == ("INVALID_ARGUMENT", "URL_NOT_ALLOWED")
    assert [violation.field for violation in caught.value.violations] == ["url"]


def test_a_url_in_its_parts() -> None:
    target = parse_target("https://Hooks.Example.com:8443/a/b?c=d", allow_private=False)
    assert (target.host, target.port, target.path) == ("hooks.example.com", 8443, "/a/b?c=d")
    assert target.authority == "hooks.example.com:8443"
    plain = parse_target("https://[2606:4700:4700::1111]", allow_private=False)
    assert (plain.host, plain.port, plain.path) == ("2606:4700:4700::1111", 443, "/")
    assert plain.authority == "[2606:4700:4700::1111]"


def test_a_closed_network_may_have_private_hosts_and_plain_http() -> None:
    target = parse_target("http://127.0.0.1:9000", allow_private=True)
    assert (target.scheme, target.authority) == ("http", "127.0.0.1:9000")
    with pytest.raises(MemoroError, match="begin with https:// or http://"):
        parse_target("file:///etc/passwd", allow_private=True)


@given(st.text(max_size=60))
def test_any_text_is_a_target_or_refused(text: str) -> None:
    try:
        target = parse_target(f"https://{text}", allow_private=False)
    except MemoroError:
        return
    assert target.host
    assert "@" not in target.host
    assert 1 <= target.port <= 65535
    assert target.path.startswith("/")
    assert all("!" <= char <= "~" for char in target.host + target.path)
