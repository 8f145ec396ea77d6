"""Links and addresses by netlink. Blocking; callers use a thread."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from services.network.domain.addresses import Subnets, bridge_mac
from services.network.ports import Link, LinkAddress

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

    def __init__(self) -> None:
        self._ip: Any = IPRoute()
        self._lock = threading.Lock()

    def close(self) -> None:
        self._ip.close()

    def ensure_bridge(self, name: str, subnets: Subnets, mtu: int) -> None:
        with self._lock:
            index = self._index(name)
            if index is None:
                self._ip.link(
                    "add", ifname=name, kind="bridge", address=bridge_mac(name), br_forward_delay=0, mtu=mtu
                )
                index = self._index(name)
            self._set_addresses(index, subnets)
            self._ip.link("set", index=index, state="up", mtu=mtu)

    def delete(self, name: str) -> None:
        with self._lock:
            index = self._index(name)
            if index is not None:
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

    def _index(self, name: str) -> int | None:
        found = self._ip.link_lookup(ifname=name)
        return found[0] if found else None

    def _set_addresses(self, index: int | None, subnets: Subnets) -> None:
        wanted = {(str(i.ip), i.network.prefixlen) for i in (subnets.ipv4, subnets.ipv6) if i}
        have = set()
        for entry in self._ip.get_addr(index=index):
            if entry["scope"] == 0:
                have.add((entry.get_attr("IFA_ADDRESS"), entry["prefixlen"]))
        for address, prefix in have - wanted:
            self._ip.addr("del", index=index, address=address, prefixlen=prefix)
        for address, prefix in wanted - have:
            with contextlib.suppress(NetlinkError):
                # IPv6 would otherwise be tentative for a second, and dnsmasq could not bind to it.
                flags = {"flags": 0x02} if ":" in address else {}
                self._ip.addr("add", index=index, address=address, prefixlen=prefix, **flags)


def _link(link: Any, addresses: list[Any], members: list[str]) -> Link:
    info = link.get_attr("IFLA_LINKINFO")
    kind = info.get_attr("IFLA_INFO_KIND") if info else ""
    stats = link.get_attr("IFLA_STATS64") or {}
    return Link(
        name=link.get_attr("IFLA_IFNAME"),
        kind=kind or "",
        hwaddr=link.get_attr("IFLA_ADDRESS") or "",
        mtu=link.get_attr("IFLA_MTU") or 0,
        is_up=bool(link["flags"] & 1),
        is_loopback=bool(link["flags"] & 8),
        addresses=tuple(_address(a) for a in addresses if a["index"] == link["index"]),
        counters={ours: int(stats.get(theirs, 0)) for ours, theirs in _COUNTERS.items()},
        members=tuple(members),
    )


def _address(entry: Any) -> LinkAddress:
    family = "inet" if entry["family"] == socket.AF_INET else "inet6"
    scope = _SCOPES.get(entry["scope"], "global")
    return LinkAddress(family, entry.get_attr("IFA_ADDRESS"), entry["prefixlen"], scope)
