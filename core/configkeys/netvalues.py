"""What interface names, MACs, MTUs, addresses and subnets may be, in LXD's words. Pure.

Every parser returns the value as a type and raises ValueError; the sentences are what LXD 5.0.2 answers.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_interface,
)
from typing import TypeVar

from core.names import NO_INTERFACES

T = TypeVar("T")
_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")
_MOST = 64


def split_items(value: str) -> list[str]:
    return [part.strip() for part in value.split(",")]


def each(parse: Callable[[str], T]) -> Callable[[str], list[T]]:
    """Return a parser of "a,b, c" that tells which item is wrong."""

    def parse_all(value: str) -> list[T]:
        items = split_items(value)
        if len(items) > _MOST:
            raise ValueError(f"More than {_MOST} items")
        return [_item(parse, item) for item in items]

    return parse_all


def _item(parse: Callable[[str], T], item: str) -> T:
    try:
        return parse(item)
    except ValueError as exc:
        raise ValueError(f'Item "{item[:64]}": {exc}') from None


def interface(value: str) -> str:
    if len(value) < 2:
        raise ValueError("Network interface is too short (minimum 2 characters)")
    if len(value) > 15:
        raise ValueError("Network interface is too long (maximum 15 characters)")
    if not re.fullmatch(r"[-_a-zA-Z0-9.]+", value) or value in NO_INTERFACES:
        raise ValueError("Network interface contains invalid characters")
    return value


def mac(value: str) -> str:
    """Return a unicast MAC in small letters; it becomes part of generated files."""
    if not _MAC.fullmatch(value):
        raise ValueError("Invalid MAC address, must be 6 bytes of hex separated by colons")
    if int(value[:2], 16) & 1:
        raise ValueError("Invalid MAC address, it must not be one of a group")
    return value.lower()


def mtu(value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", value):
        raise ValueError(f'Invalid MTU "{value[:32]}"')
    if not 1280 <= int(value) <= 16384:
        raise ValueError(f'Out of MTU range (1280-16384) "{value}"')
    return int(value)


def ip4(value: str) -> IPv4Address:
    found = _whole(ip_address, value)
    if not isinstance(found, IPv4Address):
        raise ValueError(f'Not an IPv4 address "{value[:64]}"')
    return found


def ip6(value: str) -> IPv6Address:
    found = _whole(ip_address, value)
    if not isinstance(found, IPv6Address):
        raise ValueError(f'Not an IPv6 address "{value[:64]}"')
    return found


def bridge4(value: str) -> IPv4Interface:
    """Return the address of a bridge, which is one of its subnet."""
    found = _cidr(value)
    if not isinstance(found, IPv4Interface):
        raise ValueError(f'Not an IPv4 address "{value[:64]}"')
    if found.ip == found.network.network_address:
        raise ValueError(f'Not a usable IPv4 address "{value[:64]}"')
    return found


def bridge6(value: str) -> IPv6Interface:
    found = _cidr(value)
    if not isinstance(found, IPv6Interface):
        raise ValueError(f'Not an IPv6 address "{value[:64]}"')
    if found.ip == found.network.network_address:
        raise ValueError(f'Not a usable IPv6 address "{value[:64]}"')
    return found


def net4(value: str) -> IPv4Network:
    found = _cidr(value)
    if not isinstance(found, IPv4Interface):
        raise ValueError(f'Not an IPv4 network "{value[:64]}"')
    if found.ip != found.network.network_address:
        raise ValueError(f'Not an IPv4 network address "{value[:64]}"')
    return found.network


def net6(value: str) -> IPv6Network:
    found = _cidr(value)
    if not isinstance(found, IPv6Interface):
        raise ValueError(f'Not an IPv6 network "{value[:64]}"')
    if found.ip != found.network.network_address:
        raise ValueError(f'Not an IPv6 network address "{value[:64]}"')
    return found.network


def range4(value: str) -> tuple[IPv4Address, IPv4Address]:
    first, last = _ends(value)
    return _ordered(value, ip4(first), ip4(last))


def range6(value: str) -> tuple[IPv6Address, IPv6Address]:
    first, last = _ends(value)
    return _ordered(value, ip6(first), ip6(last))


_Ends = TypeVar("_Ends", IPv4Address, IPv6Address)


def _ordered(value: str, first: _Ends, last: _Ends) -> tuple[_Ends, _Ends]:
    # LXD takes these and hands out nothing.
    if first > last:
        raise ValueError(f'The start of IP range "{value[:80]}" is after its end')
    return first, last


def _ends(value: str) -> tuple[str, str]:
    first, dash, last = (word.strip() for word in value.partition("-"))
    if not dash:
        raise ValueError("IP range must contain start and end IP addresses")
    return first, last


def _cidr(value: str) -> IPv4Interface | IPv6Interface | None:
    """Return an address with its subnet. Raises: ValueError also when there is no length of a prefix."""
    address, slash, length = value.partition("/")
    found = _whole(ip_interface, value) if slash and address and length.isdigit() else None
    if found is None:
        raise ValueError(f"invalid CIDR address: {value[:64]}")
    return found


def _whole(parse: Callable[[str], T], value: str) -> T | None:
    # Python takes anything as the zone of fe80::1%zone, and it would reach generated files.
    if "%" in value:
        return None
    try:
        return parse(value)
    except ValueError:
        return None
