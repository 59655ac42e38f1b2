"""Where events may be sent. Pure: names are resolved by the sender, which asks here about each address."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final
from urllib.parse import SplitResult, urlsplit

from memoro_core.errors import Code, FieldViolation, MemoroError, Reason

MAX_URL: Final = 2048
PRIVATE: Final = "leads to a private address"
_PRINTABLE: Final = re.compile(r"[\x21-\x7e]+")
_HOST: Final = re.compile(r"[0-9A-Za-z]([0-9A-Za-z._-]*[0-9A-Za-z])?\.?|[0-9a-f:.]+")
_PORTS: Final = {"http": 80, "https": 443}
_NAT64: Final = IPv6Network("64:ff9b::/96")
_LOCAL_NAMES: Final = ("localhost", "local", "internal", "home.arpa")


@dataclass(frozen=True, slots=True)
class Target:
    """A URL in the parts that a request needs, taken apart once, so that what is checked is what is called."""

    scheme: str
    host: str
    """A name or an address, an IPv6 one without brackets."""
    port: int
    path: str
    """With the query."""

    @property
    def authority(self) -> str:
        """The host as a request names it, with the port unless it is the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


def parse_target(url: str, *, allow_private: bool) -> Target:
    """The parts of a URL that events may be sent to. Raises URL_NOT_ALLOWED.

    A host that is an address is judged here; of a name only the resolved addresses tell where it leads.
    """
    if len(url) > MAX_URL:
        raise url_not_allowed(f"must have at most {MAX_URL} characters")
    if not _PRINTABLE.fullmatch(url) or "\\" in url:
        raise url_not_allowed("must be a URL in ASCII without spaces; write other names in Punycode")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise url_not_allowed("is not a URL") from None
    schemes = ("https", "http") if allow_private else ("https",)
    if parts.scheme not in schemes:
        raise url_not_allowed(f"must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}")
    _check_parts(parts)
    host = parts.hostname or ""
    if not _HOST.fullmatch(host) or port == 0:
        raise url_not_allowed("needs a host by name or address, and a port from 1 to 65535 if any")
    if not allow_private:
        _check_host(host)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(parts.scheme, host, port or _PORTS[parts.scheme], path)


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address is one of the public Internet's, whatever it is wrapped in.

    Private, loopback, link-local, multicast, unspecified, shared and reserved ones are not, nor an IPv6 address that
    carries such an IPv4 one (mapped, 6to4, Teredo, NAT64).
    """
    if isinstance(address, IPv6Address):
        if (inner := _carried(address)) is not None:
            return is_public(inner)
        if address.scope_id is not None or address.is_site_local:
            return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def url_not_allowed(description: str) -> MemoroError:
    """INVALID_ARGUMENT / URL_NOT_ALLOWED."""
    return MemoroError(
        Code.INVALID_ARGUMENT,
        Reason.URL_NOT_ALLOWED,
        f"url: {description}",
        violations=(FieldViolation("url", description),),
    )


def _check_parts(parts: SplitResult) -> None:
    if parts.username is not None or parts.password is not None:
        raise url_not_allowed("must not hold a user or password; events are signed")
    if parts.fragment:
        raise url_not_allowed("must not have a fragment")


def _check_host(host: str) -> None:
    try:
        address = ip_address(host)
    except ValueError:
        name = host.rstrip(".").lower()
        if any(name == local or name.endswith(f".{local}") for local in _LOCAL_NAMES):
            raise url_not_allowed(PRIVATE) from None
        return
    if not is_public(address):
        raise url_not_allowed(PRIVATE)


def _carried(address: IPv6Address) -> IPv4Address | None:
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        # The first is a relay's; the second is where packets end up.
        return address.teredo[1]
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return None
