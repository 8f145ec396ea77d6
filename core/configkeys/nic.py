"""The options of NICs by type, and LXD's words for what is wrong with them. Pure.

Source of the tables and sentences: what LXD 5.0.2 answers. Which type a NIC is follows from its own
`nictype`, or from the type of the managed network that it names.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from core.configkeys import netvalues
from core.configkeys.network import ACL_DEFAULTS, parse_acls
from core.records import BRIDGES
from core.units import parse_bits, parse_bool

Options = Mapping[str, str]
Parser = Callable[[str], object]
BRIDGED, P2P, MACVLAN, PHYSICAL, SRIOV = "bridged", "p2p", "macvlan", "physical", "sriov"
ROUTED, IPVLAN = "routed", "ipvlan"
OF_NETWORK = {**dict.fromkeys(BRIDGES, BRIDGED), "macvlan": MACVLAN, "physical": PHYSICAL, "sriov": SRIOV}
_UINT = re.compile(r"[0-9]+")


def uint32(value: str) -> int:
    if not _UINT.fullmatch(value):
        why = f'strconv.ParseUint: parsing "{value[:32]}": invalid syntax'
        raise ValueError(f'Invalid value for uint32 "{value[:32]}": {why}')
    if len(value) > 10 or int(value) > 2**32 - 1:
        why = f'strconv.ParseUint: parsing "{value[:32]}": value out of range'
        raise ValueError(f'Invalid value for uint32 "{value[:32]}": {why}')
    return int(value)


def vlan_id(value: str) -> int:
    if not _UINT.fullmatch(value) or len(value) > 9:
        raise ValueError(f'Invalid VLAN ID "{value[:32]}"')
    if int(value) > 4094:
        raise ValueError(f'Out of VLAN ID range (0-4094) "{value}"')
    return int(value)


def _bridge_vlan(value: str) -> object:
    return value if value == "none" else vlan_id(value)


def vlan_ranges(value: str) -> list[int]:
    """Return the ids of a list such as "3-5,7". Raises: ValueError."""
    found: list[int] = []
    for item in netvalues.split_items(value):
        match = re.fullmatch(r"([0-9]{1,4})(?:-([0-9]{1,4}))?", item)
        if not match:
            raise ValueError(f"Invalid VLAN range input: {item[:64]}")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ValueError(f"Invalid VLAN range boundary. start:{first} is higher than end:{last}")
        if last > 4094:
            raise ValueError(f"Invalid VLAN range input: {item}")
        found += range(first, last + 1)
    return found


def _bool(value: str) -> bool:
    try:
        return parse_bool(value)
    except ValueError:
        raise ValueError(f'Invalid value for a boolean "{value[:32]}"') from None


def parse_ip(value: str) -> object:
    return netvalues.ip6(value) if ":" in value else netvalues.ip4(value)


def _or_none(parse: Parser) -> Parser:
    return lambda value: value if value == "none" else parse(value)


def _net4(value: str) -> IPv4Network:
    if "/" not in value:
        raise ValueError(f"invalid CIDR address: {value[:64]}")
    try:
        return IPv4Network(value)
    except ValueError:
        raise ValueError(f'Not an IPv4 network "{value[:64]}"') from None


def _net6(value: str) -> IPv6Network:
    if "/" not in value or "%" in value:
        raise ValueError(f"invalid CIDR address: {value[:64]}")
    try:
        return IPv6Network(value)
    except ValueError:
        raise ValueError(f'Not an IPv6 network "{value[:64]}"') from None


def _gateway(value: str) -> str:
    if value not in ("auto", "none"):
        raise ValueError(f"Invalid gateway: {value[:64]}")
    return value


def _rate(value: str) -> int:
    try:
        return parse_bits(value)
    except ValueError:
        raise ValueError(f"Invalid value: {value[:32]}") from None


def _one_of(*choices: str) -> Parser:
    def parse(value: str) -> str:
        if value not in choices:
            raise ValueError(f"Must be one of: {', '.join(choices)}")
        return value

    return parse


def _text(value: str) -> str:
    if any(ord(c) < 32 or c in "\x7f\x85\u2028\u2029" for c in value):
        raise ValueError("It must not contain line breaks or control characters")
    return value


_COMMON: dict[str, Parser] = {
    "name": netvalues.interface,
    "hwaddr": netvalues.mac,
    "mtu": netvalues.mtu,
    "boot.priority": uint32,
}
_PARENT: dict[str, Parser] = {"parent": netvalues.interface}
_NETWORK: dict[str, Parser] = {"network": _text, **_PARENT}
_VLAN: dict[str, Parser] = {"vlan": vlan_id}
_GVRP: dict[str, Parser] = {"gvrp": _bool}
_HOST: dict[str, Parser] = {"host_name": netvalues.interface}
_LIMITS: dict[str, Parser] = dict.fromkeys(("limits.ingress", "limits.egress", "limits.max"), _rate)
_ROUTES: dict[str, Parser] = {"ipv4.routes": netvalues.each(_net4), "ipv6.routes": netvalues.each(_net6)}
_FILTERS: dict[str, Parser] = {f"security.{what}_filtering": _bool for what in ("mac", "ipv4", "ipv6")}
_ACLS: dict[str, Parser] = {"security.acls": parse_acls, **{key: parse for key, parse, _ in ACL_DEFAULTS}}
_LISTS: dict[str, Parser] = {
    "ipv4.address": netvalues.each(netvalues.ip4),
    "ipv6.address": netvalues.each(netvalues.ip6),
}
_PEER: dict[str, Parser] = {
    **{f"ipv{n}.gateway": _gateway for n in "46"},
    **{f"ipv{n}.host_table": uint32 for n in "46"},
}


@dataclass(frozen=True)
class NicType:
    """options: name to parser. needs: those it cannot do without. live: what changes without replugging."""

    options: Mapping[str, Parser]
    needs: tuple[str, ...] = ()
    live: frozenset[str] = frozenset()


TYPES: dict[str, NicType] = {
    BRIDGED: NicType(
        _COMMON
        | _NETWORK
        | _HOST
        | _LIMITS
        | _ROUTES
        | _FILTERS
        | _ACLS
        | {f"{key}.external": parse for key, parse in _ROUTES.items()}
        | {"ipv4.address": _or_none(netvalues.ip4), "ipv6.address": _or_none(netvalues.ip6)}
        | {"security.port_isolation": _bool, "vlan": _bridge_vlan, "vlan.tagged": vlan_ranges},
        needs=("parent",),
        live=frozenset({*_LIMITS, *_ROUTES, *_FILTERS, *_ACLS, *(f"{key}.external" for key in _ROUTES)})
        | {"ipv4.address", "ipv6.address"},
    ),
    P2P: NicType(_COMMON | _HOST | _LIMITS | _ROUTES, live=frozenset({*_LIMITS, *_ROUTES})),
    MACVLAN: NicType(_COMMON | _NETWORK | _VLAN | _GVRP, needs=("parent",)),
    PHYSICAL: NicType(_COMMON | _NETWORK | _VLAN | _GVRP, needs=("parent",)),
    SRIOV: NicType(_COMMON | _NETWORK | _VLAN | {"security.mac_filtering": _bool}, needs=("parent",)),
    ROUTED: NicType(
        _COMMON
        | _PARENT
        | _HOST
        | _LIMITS
        | _ROUTES
        | _VLAN
        | _GVRP
        | _LISTS
        | _PEER
        | {"ipv4.host_address": netvalues.ip4, "ipv6.host_address": netvalues.ip6}
        | {f"ipv{n}.neighbor_probe": _bool for n in "46"},
        live=frozenset(_LIMITS),
    ),
    IPVLAN: NicType(
        _COMMON | _PARENT | _VLAN | _GVRP | _LISTS | _PEER | {"mode": _one_of("l3s", "l2")},
        needs=("parent",),
    ),
}
_FREE = ("type", "nictype")
# Known, so that it is said why they are refused.
REFUSED = ("maas.subnet.ipv4", "maas.subnet.ipv6")
_TWICE = ("nictype", "parent", "mtu", *REFUSED)


def type_of(options: Options, networks: Mapping[str, str] | None) -> str:
    """Return the NIC's type.

    *networks*: managed ones by name, with their type; None when they are not known, and then a NIC that
    names one is taken for bridged. Raises: ValueError, with LXD's sentence.
    """
    if name := options.get("network"):
        if networks is None:
            return BRIDGED
        if name not in networks:
            raise ValueError(f'Failed to load network "{name[:64]}" for project "default": Network not found')
        return OF_NETWORK[networks[name]]
    kind = options.get("nictype", "")
    if kind not in TYPES:
        raise ValueError("Unsupported device type")
    return kind


def check(options: Options, networks: Mapping[str, str] | None) -> None:
    """Check the options as the NIC's type wants them. Raises: ValueError, with LXD's sentence."""
    kind = type_of(options, networks)
    _check_twice(options)
    table = TYPES[kind]
    for key, value in options.items():
        if key in _FREE or key.startswith("user."):
            _parse(key, value, _text)
        elif key not in table.options:
            raise ValueError(f'Invalid device option "{key[:64]}"')
        elif value:
            with _words_of_subnet(key, value, options, kind):
                _parse(key, value, table.options[key])
    for key in table.needs:
        if not options.get(key) and not options.get("network"):
            raise ValueError(f'Invalid value for device option "{key}": Required value')
    if networks is not None:
        _check_together(options, kind, networks)


@contextlib.contextmanager
def _words_of_subnet(key: str, value: str, options: Options, kind: str) -> Iterator[None]:
    """On a managed bridge LXD only looks whether an address is in the subnet, which no nonsense is.

    And it is there that it says less of VLANs.
    """
    try:
        yield
    except ValueError as exc:
        if key == "vlan.tagged" and options.get("network"):
            raise ValueError(str(exc).partition(": ")[2]) from None
        if kind != BRIDGED or not key.endswith(".address") or not options.get("network"):
            raise
        where = f'within network "{options["network"][:64]}" subnet'
        raise ValueError(f'Device IP address "{value[:64]}" not {where}') from None


def _check_twice(options: Options) -> None:
    for key in _TWICE:
        if options.get("network") and options.get(key):
            raise ValueError(f'Cannot use "{key}" property in conjunction with "network" property')


def _parse(key: str, value: str, parse: Parser) -> None:
    try:
        parse(value)
    except ValueError as exc:
        raise ValueError(f'Invalid value for device option "{key}": {exc}') from None


def _check_together(options: Options, kind: str, networks: Mapping[str, str]) -> None:
    """Refuse options that would have no effect, or another one, with the others."""
    if kind == BRIDGED:
        _check_bridged(options, networks)
    elif options.get("network") and options.get("vlan"):
        raise ValueError('Cannot use "vlan" property in conjunction with "network" property')
    if kind in (ROUTED, IPVLAN):
        _check_lists(options)
        if options.get("vlan") and not options.get("parent"):
            raise ValueError("The vlan setting can only be used when combined with a parent interface")


def _check_bridged(options: Options, networks: Mapping[str, str]) -> None:
    is_managed = bool(options.get("network")) or networks.get(options.get("parent", "")) in BRIDGES
    _check_vlans(options)
    if options.get("security.acls"):
        _check_acls(options, is_managed=is_managed)
    for version in ("ipv4", "ipv6"):
        key, filters = f"{version}.address", _is_on(options, f"security.{version}_filtering")
        if options.get(key) == "none" and not filters:
            raise ValueError(f"Cannot have {key} as none unless using security.{version}_filtering")
        if not is_managed:
            _check_unmanaged(options, key, filters=filters)
        if filters and (options.get("vlan") or options.get("vlan.tagged")):
            raise ValueError("IP filtering cannot be used with VLAN filtering")


def _check_vlans(options: Options) -> None:
    vlan, tagged = options.get("vlan"), options.get("vlan.tagged")
    if vlan and tagged and vlan in map(str, vlan_ranges(tagged)):
        why = f'Tagged VLAN ID "{vlan}" cannot be the same as untagged VLAN ID'
        raise ValueError(f'Invalid value for device option "vlan.tagged": {why}')


def _check_acls(options: Options, *, is_managed: bool) -> None:
    """LXD 5.0 has them on OVN only, so that the words are ours."""
    if not is_managed:
        raise ValueError("Cannot use security.acls when using unmanaged parent bridge")
    if options.get("vlan") or options.get("vlan.tagged"):
        raise ValueError("Cannot use VLAN properties with security.acls")


def _check_unmanaged(options: Options, key: str, *, filters: bool) -> None:
    if options.get(key) and not filters:
        raise ValueError(f"Cannot use manually specified {key} when using unmanaged parent bridge")
    if filters and not options.get(key):
        name = key.partition(".")[0].replace("ip", "IP")
        raise ValueError(
            f"{name} filtering requires a manually specified {key} when using an unmanaged parent bridge"
        )


def _check_lists(options: Options) -> None:
    for version in ("ipv4", "ipv6"):
        key = f"{version}.address"
        addresses = netvalues.split_items(options[key]) if options.get(key) else []
        for address in addresses:
            if addresses.count(address) > 1:
                raise ValueError(f'Duplicate address "{address}" in "{key}"')
        if options.get(f"{version}.routes") and not addresses:
            raise ValueError(f"{version}.routes requires {key} to be set")


def _is_on(options: Options, key: str) -> bool:
    return parse_bool(options.get(key) or "false")
