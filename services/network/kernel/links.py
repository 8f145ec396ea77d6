"""Links and addresses by netlink. Blocking; callers use a thread."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

from core.errors import Invalid, WrongState
from services.network.domain.addresses import Subnets
from services.network.domain.bridge import BridgePlan
from services.network.domain.overlay import Mesh
from services.network.kernel.ifaces import add_address, addresses_of, differing, index_of, kind_of
from services.network.kernel.netlink import IPRoute, NetlinkError
from services.network.kernel.plugs import Plugs
from services.network.kernel.tunnels import Tunnels
from services.network.kernel.vxlan import Overlays
from services.network.ports import Link, LinkAddress

# Source: include/uapi/linux/rtnetlink.h, RT_TABLE_MAIN and RTPROT_STATIC.
_MAIN, _STATIC = 254, 4
_SCOPES = {0: "global", 253: "link", 254: "local"}
_COUNTERS = {
    "bytes_received": "rx_bytes",
    "bytes_sent": "tx_bytes",
    "packets_received": "rx_packets",
    "packets_sent": "tx_packets",
    "errors_received": "rx_errors",
    "errors_sent": "tx_errors",
    "packets_dropped_inbound": "rx_dropped",
    "packets_dropped_outbound": "tx_dropped",
}


class Links:
    """One netlink socket, used by one thread at a time."""

    def __init__(self, owner: str = "") -> None:
        self._ip: Any = IPRoute()
        self.plugs = Plugs(self._ip, owner)
        self.overlays = Overlays(self._ip)
        self.tunnels = Tunnels(self._ip)
        self._lock = threading.Lock()
        # Routes by the index of their bridge, as they were set last.
        self._routed: dict[int, frozenset[str]] = {}

    def close(self) -> None:
        self.plugs.close()
        self._ip.close()

    def ensure_bridge(self, plan: BridgePlan, before: tuple[str, ...]) -> int:
        """Make the bridge as *plan* says and return its index.

        *before* are the interfaces that an earlier plan made ports.
        """
        with self._lock:
            if index_of(plan.name) is None:
                self._ip.link(
                    "add",
                    ifname=plan.name,
                    kind="bridge",
                    address=plan.hwaddr,
                    mtu=plan.mtu,
                )
            index = self._required(plan.name)
            if kind_of(self._get(index)) != "bridge":
                raise WrongState(
                    "NOT_A_BRIDGE", f"The interface {plan.name} of this host is not a bridge", about=plan.name
                )
            self._set_addresses(index, plan.subnets)
            self._set_link(index, plan)
            self._set_ports(index, plan.external, before)
            self._set_routes(index, plan.routes)
            return index

    def ensure_joined(self, bridge: int, names: set[str]) -> None:
        """Join the veths *names* that have no bridge to *bridge*, as after it was deleted by hand."""
        with self._lock:
            for link in list(self._ip.get_links(kind="veth")):
                if link.get_attr("IFLA_IFNAME") in names and not link.get_attr("IFLA_MASTER"):
                    self._ip.link("set", index=link["index"], master=bridge)

    def ensure_tunnels(self, plan: BridgePlan, bridge: int, before: Mapping[str, str]) -> None:
        """*before*: devices of tunnels that an earlier plan made, and what they were."""
        with self._lock:
            self.tunnels.remove(before.keys() - {tunnel.device for tunnel in plan.tunnels})
            for tunnel in plan.tunnels:
                is_known = before.get(tunnel.device) == repr(tunnel)
                self.tunnels.ensure(tunnel, bridge, plan.mtu, is_known=is_known)

    def remove_tunnels(self, devices: Iterable[str]) -> None:
        with self._lock:
            self.tunnels.remove(devices)

    def follow(self, bridge: str, mesh: Mesh) -> None:
        """Tell the kernel what changed on other members, if the overlay is up here."""
        with self._lock:
            if (index := index_of(bridge)) is not None:
                self.overlays.follow(mesh, index)

    def delete_bridge(self, name: str) -> None:
        with self._lock:
            index = index_of(name)
            if index is not None and kind_of(self._get(index)) == "bridge":
                self._ip.link("del", index=index)

    def all(self) -> list[Link]:
        with self._lock:
            links, addresses = list(self._ip.get_links()), list(self._ip.get_addr())
        names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in links}
        masters: dict[int, list[str]] = {}
        for link in links:
            if master := link.get_attr("IFLA_MASTER"):
                masters.setdefault(master, []).append(names[link["index"]])
        return [_link(link, addresses, masters.get(link["index"], [])) for link in links]

    def _required(self, name: str) -> int:
        if (index := index_of(name)) is None:
            raise WrongState("NO_INTERFACE", f"The interface {name} does not exist on this host", about=name)
        return index

    def _get(self, index: int) -> Any:
        found = self._ip.get_links(index)
        return found[0] if found else None

    def _master(self, index: int) -> int | None:
        found: int | None = self._get(index).get_attr("IFLA_MASTER")
        return found

    def _set_link(self, index: int, plan: BridgePlan) -> None:
        if changed := differing(self._get(index), hwaddr=plan.hwaddr, mtu=plan.mtu):
            self._ip.link("set", index=index, **changed)

    def _set_ports(self, bridge: int, wanted: tuple[str, ...], before: tuple[str, ...]) -> None:
        for name in wanted:
            # One that is away joins when it is back, with the next look after the networks.
            index = index_of(name)
            if index is not None and self._master(index) != bridge:
                self._refuse_configured(index, name)
                self._ip.link("set", index=index, master=bridge, state="up")
        for name in set(before) - set(wanted):
            gone = index_of(name)
            if gone is not None and self._master(gone) == bridge:
                self._ip.link("set", index=gone, master=0)

    def _refuse_configured(self, index: int, name: str) -> None:
        if addresses_of(self._ip, index):
            raise Invalid(
                "CONFIGURED", f"Only unconfigured network interfaces can be bridged; {name} has an address",
                about=name,
            )  # fmt: skip

    def _set_routes(self, index: int, wanted: frozenset[str]) -> None:
        if not wanted and self._routed.get(index) == wanted:
            return  # a look lists all routes of the host, of which each port of a bridge has four
        routes = self._ip.get_routes(table=_MAIN, proto=_STATIC)
        mine = (_subnet(route) for route in routes if route.get_attr("RTA_OIF") == index)
        have = {str(net) for net in mine if net}
        for net in have - wanted:
            self._ip.route("del", dst=net, oif=index, proto=_STATIC)
        for net in wanted - have:
            try:
                self._ip.route("add", dst=net, oif=index, proto=_STATIC)
            except NetlinkError as exc:
                raise WrongState(
                    "ROUTE_FAILED", f"The route to {net} could not be set: {exc}", about=net
                ) from exc
        self._routed[index] = wanted

    def _set_addresses(self, index: int, subnets: Subnets) -> None:
        wanted = {(str(i.ip), i.network.prefixlen) for i in (subnets.ipv4, subnets.ipv6) if i}
        have = addresses_of(self._ip, index)
        for address, prefix in have - wanted:
            self._ip.addr("del", index=index, address=address, prefixlen=prefix)
        for address, prefix in wanted - have:
            with contextlib.suppress(NetlinkError):
                add_address(self._ip, index, address, prefix)


def _subnet(route: Any) -> IPv4Network | IPv6Network | None:
    destination = route.get_attr("RTA_DST")
    if not destination or (":" in destination and destination.startswith(("fe80", "ff"))):
        return None
    return ip_network(f"{destination}/{route['dst_len']}")


def _link(link: Any, addresses: list[Any], members: list[str]) -> Link:
    info, kind = link.get_attr("IFLA_LINKINFO"), kind_of(link)
    stats = link.get_attr("IFLA_STATS64") or {}
    return Link(
        name=link.get_attr("IFLA_IFNAME"),
        kind=kind,
        hwaddr=link.get_attr("IFLA_ADDRESS") or "",
        mtu=link.get_attr("IFLA_MTU") or 0,
        is_up=bool(link["flags"] & 1),
        is_loopback=bool(link["flags"] & 8),
        addresses=tuple(_address(a) for a in addresses if a["index"] == link["index"]),
        counters={ours: int(stats.get(theirs, 0)) for ours, theirs in _COUNTERS.items()},
        members=tuple(members),
        index=link["index"],
        forward_delay_cs=_forward_delay(info) if kind == "bridge" else 0,
    )


def _forward_delay(info: Any) -> int:
    data = info.get_attr("IFLA_INFO_DATA")
    return int(data.get_attr("IFLA_BR_FORWARD_DELAY") or 0) if data else 0


def _address(entry: Any) -> LinkAddress:
    family = "inet" if entry["family"] == socket.AF_INET else "inet6"
    scope = _SCOPES.get(entry["scope"], "global")
    return LinkAddress(family, entry.get_attr("IFA_ADDRESS"), entry["prefixlen"], scope)
