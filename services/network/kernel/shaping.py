"""Bounds on the traffic of a NIC by queues of the kernel: HTB, and an ifb for what the guest sends.

What the guest receives leaves through the host side's own queue. What it sends arrives there, where only
dropping is possible; it is redirected to an ifb device, which has a queue. The alias of that device
tells whose it is. Source: tc-htb(8), tc-mirred(8), Documentation/networking/ifb (kernel).
"""

from __future__ import annotations

import contextlib
import socket
from typing import Any

from core.records import NicReservation
from services.network.domain.shaping import Rates, ifb_name, is_ifb, rates_of
from services.network.kernel.ifaces import index_of
from services.network.kernel.netlink import NetlinkError

_ROOT, _CLASS, _INGRESS = 0x10000, 0x10010, 0xFFFF0000
_ALL_PROTOCOLS = 0x0003
_BURST = 65536
_BURSTS_PER_S = 100
_MOST_KNOWN = 4096


class Shaper:
    """*owner* marks the devices made here; it is <state>/networks. Blocking."""

    def __init__(self, ip: Any, owner: str) -> None:
        self._ip = ip
        self._owner = owner
        # With the index, which no other interface gets while the host is up: what was ensured stays so.
        self._ensured: dict[str, tuple[int, Rates]] = {}

    def ensure(self, nic: NicReservation) -> None:
        """Bound *nic*, whose host side exists, or take bounds back that it no longer has."""
        rates, index = rates_of(nic), socket.if_nametoindex(nic.host_name)
        if self._ensured.pop(nic.host_name, None) != (index, rates):
            self._change(nic, index, rates)
        self._know(nic, index, rates)

    def born(self, nic: NicReservation) -> None:
        """Know of a host side that was just made: the kernel bounds nothing by itself."""
        self._know(nic, socket.if_nametoindex(nic.host_name), Rates())

    def _know(self, nic: NicReservation, index: int, rates: Rates) -> None:
        if len(self._ensured) >= _MOST_KNOWN:  # of most that are gone nobody tells us
            self._ensured.clear()
        self._ensured[nic.host_name] = index, rates

    def _change(self, nic: NicReservation, index: int, rates: Rates) -> None:
        if rates.ingress:
            self._bound(index, rates.ingress)
        else:
            self._free(index)
        if rates.egress:
            self._bound(self._ensure_ifb(nic, index), rates.egress)
        else:
            self._delete(ifb_name(nic.host_name))
            with contextlib.suppress(NetlinkError):
                self._ip.tc("del", "ingress", index, _INGRESS)

    def remove(self, nic: NicReservation) -> None:
        self._ensured.pop(nic.host_name, None)
        self._delete(ifb_name(nic.host_name))

    def remove_unused(self) -> None:
        """Remove the devices of NICs that are gone: those of a guest go with it, the ifb does not."""
        for link in self._ours():
            owner, _, host_name = (link.get_attr("IFLA_IFALIAS") or "").rpartition(" ")
            if owner == self._owner and index_of(host_name) is None:
                self._delete(link.get_attr("IFLA_IFNAME"))

    def _ours(self) -> list[Any]:
        """Return the devices that may be ours. By name: asking for those of a kind lists all of the host."""
        found: list[Any] = []
        for index in [index for index, name in socket.if_nameindex() if is_ifb(name)]:
            with contextlib.suppress(NetlinkError):  # it went meanwhile
                found += self._ip.get_links(index)
        return found

    def _delete(self, name: str) -> None:
        if index_of(name) is not None:
            with contextlib.suppress(NetlinkError):
                self._ip.link("del", index=socket.if_nametoindex(name))

    def _ensure_ifb(self, nic: NicReservation, index: int) -> int:
        name = ifb_name(nic.host_name)
        if index_of(name) is None:
            self._ip.link("add", ifname=name, kind="ifb", state="up")
            alias = f"{self._owner} {nic.host_name}"
            self._ip.link("set", index=socket.if_nametoindex(name), ifalias=alias)
        ifb = socket.if_nametoindex(name)
        with contextlib.suppress(NetlinkError):
            self._ip.tc("del", "ingress", index, _INGRESS)
        self._ip.tc("add", "ingress", index, _INGRESS)
        redirect = {"kind": "mirred", "direction": "egress", "action": "redirect", "ifindex": ifb}
        self._ip.tc(
            "add-filter", "u32", index, parent=_INGRESS, protocol=_ALL_PROTOCOLS, target=1,
            keys=["0x0/0x0+0"], action=redirect,
        )  # fmt: skip
        return ifb

    def _bound(self, index: int, bits: int) -> None:
        burst = max(_BURST, bits // 8 // _BURSTS_PER_S)
        rate = {"rate": f"{bits}bit", "ceil": f"{bits}bit", "burst": burst, "cburst": burst}
        try:
            self._ip.tc("change-class", "htb", index, _CLASS, parent=_ROOT, **rate)
        except NetlinkError:
            self._free(index)
            self._ip.tc("add", "htb", index, _ROOT, default=_CLASS & 0xFFFF)
            self._ip.tc("add-class", "htb", index, _CLASS, parent=_ROOT, **rate)

    def _free(self, index: int) -> None:
        with contextlib.suppress(NetlinkError):
            self._ip.tc("del", "htb", index, _ROOT)
