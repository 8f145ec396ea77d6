"""Sets of addresses and ports as spans of numbers, so that they can be merged and turned round. Pure.

A span is (first, last), both in it. nft refuses sets whose members overlap, which users' lists do.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

Span = tuple[int, int]
_TOP = {"ipv4": 2**32 - 1, "ipv6": 2**128 - 1}


def parse_subject(text: str) -> tuple[str, Span]:
    """Return family and span of an address, a subnet or a range FIRST-LAST. Raises: ValueError."""
    if "%" in text:
        raise ValueError("an address here has no zone")
    first, dash, last = text.partition("-")
    if dash:
        a, b = ip_address(first.strip()), ip_address(last.strip())
        if a.version != b.version or int(a) > int(b):
            raise ValueError("its end is before its start")
        return f"ipv{a.version}", (int(a), int(b))
    net = ip_network(text, strict=False)
    return f"ipv{net.version}", (int(net.network_address), int(net.broadcast_address))


def parse_port(text: str) -> Span:
    """Return the span of a port or of FIRST-LAST. Raises: ValueError, in LXD's words."""
    first, dash, last = text.partition("-")
    span = _port(first), _port(last if dash else first)
    if dash and span[0] >= span[1]:
        raise ValueError(f"Start port {span[0]} must be lower than end port {span[1]}")
    return span


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6 and int(text) < 1 << 16):
        raise ValueError(f'Invalid port number "{text[:32]}"')
    return int(text)


def merged(spans: Iterable[Span]) -> list[Span]:
    """Return the same set in order, with no two spans that touch."""
    found: list[Span] = []
    for first, last in sorted(spans):
        if found and first <= found[-1][1] + 1:
            found[-1] = found[-1][0], max(found[-1][1], last)
        else:
            found.append((first, last))
    return found


def without(spans: Iterable[Span], version: str) -> list[Span]:
    """Return all addresses of a family that are not among *spans*."""
    found, start = [], 0
    for first, last in merged(spans):
        if first > start:
            found.append((start, first - 1))
        start = last + 1
    if start <= _TOP[version]:
        found.append((start, _TOP[version]))
    return found


def address_set(spans: Iterable[Span], version: str) -> str:
    """Return addresses as nft writes a set of them."""
    make = IPv4Address if version == "ipv4" else IPv6Address
    parts = [str(make(a)) if a == b else f"{make(a)}-{make(b)}" for a, b in merged(spans)]
    return "{ " + ", ".join(parts) + " }"


def port_set(spans: Iterable[Span]) -> str:
    return "{ " + ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in merged(spans)) + " }"
