"""Which addresses a network and its NICs get. Pure: randomness and what is taken are arguments."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
)
from random import Random

from core.errors import Invalid, LimitReached

_TRIES = 1000
_MAC_PREFIX = "00:16:3e"


def is_given(hwaddr: str) -> bool:
    """Whether a MAC is of the kind that NICs get here; others are of guests' guests or real hosts."""
    return hwaddr.lower().startswith(_MAC_PREFIX)


@dataclass(frozen=True)
class Subnets:
    """The bridge's own addresses; None when the family is off."""

    ipv4: IPv4Interface | None
    ipv6: IPv6Interface | None


def subnets_of(config: dict[str, str]) -> Subnets:
    return _subnets(config.get("ipv4.address", "none"), config.get("ipv6.address", "none"))


# Each NIC is compared with its network's at every change of its instance.
@lru_cache(maxsize=256)
def _subnets(v4: str, v6: str) -> Subnets:
    return Subnets(None if v4 == "none" else IPv4Interface(v4), None if v6 == "none" else IPv6Interface(v6))


def free_ipv4_subnet(taken: Iterable[IPv4Network], random: Random) -> str:
    """Return the first address of an unused 10.x.y.0/24, with its prefix."""
    used = tuple(taken)
    for _ in range(200):
        net = IPv4Network(f"10.{random.randrange(256)}.{random.randrange(256)}.0/24")
        if not any(net.overlaps(other) for other in used):
            return f"{net[1]}/24"
    raise LimitReached("NO_SUBNET", "No free IPv4 subnet was found; set ipv4.address yourself")


def free_ipv6_subnet(taken: Iterable[IPv6Network], random: Random) -> str:
    """Return the first address of an unused unique local /64, with its prefix."""
    used = tuple(taken)
    for _ in range(200):
        net = IPv6Network((0xFD42 << 112 | random.getrandbits(48) << 64, 64))
        if not any(net.overlaps(other) for other in used):
            return f"{net[1]}/64"
    raise LimitReached("NO_SUBNET", "No free IPv6 subnet was found; set ipv6.address yourself")


def new_mac(random: Random) -> str:
    return _MAC_PREFIX + "".join(f":{random.randrange(256):02x}" for _ in range(3))


def bridge_mac(name: str) -> str:
    """Return the same MAC for the same network always, so that neighbours' caches stay right."""
    digest = hashlib.sha256(name.encode()).digest()
    return _MAC_PREFIX + "".join(f":{b:02x}" for b in digest[:3])


def host_name(instance_id: str, device: str) -> str:
    """Return the host side's interface name: unique, stable, at most 15 characters."""
    return "veth" + hashlib.sha256(f"{instance_id}/{device}".encode()).hexdigest()[:8]


Range = tuple[int, int]


def whole(net: IPv4Network | IPv6Network) -> list[Range]:
    """Return what of *net* a host may have, which may be nothing; IPv4 knows a broadcast address."""
    first = int(net.network_address) + 1
    last = int(net.network_address) + net.num_addresses - 1 - (net.version == 4)
    return [(first, last)] if first <= last else []


def within(
    ranges: Iterable[tuple[IPv4Address, IPv4Address] | tuple[IPv6Address, IPv6Address]],
    net: IPv4Network | IPv6Network,
    key: str,
) -> list[Range]:
    """Return *ranges* as numbers. Raises: Invalid when one lies outside *net*."""
    found = []
    for first, last in ranges:
        if first not in net or last not in net:
            raise Invalid(
                "BAD_RANGE", f"Invalid value for {key}: {first}-{last} is not within {net}", about=key
            )
        found.append((int(first), int(last)))
    return found


def free_ipv4(
    bridge: IPv4Interface,
    taken: set[str],
    avoid: set[str],
    random: Random,
    ranges: list[Range] | None = None,
) -> str:
    """Return a free address, from *avoid* (still leased to a MAC that is gone) only in need.

    Raises: LimitReached when the subnet, or its *ranges*, is used up.
    """
    spans = ranges or whole(bridge.network)
    fallback = ""
    for number in _shuffled(spans, random):
        candidate = str(IPv4Address(number))
        if candidate in taken or candidate == str(bridge.ip):
            continue
        if candidate not in avoid:
            return candidate
        fallback = fallback or candidate
    if fallback:
        return fallback
    raise _full(bridge)


def _shuffled(spans: list[Range], random: Random) -> Iterable[int]:
    """Yield every number of *spans* once, beginning anywhere: neighbours in time are none in address."""
    count = _size(spans)
    start = random.randrange(count) if count else 0
    for i in range(count):
        yield _nth(spans, (start + i) % count)


def _size(spans: list[Range]) -> int:
    return sum(last - first + 1 for first, last in spans)


def _nth(spans: list[Range], n: int) -> int:
    for first, last in spans:
        if n <= last - first:
            return first + n
        n -= last - first + 1
    raise IndexError(n)


def free_ipv6(bridge: IPv6Interface, taken: set[str], random: Random, ranges: list[Range]) -> str:
    """Return a free address of *ranges*. Raises: LimitReached."""
    count = _size(ranges)
    for _ in range(_TRIES if count else 0):
        candidate = str(IPv6Address(_nth(ranges, random.randrange(count))))
        if candidate not in taken and candidate != str(bridge.ip):
            return candidate
    raise _full(bridge)


Bridge = IPv4Interface | IPv6Interface


def free(bridge: Bridge, taken: set[str], random: Random) -> str:
    """Return a free address anywhere in a subnet. Raises: LimitReached."""
    if isinstance(bridge, IPv4Interface):
        return free_ipv4(bridge, taken, set(), random)
    return free_ipv6(bridge, taken, random, whole(bridge.network))


def _full(bridge: IPv4Interface | IPv6Interface) -> LimitReached:
    return LimitReached(
        "NO_ADDRESSES_LEFT",
        f"No free address is left in {bridge.network}; delete instances or widen it",
        about=str(bridge.network),
    )


def slaac(net: IPv6Network, mac: str) -> str:
    """Return the address a guest forms from the announced prefix. Source: RFC 4291, appendix A."""
    octets = bytes.fromhex(mac.replace(":", ""))
    eui = bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:]
    return str(ip_address(int(net.network_address) | int.from_bytes(eui, "big")))


def link_local(mac: str) -> str:
    return slaac(IPv6Network("fe80::/64"), mac)


def checked_static(bridge: IPv4Interface | IPv6Interface | None, address: str, network: str) -> str:
    """Return a static address if it fits the network. Raises: Invalid."""
    try:
        ip = ip_address(address)
    except ValueError:
        raise Invalid("BAD_ADDRESS", f"Invalid IP address {address!r}", about=address) from None
    if bridge is None or ip not in bridge.network:
        raise Invalid(
            "OUTSIDE", f'Device IP address "{address}" not within network "{network}" subnet', about=address
        )
    if ip == bridge.ip:
        raise Invalid(
            "GATEWAY",
            f'IP address "{address}" is assigned to parent managed network device ""',
            about=address,
        )
    return str(ip)


def without(
    taken: tuple[list[IPv4Network], list[IPv6Network]], own: Subnets
) -> tuple[list[IPv4Network], list[IPv6Network]]:
    """Return *taken* less a network's own subnets, which its bridge shows too."""
    v4 = [net for net in taken[0] if own.ipv4 is None or net != own.ipv4.network]
    v6 = [net for net in taken[1] if own.ipv6 is None or net != own.ipv6.network]
    return v4, v6
