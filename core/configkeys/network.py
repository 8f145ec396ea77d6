"""Keys of networks, and the options of a NIC on one. Each has an effect or says why it is refused."""

from __future__ import annotations

import re

from core.configkeys import netvalues, tunnels
from core.configkeys.schema import (
    ConfigKey,
    Family,
    Parser,
    Schema,
    Sentences,
    lines,
    one_of,
    refusing,
    text,
)
from core.errors import Invalid
from core.units import parse_bool

_DOMAIN = re.compile(r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63}){0,8}")
_EXPIRY = re.compile(r"[0-9]{1,9}[smhdw]?|infinite")
_MOST = 64
# Who writes it can have programs run as root, so only who owns the host may allow it.
RAW, ALLOWS_RAW = "raw.dnsmasq", "networks.raw_dnsmasq"


def items(value: str) -> list[str]:
    """Return the parts of a list such as "a,b, c"."""
    found = netvalues.split_items(value)
    if len(found) > _MOST or not all(found):
        raise ValueError(f"it must be a list of 1 to {_MOST} items separated by commas")
    return found


def parse_domain(value: str) -> str:
    """Commas, slashes and spaces mean something to dnsmasq."""
    if not _DOMAIN.fullmatch(value):
        raise ValueError(f"Invalid domain {value[:64]!r}; use letters, digits, - and .")
    return value


def parse_expiry(value: str) -> str:
    if not _EXPIRY.fullmatch(value):
        raise ValueError(f"{value[:32]!r} is not a time such as 30m, 1h or infinite")
    return value


def parse_interface(value: str) -> str:
    try:
        return netvalues.interface(value)
    except ValueError as exc:
        raise ValueError(f'Invalid interface name "{value[:32]}": {exc}') from None


def parse_interfaces(value: str) -> list[str]:
    return [parse_interface(part) for part in items(value)]


def parse_domains(value: str) -> list[str]:
    return [parse_domain(part) for part in items(value)]


parse_mac = netvalues.mac
parse_routes4 = netvalues.each(netvalues.net4)
parse_routes6 = netvalues.each(netvalues.net6)
parse_ranges4 = netvalues.each(netvalues.range4)
parse_ranges6 = netvalues.each(netvalues.range6)


def _bridge4(value: str) -> object:
    return value if value in ("none", "auto") else netvalues.bridge4(value)


def _bridge6(value: str) -> object:
    return value if value in ("none", "auto") else netvalues.bridge6(value)


def _driver(value: str) -> str:
    if one_of("native", "openvswitch")(value) != "native":
        raise Invalid("NO_DRIVER", "Open vSwitch isn't installed on this system; use bridge.driver=native")
    return value


def parse_acls(value: str) -> list[str]:
    """Return names of ACLs; whether they exist, only who knows them can say."""
    return items(value)


def _mode(value: str) -> str:
    if one_of("standard", "fan")(value) != "standard":
        raise Invalid("KEY_REFUSED", f"FAN mode is not supported: {_ONE_HOST}")
    return value


def _no(name: str, why: str) -> ConfigKey:
    return ConfigKey(name, refused=why)


_OVN = "OVN is not available in this version"
_ONE_HOST = "networks that span hosts are not available in this version"
ACL_DEFAULTS: tuple[tuple[str, Parser, str], ...] = tuple(
    (f"security.acls.default.{direction}.{what}", parse, default)
    for direction in ("ingress", "egress")
    for what, parse, default in (
        ("action", one_of("allow", "drop", "reject"), "reject"),
        ("logged", parse_bool, "false"),
    )
)
_ORDER = "without effect, as in LXD with nftables: the rules lie in a table of their own"
_ZONES = (
    ("forward", "zone that holds the addresses of instances"),
    ("reverse.ipv4", "zone that holds their names"),
    ("reverse.ipv6", "zone that holds their names"),
)
NETWORK = Schema(
    "network",
    (
        ConfigKey("ipv4.address", _bridge4, "bridge's address, auto or none"),
        ConfigKey("ipv6.address", _bridge6, "bridge's address, auto or none"),
        ConfigKey("ipv4.nat", parse_bool, "masquerade", "false"),
        ConfigKey("ipv6.nat", parse_bool, "masquerade", "false"),
        ConfigKey("ipv4.nat.address", netvalues.ip4, "source address instead of the outgoing interface's"),
        ConfigKey("ipv6.nat.address", netvalues.ip6, "source address instead of the outgoing interface's"),
        ConfigKey("ipv4.dhcp", parse_bool, "hand out addresses", "true"),
        ConfigKey("ipv6.dhcp", parse_bool, "hand out options, and addresses when stateful", "true"),
        ConfigKey("ipv4.dhcp.expiry", parse_expiry, "life of a lease", "1h"),
        ConfigKey("ipv6.dhcp.expiry", parse_expiry, "life of a lease", "1h"),
        ConfigKey("ipv4.dhcp.gateway", netvalues.ip4, "router told to guests; the bridge when unset"),
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
        ConfigKey("dns.mode", one_of("dynamic", "managed", "none"), "who names guests", "managed"),
        ConfigKey("bridge.mtu", netvalues.mtu, "bytes", "1500"),
        ConfigKey("bridge.hwaddr", parse_mac, "MAC of the bridge; made from its name when unset"),
        ConfigKey("bridge.external_interfaces", parse_interfaces, "interfaces that become ports"),
        ConfigKey("bridge.driver", _driver, "bridge implementation", "native"),
        ConfigKey("bridge.mode", _mode, "kind of bridge", "standard"),
        ConfigKey(RAW, lines, f"lines of dnsmasq's configuration; needs {ALLOWS_RAW}=true of the server"),
        *(ConfigKey(f"ipv{n}.nat.order", one_of("before", "after"), _ORDER, "before") for n in "46"),
        refusing("ipv4.ovn.ranges", _OVN, parse_ranges4),
        refusing("ipv6.ovn.ranges", _OVN, parse_ranges6),
        *(_no(f"maas.subnet.ipv{n}", "MAAS is not supported") for n in "46"),
        *(ConfigKey(f"dns.zone.{n}", text, doc) for n, doc in _ZONES),
        refusing("fan.overlay_subnet", _ONE_HOST, netvalues.net4),
        refusing("fan.underlay_subnet", _ONE_HOST),
        refusing("fan.type", _ONE_HOST, one_of("vxlan", "ipip")),
        *(_no(f"bgp.ipv{n}.nexthop", "BGP is not available in this version") for n in "46"),
        ConfigKey("security.acls", parse_acls, "ACLs that bound what passes the bridge"),
        *(ConfigKey(key, parse, "of what no ACL tells", default) for key, parse, default in ACL_DEFAULTS),
    ),
    {"user.": lines, "tunnel.": Family(tunnels.check_key)},
    {"bgp.peers.": "BGP is not available in this version"},
    sentences=Sentences(
        'Invalid value for network "{what}" option "{name}": {why}',
        'Invalid option for network "{what}" option "{name}"',
    ),
)
