"""The VXLAN port of an overlay, and what the kernel is told of guests on other members. Blocking.

The port learns nothing and floods nothing: what has no entry is dropped. Entries are sticky, so that a guest
that sends with the MAC of one elsewhere moves nothing. Source: bridge(8), ip-link(8).
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Mapping
from typing import Any

from core.errors import WrongState
from services.network.domain.overlay import Mesh, Tables, tables
from services.network.kernel.ifaces import add_address, addresses_of, differing, index_of, kind_of
from services.network.kernel.netlink import NetlinkError

# Source: include/uapi/linux/neighbour.h.
_SELF, _MASTER, _STICKY = 0x02, 0x04, 0x40
_NOARP, _PERMANENT = 0x40, 0x80
# Source: include/uapi/linux/rtnetlink.h. The number of our own routes is none that others use.
_MAIN, _LINK_SCOPE = 254, 253
PROTOCOL = 178
_QUIET = {
    "learning": 0,
    "unicast_flood": 0,
    "mcast_flood": 0,
    "bcast_flood": 0,
    "neigh_suppress": 1,
}


class Overlays:
    """Shares the netlink socket of Links, and its thread."""

    def __init__(self, ip: Any) -> None:
        self._ip = ip
        self._told: dict[str, Tables] = {}

    def ensure(self, mesh: Mesh, bridge: int) -> None:
        """Make port and entries as *mesh* says, whatever they were. Raises: WrongState."""
        if not mesh.local:
            self.remove(mesh.device)
            return
        index = index_of(mesh.device)
        if index is not None and not self._is_same(index, mesh):
            self._ip.link("del", index=index)
            index = None
        if index is None:
            index = self._make(mesh, bridge)
        self._set(index, mesh, bridge)
        self._set_own(index, mesh)
        have = Tables(self._forwarding(index), self._neighbours(bridge), self._sources(bridge))
        self._tell(mesh, have, index, bridge)

    def follow(self, mesh: Mesh, bridge: int) -> None:
        """Tell what changed since the last time, without a look at what is there."""
        index = index_of(mesh.device)
        if index is not None and (before := self._told.get(mesh.device)):
            self._tell(mesh, before, index, bridge)

    def remove(self, device: str) -> None:
        self._told.pop(device, None)
        index = index_of(device)
        if index is not None and self._data(index) is not None:
            self._ip.link("del", index=index)

    # --- the port --------------------------------------------------------------------------------

    def _make(self, mesh: Mesh, bridge: int) -> int:
        more = {"vxlan_local6" if ":" in mesh.local else "vxlan_local": mesh.local}
        try:
            self._ip.link(
                "add", ifname=mesh.device, kind="vxlan", vxlan_id=mesh.vni, vxlan_port=mesh.port,
                vxlan_learning=0, address=mesh.hwaddr, mtu=mesh.mtu, master=bridge, state="up", **more,
            )  # fmt: skip
        except NetlinkError as exc:
            raise _not_made(mesh, exc) from exc
        found = index_of(mesh.device)
        if found is None:
            raise WrongState("NO_VXLAN", f"{mesh.device} was deleted while it was made; try again")
        return found

    def _data(self, index: int) -> Any:
        """Return what is special to a VXLAN device; None when it is another kind."""
        links = self._ip.get_links(index)
        if not links or kind_of(links[0]) != "vxlan":
            return None
        return links[0].get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_DATA")

    def _is_same(self, index: int, mesh: Mesh) -> bool:
        data = self._data(index)
        if data is None:
            text = f"this host has an interface {mesh.device!r} already, which is no VXLAN port"
            raise WrongState("NO_VXLAN", text, about=mesh.device)
        local = data.get_attr("IFLA_VXLAN_LOCAL") or data.get_attr("IFLA_VXLAN_LOCAL6")
        have = data.get_attr("IFLA_VXLAN_ID"), data.get_attr("IFLA_VXLAN_PORT"), local
        return have == (mesh.vni, mesh.port, mesh.local) and not data.get_attr("IFLA_VXLAN_LEARNING")

    def _set(self, index: int, mesh: Mesh, bridge: int) -> None:
        """Change only what differs, which is nothing as a rule."""
        link = self._ip.get_links(index)[0]
        changed = differing(link, hwaddr=mesh.hwaddr, mtu=mesh.mtu, master=bridge)
        if changed:
            self._ip.link("set", index=index, **changed)
        if "master" in changed or not _is_quiet(link):
            self._ip.brport("set", index=index, **_QUIET)

    def _set_own(self, index: int, mesh: Mesh) -> None:
        """Let the port have the member's own addresses: on the bridge, DHCP would name them as router."""
        wanted = {(own, _bits(own)) for own in mesh.own}
        have = addresses_of(self._ip, index)
        for address, bits in have - wanted:
            self._ip.addr("del", index=index, address=address, prefixlen=bits)
        for address, bits in wanted - have:
            add_address(self._ip, index, address, bits)

    # --- the entries -----------------------------------------------------------------------------

    def _forwarding(self, index: int) -> dict[str, str]:
        """Return the MACs that are told in full: by the bridge to the port, and by the port to a member."""
        port, bridge = dict[str, str](), set[str]()
        for entry in self._ip.fdb("dump", ifindex=index):
            hwaddr, via = entry.get_attr("NDA_LLADDR"), entry.get_attr("NDA_DST")
            if entry["flags"] & _SELF and via:
                # One that the bridge does not know as well is half of one: to be told anew.
                port[hwaddr] = via
            elif entry["state"] & _NOARP and entry["flags"] & _STICKY:
                bridge.add(hwaddr)
        halves = dict.fromkeys(bridge - port.keys(), "")
        return {hwaddr: via if hwaddr in bridge else "" for hwaddr, via in port.items()} | halves

    def _neighbours(self, bridge: int) -> dict[str, str]:
        found = self._ip.get_neighbours(ifindex=bridge)
        return {
            entry.get_attr("NDA_DST"): entry.get_attr("NDA_LLADDR") or ""
            for entry in found
            if entry["state"] & _PERMANENT
        }

    def _sources(self, bridge: int) -> dict[str, str]:
        return {
            route.get_attr("RTA_DST"): route.get_attr("RTA_PREFSRC") or ""
            for family in (socket.AF_INET, socket.AF_INET6)
            for route in self._ip.get_routes(family=family, table=_MAIN, proto=PROTOCOL, oif=bridge)
        }

    def _tell(self, mesh: Mesh, have: Tables, port: int, bridge: int) -> None:
        """Turn *have* into what *mesh* says: first what is new, then what is gone."""
        wanted = tables(mesh)
        for hwaddr, via in wanted.forwarding.items():
            if have.forwarding.get(hwaddr) != via:
                self._ip.fdb(
                    "replace",
                    ifindex=port,
                    lladdr=hwaddr,
                    dst=via,
                    flags=_SELF,
                    state=_NOARP | _PERMANENT,
                )
                self._ip.fdb("replace", ifindex=port, lladdr=hwaddr, flags=_MASTER | _STICKY, state=_NOARP)
        for address, hwaddr in wanted.neighbours.items():
            if have.neighbours.get(address) != hwaddr:
                self._neighbour("replace", address, bridge, lladdr=hwaddr, state=_PERMANENT)
        self._tell_sources(have.sources, wanted.sources, bridge)
        for address in have.neighbours.keys() - wanted.neighbours.keys():
            self._neighbour("del", address, bridge)
        for hwaddr in have.forwarding.keys() - wanted.forwarding.keys():
            for flags in (_SELF, _MASTER):
                with contextlib.suppress(NetlinkError):  # gone already
                    self._ip.fdb("del", ifindex=port, lladdr=hwaddr, flags=flags, state=_NOARP)
        self._told[mesh.device] = wanted

    def _tell_sources(self, have: Mapping[str, str], wanted: Mapping[str, str], bridge: int) -> None:
        for address, own in wanted.items():
            if have.get(address) != own:
                self._route("replace", address, bridge, prefsrc=own)
        for address in have.keys() - wanted.keys():
            self._route("del", address, bridge)

    def _neighbour(self, verb: str, address: str, bridge: int, **more: Any) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with contextlib.suppress(NetlinkError):  # gone already, or a family that the bridge has not
            self._ip.neigh(verb, dst=address, ifindex=bridge, family=family, **more)

    def _route(self, verb: str, address: str, bridge: int, **more: Any) -> None:
        if ":" not in address:
            more["scope"] = _LINK_SCOPE
        with contextlib.suppress(NetlinkError):  # gone already, or the address to come from is
            self._ip.route(verb, dst=f"{address}/{_bits(address)}", oif=bridge, proto=PROTOCOL, **more)


def _bits(address: str) -> int:
    return 128 if ":" in address else 32


def _is_quiet(link: Any) -> bool:
    port = link.get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_SLAVE_DATA")
    return port is not None and all(
        port.get_attr(f"IFLA_BRPORT_{name.upper()}") == value for name, value in _QUIET.items()
    )


def _not_made(mesh: Mesh, exc: NetlinkError) -> WrongState:
    why = os.strerror(exc.code)
    if exc.code == errno.EOPNOTSUPP:
        why = "this kernel has no VXLAN (CONFIG_VXLAN)"
    elif exc.code == errno.EEXIST:
        why = f"another interface of this host has overlay.id {mesh.vni}; choose another one"
    elif exc.code == errno.EADDRINUSE:
        why = f"something else has UDP port {mesh.port}; stop it or choose another overlay.port"
    return WrongState("NO_VXLAN", f"The VXLAN port {mesh.device} could not be made: {why}", about=mesh.device)
