"""Keys of networks, and the options of a NIC on one. Each has an effect or says why it is refused."""

from __future__ import annotations

import re
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
)

from core.configkeys.schema import ConfigKey, Parser, Schema, lines, one_of
from core.units import parse_bool, parse_int

_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")
_INTERFACE = re.compile(r"[-_A-Za-z0-9.]{1,15}")
_DOMAIN = re.compile(r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63}){0,8}")
_EXPIRY = re.compile(r"[0-9]{1,9}[smhdw]?|infinite")
_MOST = 64


def items(value: str) -> list[str]:
    """Return the parts of a list such as "a,b, c"."""
    found = [part.strip() for part in value.split(",")]
    if len(found) > _MOST or not all(found):
        raise ValueError(f"it must be a list of 1 to {_MOST} items separated by commas")
    return found


def parse_mac(value: str) -> str:
    """Return a unicast MAC in small letters; it becomes part of generated files."""
    mac = value.lower()
    if not _MAC.fullmatch(mac) or int(mac[:2], 16) & 1:
        raise ValueError(f"Invalid MAC address {value[:32]!r}; use six hex pairs")
    return mac


def parse_interface(value: str) -> str:
    if not _INTERFACE.fullmatch(value) or value in (".", ".."):
        raise ValueError(f"Invalid interface name {value[:32]!r}; use up to 15 characters")
    return value


def parse_domain(value: str) -> str:
    """Commas, slashes and spaces mean something to dnsmasq."""
    if not _DOMAIN.fullmatch(value):
        raise ValueError(f"Invalid domain {value[:64]!r}; use letters, digits, - and .")
    return value


def parse_expiry(value: str) -> str:
    if not _EXPIRY.fullmatch(value):
        raise ValueError(f"{value[:32]!r} is not a time such as 30m, 1h or infinite")
    return value


def _no_zone(value: str) -> str:
    """Refuse fe80::1%zone: Python takes anything as a zone, and it would reach generated files."""
    if "%" in value:
        raise ValueError(f"{value[:64]!r} has a zone; give the address alone")
    return value


def parse_ipv6(value: str) -> IPv6Address:
    return IPv6Address(_no_zone(value))


def parse_interfaces(value: str) -> list[str]:
    return [parse_interface(part) for part in items(value)]


def parse_domains(value: str) -> list[str]:
    return [parse_domain(part) for part in items(value)]


def parse_routes4(value: str) -> list[IPv4Network]:
    return [IPv4Network(part) for part in items(value)]


def parse_routes6(value: str) -> list[IPv6Network]:
    return [IPv6Network(_no_zone(part)) for part in items(value)]


def parse_ranges4(value: str) -> list[tuple[IPv4Address, IPv4Address]]:
    return [(IPv4Address(a), IPv4Address(b)) for a, b in _pairs(value)]


def parse_ranges6(value: str) -> list[tuple[IPv6Address, IPv6Address]]:
    return [(parse_ipv6(a), parse_ipv6(b)) for a, b in _pairs(value)]


def _pairs(value: str) -> list[tuple[str, str]]:
    found = []
    for part in items(value):
        first, dash, last = (word.strip() for word in part.partition("-"))
        if not dash or int(ip_address(first)) > int(ip_address(last)):
            raise ValueError(f"{part[:80]!r} is not a range such as 10.1.2.10-10.1.2.99")
        found.append((first, last))
    return found


def _bridge4(value: str) -> object:
    return value if value in ("none", "auto") else _usable(IPv4Interface(value), value)


def _bridge6(value: str) -> object:
    return value if value in ("none", "auto") else _usable(IPv6Interface(_no_zone(value)), value)


def _usable(interface: IPv4Interface | IPv6Interface, value: str) -> object:
    if interface.ip == interface.network.network_address and interface.network.num_addresses > 1:
        raise ValueError(f"Not a usable address {value!r}; give the bridge's own, such as 10.1.2.1/24")
    return interface


def parse_acls(value: str) -> list[str]:
    """Return names of ACLs; whether they exist, only who knows them can say."""
    return items(value)


def parse_mtu(value: str) -> int:
    mtu = parse_int(value)
    if not 1280 <= mtu <= 16384:
        raise ValueError(f"{value} is not between 1280 and 16384")
    return mtu


def _no(name: str, why: str) -> ConfigKey:
    return ConfigKey(name, refused=why)


_ONE_HOST = "networks that span hosts are not available in this version"
_ORDER = "the rules lie in a table of their own, where order relative to others has no meaning"
ACL_DEFAULTS: tuple[tuple[str, Parser, str], ...] = tuple(
    (f"security.acls.default.{direction}.{what}", parse, default)
    for direction in ("ingress", "egress")
    for what, parse, default in (
        ("action", one_of("allow", "drop", "reject"), "reject"),
        ("logged", parse_bool, "false"),
    )
)
_ZONE = "network zones are not available in this version"
NETWORK = Schema(
    "network",
    (
        ConfigKey("ipv4.address", _bridge4, "bridge's address, auto or none"),
        ConfigKey("ipv6.address", _bridge6, "bridge's address, auto or none"),
        ConfigKey("ipv4.nat", parse_bool, "masquerade", "false"),
        ConfigKey("ipv6.nat", parse_bool, "masquerade", "false"),
        ConfigKey("ipv4.nat.address", IPv4Address, "source address instead of the outgoing interface's"),
        ConfigKey("ipv6.nat.address", parse_ipv6, "source address instead of the outgoing interface's"),
        ConfigKey("ipv4.dhcp", parse_bool, "hand out addresses", "true"),
        ConfigKey("ipv6.dhcp", parse_bool, "hand out options, and addresses when stateful", "true"),
        ConfigKey("ipv4.dhcp.expiry", parse_expiry, "life of a lease", "1h"),
        ConfigKey("ipv6.dhcp.expiry", parse_expiry, "life of a lease", "1h"),
        ConfigKey("ipv4.dhcp.gateway", IPv4Address, "router told to guests; the bridge when unset"),
        ConfigKey("ipv4.dhcp.ranges", parse_ranges4, "where addresses are taken from, FIRST-LAST,..."),
        ConfigKey("ipv6.dhcp.ranges", parse_ranges6, "where addresses are taken from when stateful"),
        ConfigKey("ipv6.dhcp.stateful", parse_bool, "hand out IPv6 addresses by DHCP", "false"),
        ConfigKey("ipv4.firewall", parse_bool, "accept DHCP, DNS and forwarding", "true"),
        ConfigKey("ipv6.firewall", parse_bool, "accept DHCP, DNS and forwarding", "true"),
        ConfigKey("ipv4.routes", parse_routes4, "more subnets behind the bridge"),
        ConfigKey("ipv6.routes", parse_routes6, "more subnets behind the bridge"),
        ConfigKey("ipv4.routing", parse_bool, "let traffic in and out of the bridge", "true"),
        ConfigKey("ipv6.routing", parse_bool, "let traffic in and out of the bridge", "true"),
        ConfigKey("dns.domain", parse_domain, "domain of the names", "lxd"),
        ConfigKey("dns.search", parse_domains, "search list told to guests"),
        ConfigKey("dns.mode", one_of("managed", "dynamic", "none"), "who names guests", "managed"),
        ConfigKey("bridge.mtu", parse_mtu, "bytes", "1500"),
        ConfigKey("bridge.hwaddr", parse_mac, "MAC of the bridge; made from its name when unset"),
        ConfigKey("bridge.external_interfaces", parse_interfaces, "interfaces that become ports"),
        ConfigKey("bridge.driver", one_of("native"), "bridge implementation", "native"),
        ConfigKey("bridge.mode", one_of("standard"), "kind of bridge", "standard"),
        _no("raw.dnsmasq", "it would let a tenant write dnsmasq's configuration"),
        *(_no(f"ipv{n}.nat.order", _ORDER) for n in "46"),
        *(_no(f"ipv{n}.ovn.ranges", "OVN is not available in this version") for n in "46"),
        *(_no(f"maas.subnet.ipv{n}", "MAAS is not supported") for n in "46"),
        *(_no(f"dns.zone.{n}", _ZONE) for n in ("forward", "reverse.ipv4", "reverse.ipv6")),
        *(_no(f"fan.{n}", _ONE_HOST) for n in ("overlay_subnet", "underlay_subnet", "type")),
        *(_no(f"bgp.ipv{n}.nexthop", "BGP is not available in this version") for n in "46"),
        ConfigKey("security.acls", parse_acls, "ACLs that bound what passes the bridge"),
        *(ConfigKey(key, parse, "of what no ACL tells", default) for key, parse, default in ACL_DEFAULTS),
    ),
    {"user.": lines},
    {"tunnel.": _ONE_HOST, "bgp.peers.": "BGP is not available in this version"},
)
