"""Which addresses a network and its NICs get. Pure: randomness and what is taken are arguments."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network, ip_address, ip_interface
from random import Random

from core.errors import Invalid, LimitReached

_MAC_PREFIX = "00:16:3e"
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_DOMAIN = re.compile(r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63}){0,3}")
_INTERFACE = re.compile(r"[-_A-Za-z0-9.]{1,15}")
_MTUS = range(68, 65536)


@dataclass(frozen=True)
class Subnets:
    """The bridge's own addresses; None when the family is off."""

    ipv4: IPv4Interface | None
    ipv6: IPv6Interface | None


def subnets_of(config: dict[str, str]) -> Subnets:
    v4, v6 = config.get("ipv4.address", "none"), config.get("ipv6.address", "none")
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


def free_ipv4(bridge: IPv4Interface, taken: set[str], avoid: set[str], random: Random) -> str:
    """Return a free address, from *avoid* (still leased to a MAC that is gone) only in need.

    Raises: LimitReached when the subnet is used up.
    """
    net = bridge.network
    count = net.num_addresses - 2
    start = random.randrange(count)
    fallback = ""
    for i in range(count):
        candidate = str(net[1 + (start + i) % count])
        if candidate in taken or candidate == str(bridge.ip):
            continue
        if candidate not in avoid:
            return candidate
        fallback = fallback or candidate
    if fallback:
        return fallback
    raise LimitReached(
        "NO_ADDRESSES_LEFT", f"No free address is left in {net}; delete instances or widen it", about=str(net)
    )


def slaac(bridge: IPv6Interface, mac: str) -> str:
    """Return the address a guest forms from the announced prefix. Source: RFC 4291, appendix A."""
    octets = bytes.fromhex(mac.replace(":", ""))
    eui = bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:]
    return str(ip_address(int(bridge.network.network_address) | int.from_bytes(eui, "big")))


def checked_static(bridge: IPv4Interface | None, address: str, network: str) -> str:
    """Return a static address if it fits the network. Raises: Invalid."""
    try:
        ip = ip_interface(address).ip
    except ValueError:
        raise Invalid("BAD_ADDRESS", f"Invalid IP address {address!r}", about=address) from None
    if bridge is None or ip not in bridge.network:
        raise Invalid(
            "OUTSIDE", f'Device IP address "{address}" not within network "{network}" subnet', about=address
        )
    if ip == bridge.ip:
        raise Invalid(
            "GATEWAY", f'IP address "{address}" is assigned to parent managed network device', about=address
        )
    return str(ip)


def checked_mac(text: str) -> str:
    """Return a unicast MAC in small letters; it becomes a line of dnsmasq's files. Raises: Invalid."""
    mac = text.lower()
    if not _MAC.fullmatch(mac) or int(mac[:2], 16) & 1:
        raise Invalid("BAD_HWADDR", f"Invalid MAC address {text[:32]!r}; use six hex pairs", about="hwaddr")
    return mac


def checked_interface(text: str) -> str:
    """Return an interface name. Raises: Invalid."""
    if not _INTERFACE.fullmatch(text) or text in (".", ".."):
        raise Invalid(
            "BAD_NAME", f"Invalid interface name {text[:32]!r}; use up to 15 characters", about=text[:32]
        )
    return text


def checked_mtu(text: str) -> int:
    """Return an MTU. Raises: Invalid."""
    if not (text.isascii() and text.isdigit() and len(text) < 6 and int(text) in _MTUS):
        raise Invalid("BAD_MTU", f"Invalid MTU {text[:32]!r}; use 68 to 65535", about="mtu")
    return int(text)


def checked_domain(text: str) -> str:
    """Return a DNS domain; commas, slashes and spaces mean something to dnsmasq. Raises: Invalid."""
    if not _DOMAIN.fullmatch(text):
        raise Invalid(
            "BAD_DOMAIN",
            f"Invalid dns.domain {text[:64]!r}; use letters, digits, - and .",
            about="dns.domain",
        )
    return text


def without(
    taken: tuple[list[IPv4Network], list[IPv6Network]], own: Subnets
) -> tuple[list[IPv4Network], list[IPv6Network]]:
    """Return *taken* less a network's own subnets, which its bridge shows too."""
    v4 = [net for net in taken[0] if own.ipv4 is None or net != own.ipv4.network]
    v6 = [net for net in taken[1] if own.ipv6 is None or net != own.ipv6.network]
    return v4, v6
