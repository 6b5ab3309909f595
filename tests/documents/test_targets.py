"""Which addresses people may write into documents."""

from __future__ import annotations

import socket

import pytest

from service.targets import ForbiddenTarget, UnresolvedTarget, check_endpoint, check_target

NAMES = {
    "public.example": ["93.184.216.34"],
    "both.example": ["93.184.216.34", "10.0.0.5"],
    "inside.example": ["10.0.0.5"],
    "two.example": ["10.0.0.5", "10.0.0.6"],
}


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of our own, and addresses as the system reads them; nobody is asked."""
    real = socket.getaddrinfo

    def lookup(host: str, port: object, **more: object) -> list[object]:
        if host in NAMES:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in NAMES[host]]
        return list(real(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST))

    monkeypatch.setattr(socket, "getaddrinfo", lookup)


FORBIDDEN = {
    "loopback": "http://127.0.0.1:9000/hook",
    "loopback in other words": "http://2130706433/",
    "loopback cut short": "http://127.1/",
    "everything": "http://0.0.0.0/",
    "loopback in IPv6": "http://[::1]/",
    "IPv4 wrapped in IPv6": "http://[::ffff:10.0.0.1]/",
    "IPv4 behind NAT64": "http://[64:ff9b::a00:1]/",
    "a public address behind NAT64": "http://[64:ff9b::5db8:d822]/",
    "a network's own NAT64": "http://[64:ff9b:1::5db8:d822]/",
    "IPv4 spelt as IPv6 of old": "http://[::93.184.216.34]/",
    "IPv4 translated": "http://[::ffff:0:93.184.216.34]/",
    "the network's own machinery": "http://192.0.0.9/",
    "IPv4 in 6to4": "http://[2002:a00:1::]/",
    "a private network": "https://192.168.1.1",
    "a carrier's network": "100.64.0.1:80",
    "metadata of AWS": "http://169.254.169.254/latest",
    "metadata of AWS in IPv6": "http://[fd00:ec2::254]/",
    "the inside of Azure": "http://168.63.129.16/",
    "a name inside": "https://inside.example",
    "a name that is inside too": "https://both.example",
    "with a login in front": "http://public.example@127.0.0.1/",
    "a multicast address": "http://239.0.0.1/",
}


@pytest.mark.parametrize("case", FORBIDDEN)
def test_what_only_this_machine_can_reach_is_forbidden(case: str) -> None:
    with pytest.raises(ForbiddenTarget):
        check_target(FORBIDDEN[case], ())


def test_public_addresses_are_fine() -> None:
    check_target("https://public.example/hook", ())
    check_target("93.184.216.34", ())
    check_target("public.example.:443", ())


ALLOWED = {
    "a host by name": ("https://inside.example:8080/x", ["inside.example"]),
    "a host in capitals": ("https://INSIDE.example", ["Inside.Example"]),
    "an address": ("http://127.0.0.1:9000", ["127.0.0.1"]),
    "a network": ("http://two.example", ["10.0.0.0/8"]),
    "a network of IPv6": ("http://[fd00::1]/", ["fd00::/8"]),
    "the network's own translator": ("http://[64:ff9b::5db8:d822]/", ["64:ff9b::/96"]),
    "the private one of two": ("http://both.example", ["10.0.0.5/32"]),
}


@pytest.mark.parametrize("case", ALLOWED)
def test_what_is_allowed_by_name_or_network_is_fine(case: str) -> None:
    url, allowed = ALLOWED[case]
    check_target(url, allowed)


def test_a_network_allows_nothing_beside_it() -> None:
    with pytest.raises(ForbiddenTarget, match="CURFEW_ALLOW_TARGETS"):
        check_target("http://two.example", ["10.0.0.5/32"])


def test_an_endpoint_needs_to_be_allowed_even_when_it_is_public() -> None:
    with pytest.raises(ForbiddenTarget, match=r"add public\.example to CURFEW_ALLOW_ENDPOINTS"):
        check_endpoint("https://public.example", ())
    with pytest.raises(ForbiddenTarget):
        check_endpoint("https://both.example", ["10.0.0.0/8"])
    check_endpoint("https://public.example", ["public.example"])
    check_endpoint("https://both.example", ["10.0.0.0/8", "93.184.216.34"])


def test_a_name_without_an_address_may_have_one_later() -> None:
    with pytest.raises(UnresolvedTarget):
        check_target("https://gone.example", ())


@pytest.mark.parametrize("nonsense", ["", "http://", "http:///path", "http://[::1", "//"])
def test_nonsense_is_forbidden(nonsense: str) -> None:
    with pytest.raises(ForbiddenTarget):
        check_target(nonsense, ())
