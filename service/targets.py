"""Keeps addresses that people write into documents away from what only this machine can reach (SSRF).

Notifications may go to public hosts and to what is allowed by name or network; a source's custom endpoint, which is
handed credentials, only to what is allowed. Nothing is sent from here. A name is looked up each time it is asked about,
and while something is sent to it, it means the addresses that were checked and no others.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

RESERVED = tuple(
    ipaddress.ip_network(text)
    for text in ("64:ff9b::/96", "64:ff9b:1::/48", "::/96", "::ffff:0:0:0/96", "192.0.0.0/24")
)
"""Translators between IPv4 and IPv6 and other machinery of networks: who answers there is up to the network."""
CLOUD_INTERNAL = frozenset({ipaddress.IPv4Address("168.63.129.16")})
"""Looks public, but is the inside of the cloud: Azure's WireServer."""


_PLAIN = re.compile(r"[a-z0-9._:-]+")
"""What every library reads as the same host."""
_pins: dict[str, list[tuple[str, ...]]] = {}
"""Host → the addresses checked for what is being sent to it just now, once for each sender."""
_pins_lock = Lock()
_system = socket.getaddrinfo


def _pinned(host: Any, *more: Any, **named: Any) -> Any:
    """The system's answer, but for a host that is pinned. httpx, requests and smtplib all ask here before connecting,
    and keep the name for TLS and headers.
    """
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else host
    with _pins_lock:
        pins = _pins.get(name.lower().rstrip("."), []) if isinstance(name, str) else []
        addresses = pins[-1] if pins else None
    if addresses is None:
        return _system(host, *more, **named)
    found, failed = [], socket.gaierror(socket.EAI_NONAME, "no address of the kind that was asked for")
    for address in addresses:
        try:
            found += _system(address, *more, **named)
        except socket.gaierror as error:  # an address of the other family
            failed = error
    if not found:
        raise failed
    return found


socket.getaddrinfo = _pinned


class ForbiddenTarget(ValueError):
    """The sentence names the host and the setting that would allow it."""


class UnresolvedTarget(ForbiddenTarget):
    """The name has no address just now; it may have one later."""


@contextmanager
def checked_target(url_or_host: str, allowed: Sequence[str]) -> Iterator[None]:
    """Checks a target, and until left its name leads only where was checked: its DNS may answer otherwise by then."""
    host = host_of(url_or_host)
    addresses = check_target(url_or_host, allowed)
    if not addresses:
        yield
        return
    with _pins_lock:
        _pins.setdefault(host, []).append(addresses)
    try:
        yield
    finally:
        with _pins_lock:
            _pins[host].remove(addresses)
            if not _pins[host]:
                del _pins[host]


def check_target(url_or_host: str, allowed: Sequence[str]) -> tuple[str, ...]:
    """Raises ForbiddenTarget for loopback, private, link-local and metadata addresses, unless they are allowed.

    Answers the addresses that were checked; none for a host that is allowed by its name, wherever that leads.
    """
    host = host_of(url_or_host)
    if _named(host, allowed):
        return ()
    if not _PLAIN.fullmatch(host):
        raise ForbiddenTarget(f"{host!r} is no plain host name; write it as DNS does, in ASCII")
    found = _looked_up(host)
    for text in found:
        address = _unwrapped(ipaddress.ip_address(text.split("%")[0]))
        if not _public(address) and not _within(address, allowed):
            raise ForbiddenTarget(
                f"{host} is {_words(address)}; only a host or network named in CURFEW_ALLOW_TARGETS may be there"
            )
    return tuple(found)


def check_endpoint(url: str, allowed: Sequence[str]) -> None:
    """Raises ForbiddenTarget unless this host, or every address it has, is allowed. Public ones are no exception."""
    host = host_of(url)
    if _named(host, allowed):
        return
    has_networks = any(_network(entry) for entry in allowed)
    if not has_networks or not all(_within(address, allowed) for address in _addresses(host)):
        raise ForbiddenTarget(f"a custom endpoint must be allowed first: add {host} to CURFEW_ALLOW_ENDPOINTS")


def may_reach(host: str, allowed: Sequence[str]) -> bool:
    """Whether a host is public, or allowed by name or network. A name without an address leads nowhere anyhow."""
    try:
        check_target(host, allowed)
    except UnresolvedTarget:
        return True
    except ForbiddenTarget:
        return False
    return True


def host_of(url_or_host: str) -> str:
    """The host in lower case, of an URL or of `host:port`."""
    text = url_or_host if "://" in url_or_host else f"//{url_or_host}"
    try:
        host = urlsplit(text).hostname
    except ValueError:
        host = None
    if not host:
        raise ForbiddenTarget("there is no host in this address; write it like https://host:port/path")
    return host.rstrip(".")


def _named(host: str, allowed: Sequence[str]) -> bool:
    return host in {entry.lower().rstrip(".").strip("[]") for entry in allowed}


def _network(entry: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        return None


def _within(address: IPAddress, allowed: Sequence[str]) -> bool:
    networks = (_network(entry) for entry in allowed)
    return any(address in network for network in networks if network is not None)


def _addresses(host: str) -> list[IPAddress]:
    """Every address a connection to this host could go to, unwrapped from its IPv6 disguises."""
    return [_unwrapped(ipaddress.ip_address(text.split("%")[0])) for text in _looked_up(host)]


def _looked_up(host: str) -> list[str]:
    try:
        return sorted({str(entry[4][0]) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)})
    except (OSError, UnicodeError):
        raise UnresolvedTarget(f"the host {host} cannot be found") from None


def _unwrapped(address: IPAddress) -> IPAddress:
    if isinstance(address, ipaddress.IPv4Address):
        return address
    return address.ipv4_mapped or address.sixtofour or address


def _public(address: IPAddress) -> bool:
    return (
        address.is_global
        and not address.is_multicast
        and address not in CLOUD_INTERNAL
        and not any(address in network for network in RESERVED)
    )


def _words(address: IPAddress) -> str:
    if address.is_loopback or address.is_unspecified:
        return f"this machine itself ({address})"
    if address.is_link_local or address in CLOUD_INTERNAL:
        return f"an address inside the cloud ({address})"
    if any(address in network for network in RESERVED):
        return f"an address reserved for networks themselves ({address})"
    return f"a private address ({address})"
