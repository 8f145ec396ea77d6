"""What the host's end of a NIC gets besides its interfaces. Pure.

All of it hangs on the pair of interfaces and goes with it, but for what lies elsewhere: routes through a
bridge, and neighbours that the parent answers for.
"""

from __future__ import annotations

from dataclasses import dataclass

from core.configkeys import nic as keys
from core.configkeys.netvalues import split_items
from core.records import NicReservation
from core.units import parse_bool

GATEWAYS = {"ipv4": "169.254.0.1", "ipv6": "fe80::1"}
_VERSIONS = ("ipv4", "ipv6")


@dataclass(frozen=True)
class Route:
    """A subnet behind an interface of the host; table 0 is the main one."""

    net: str
    device: str
    via: str = ""
    table: int = 0


@dataclass(frozen=True)
class Vlan:
    """One VLAN of a bridge's port; untagged is the one that the guest sees without a tag."""

    id: int
    untagged: bool = False


@dataclass(frozen=True)
class HostSide:
    """addresses: of the host's end. proxies: what *parent* answers for. isolated: from ports that are too."""

    addresses: tuple[str, ...] = ()
    routes: tuple[Route, ...] = ()
    proxies: tuple[str, ...] = ()
    parent: str = ""
    isolated: bool = False
    vlans: tuple[Vlan, ...] = ()


def plan(nic: NicReservation) -> HostSide:
    if nic.nictype == keys.ROUTED:
        return _routed(nic)
    if nic.nictype == keys.P2P:
        return HostSide(routes=tuple(Route(net, nic.host_name) for net in routes_of(nic)))
    if nic.nictype == keys.BRIDGED:
        return HostSide(
            routes=tuple(Route(net, nic.bridge) for net in routes_of(nic)),
            isolated=parse_bool(nic.options.get("security.port_isolation") or "false"),
            vlans=vlans_of(nic),
        )
    return HostSide()


def is_needed(nic: NicReservation) -> bool:
    """Return whether anything is to be done on the host besides making the interfaces."""
    return nic.nictype in (keys.ROUTED, keys.PHYSICAL) or bool(nic.vlan) or plan(nic) != HostSide()


def addresses_of(nic: NicReservation, version: str) -> list[str]:
    """Return what a routed or ipvlan NIC has inside."""
    is_fixed = nic.nictype in (keys.ROUTED, keys.IPVLAN)
    text = nic.options.get(f"{version}.address", "") if is_fixed else ""
    return split_items(text) if text else []


def gateway_of(nic: NicReservation, version: str) -> str:
    """Return the router that the guest of such a NIC has, "dev" for the link itself; empty for none."""
    if not addresses_of(nic, version) or nic.options.get(f"{version}.gateway", "auto") != "auto":
        return ""
    return "dev" if nic.nictype == keys.IPVLAN else _host_address(nic, version)


def wants_probe(nic: NicReservation, version: str) -> bool:
    return bool(nic.parent) and parse_bool(nic.options.get(f"{version}.neighbor_probe") or "true")


def vlans_of(nic: NicReservation) -> tuple[Vlan, ...]:
    """Return the VLANs of its port; with vlan=none only tagged ones get through."""
    native, tagged = nic.options.get("vlan", ""), nic.options.get("vlan.tagged", "")
    found = [Vlan(int(native), untagged=True)] if native not in ("", "none") else []
    return (*found, *(Vlan(id) for id in (keys.vlan_ranges(tagged) if tagged else ())))


def _host_address(nic: NicReservation, version: str) -> str:
    return nic.options.get(f"{version}.host_address") or GATEWAYS[version]


def _routed(nic: NicReservation) -> HostSide:
    addresses, routes, proxies = list[str](), list[Route](), list[str]()
    for version in _VERSIONS:
        own = addresses_of(nic, version)
        if not own:
            continue
        bits = 32 if version == "ipv4" else 128
        addresses.append(f"{_host_address(nic, version)}/{bits}")
        tables = [0]
        if table := nic.options.get(f"{version}.host_table"):
            tables.append(int(table))
        routes += [Route(f"{ip}/{bits}", nic.host_name, table=table) for table in tables for ip in own]
        routes += [Route(net, nic.host_name, via=own[0]) for net in routes_of(nic, version)]
        proxies += own if nic.parent else []
    return HostSide(tuple(addresses), tuple(routes), tuple(proxies), nic.parent)


def routes_of(nic: NicReservation, version: str = "") -> list[str]:
    """Return the subnets that are routed to it, of one family or both."""
    found = []
    for v in (version,) if version else _VERSIONS:
        for key in (f"{v}.routes", f"{v}.routes.external"):
            if text := nic.options.get(key):
                found += split_items(text)
    return found
