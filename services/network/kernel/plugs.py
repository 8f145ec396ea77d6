"""NICs by netlink: made between the host and a guest's network namespace, and taken away. Blocking.

An interface inside a guest is out of reach from here: who may enter guests takes it out (the runtime).
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Mapping
from ipaddress import ip_interface
from typing import Any

from core.configkeys import nic as keys
from core.errors import WrongState
from core.logs import get_logger
from core.records import NicReservation
from core.units import parse_bool
from services.network.domain import hostside, parents
from services.network.domain.hostside import HostSide, Route
from services.network.kernel import rtnl
from services.network.kernel.ifaces import SYS, add_address, driver_of, index_of, master_of
from services.network.kernel.netlink import NetlinkError
from services.network.kernel.removal import Remover
from services.network.kernel.shaping import Shaper
from services.network.ports import Link

log = get_logger(__name__)
_VETHS = (keys.BRIDGED, keys.P2P, keys.ROUTED)
# Source: include/uapi/linux/rtnetlink.h, RTPROT_BOOT and RT_SCOPE_LINK; a bridge's own are RTPROT_STATIC.
_BOOT, _LINK_SCOPE, _MAIN = 3, 253, 254
# Source: include/uapi/linux/if_bridge.h, BRIDGE_VLAN_INFO_PVID and BRIDGE_VLAN_INFO_UNTAGGED.
_UNTAGGED = 2 | 4
# Source: include/uapi/linux/if_vlan.h, VLAN_FLAG_GVRP.
_GVRP = {"flags": 2, "mask": 2}


class Plugs:
    """Shares the netlink socket of Links, and its thread. *owner* marks what is made here."""

    def __init__(self, ip: Any, owner: str) -> None:
        self._ip = ip
        self._shaper = Shaper(ip, owner)
        self._remover = Remover()
        self._owner = owner

    def close(self) -> None:
        self._remover.close()

    def ensure(self, nic: NicReservation, pid: int) -> bool:
        """Make *nic* in the namespace of *pid*, and return whether it was not there. Raises: WrongState."""
        if nic.nictype in _VETHS:
            if made := self._ensure_veth(nic, pid):
                self._shaper.born(nic)
            self._ensure_side(hostside.plan(nic), nic)
            self._shaper.ensure(nic)
            return made
        if nic.nictype == keys.MACVLAN:
            return self._ensure_macvlan(nic, pid)
        if nic.nictype == keys.IPVLAN:
            return False  # made by the engine only: the instance must not run when one is added
        return self._ensure_given(nic, pid)

    def remove(self, nic: NicReservation, links: list[Link]) -> None:
        """Remove *nic* from the host, and what hangs on it from the guest. What is not ours stays."""
        if nic.nictype in _VETHS:
            self._shaper.remove(nic)
            self._remove_veth(nic)
        if nic.nictype == keys.PHYSICAL and nic.taken and (link := parents.returned(nic, links)):
            self._restore(nic, link)

    def remove_side(self, nic: NicReservation) -> None:
        """Take back what *nic* has on the host besides its interfaces."""
        side = hostside.plan(nic)
        for route in side.routes:
            self._drop_route(route)
        for address in side.proxies:
            self._proxy("del", address, side.parent)
        if nic.vlan:
            self._drop_vlan(parents.link_of(nic))

    def _drop_vlan(self, name: str) -> None:
        """Delete a VLAN's interface if it was made here and nothing is left on it."""
        folder = SYS / name
        is_free = folder.exists() and not list(folder.glob("upper_*"))
        if is_free and (folder / "ifalias").read_text().strip() == self._owner:
            self._ip.link("del", index=index_of(name))

    def remove_unused_shapers(self) -> None:
        self._shaper.remove_unused()

    # --- pairs -----------------------------------------------------------------------------------

    def _ensure_veth(self, nic: NicReservation, pid: int) -> bool:
        """Make both ends in one message.

        The peer is born down: veth_open refuses a half that has no other yet (drivers/net/veth.c).
        """
        bridge = self._master_of(nic)
        if index_of(nic.host_name) is not None:
            self._refuse_foreign(nic)
            return False
        mtu = nic.mtu or _mtu(nic.bridge or nic.parent)
        try:
            rtnl.add_veth(nic.host_name, nic.name, hwaddr=nic.hwaddr, pid=pid, mtu=mtu, master=bridge)
        except OSError as exc:
            raise not_plugged(nic, exc.errno or 0) from exc
        return True

    def _master_of(self, nic: NicReservation) -> int:
        if not nic.bridge:
            return 0
        if (index := index_of(nic.bridge)) is None:
            raise parents.not_started(nic, f'Parent device "{nic.bridge}" doesn\'t exist')
        return index

    def _remove_veth(self, nic: NicReservation) -> None:
        index = index_of(nic.host_name)
        if index is not None and _is_ours(nic):
            self._remover.remove(index, nic.host_name)

    def _refuse_foreign(self, nic: NicReservation) -> None:
        if not _is_ours(nic):
            why = f"this host has an interface {nic.host_name!r} already; set another host_name"
            raise parents.not_started(nic, why)

    # --- what hangs on an interface of the host ---------------------------------------------------------

    def _ensure_macvlan(self, nic: NicReservation, pid: int) -> bool:
        parent = self._parent_of(nic)
        more: dict[str, Any] = {"mtu": nic.mtu} if nic.mtu else {}
        try:
            self._ip.link(
                "add", ifname=nic.name, kind="macvlan", link=parent, macvlan_mode="bridge",
                address=nic.hwaddr, net_ns_pid=pid, **more,
            )  # fmt: skip
        except NetlinkError as exc:
            if exc.code == errno.EEXIST:
                return False
            raise not_plugged(nic, exc.code) from exc
        return True

    def _ensure_given(self, nic: NicReservation, pid: int) -> bool:
        """Move the parent itself in; it is inside when the host has it no more."""
        index = index_of(nic.parent)
        if nic.taken and str(index) != nic.taken["index"]:
            return False  # what has its name here now is another one
        index = self._parent_of(nic)
        try:
            self._ip.link("set", index=index, state="down")
            if hwaddr := nic.options.get("hwaddr"):
                self._ip.link("set", index=index, address=hwaddr)
            if nic.mtu:
                self._ip.link("set", index=index, mtu=nic.mtu)
            self._ip.link("set", index=index, net_ns_pid=pid, ifname=nic.name)
        except NetlinkError as exc:
            # A bridge, for example, belongs to its namespace for ever.
            why = f"Failed to attach interface: {nic.parent} to {nic.name}: {os.strerror(exc.code)}"
            raise parents.not_started(nic, why) from exc
        return True

    def _restore(self, nic: NicReservation, link: Link) -> None:
        """Make an interface that a guest had what it was. What the kernel refuses is logged."""
        wanted: dict[str, Any] = {}
        if link.hwaddr != nic.taken["hwaddr"]:
            wanted["address"] = nic.taken["hwaddr"]
        if link.mtu != int(nic.taken["mtu"]):
            wanted["mtu"] = int(nic.taken["mtu"])
        if link.name != nic.parent:
            wanted["ifname"] = nic.parent
        if not wanted:
            return
        try:
            self._ip.link("set", index=link.index, state="down")
            self._ip.link("set", index=link.index, **wanted)
        except NetlinkError as exc:
            log.warning("interface_not_restored", name=nic.parent, error=str(exc))

    def _parent_of(self, nic: NicReservation) -> int:
        name = parents.link_of(nic)
        if (index := index_of(name)) is None:
            raise parents.not_started(nic, f"Parent device '{name}' doesn't exist")
        return index

    def ensure_vlan(self, nic: NicReservation) -> None:
        """Make the interface of its parent's VLAN, which may be there. Raises: WrongState."""
        name = parents.link_of(nic)
        if not nic.vlan or index_of(name) is not None:
            return
        try:
            parent = index_of(nic.parent)
            more = {"vlan_flags": _GVRP} if parse_bool(nic.options.get("gvrp") or "false") else {}
            self._ip.link("add", ifname=name, kind="vlan", link=parent, vlan_id=nic.vlan, state="up", **more)
            self._ip.link("set", index=index_of(name), ifalias=self._owner)
        except NetlinkError as exc:
            why = os.strerror(exc.code)
            if exc.code == errno.EOPNOTSUPP:
                why = "this kernel has no 802.1Q (CONFIG_VLAN_8021Q)"
            text = f'Failed to create VLAN interface "{name}" on "{nic.parent}": {why}'
            raise parents.not_started(nic, text) from exc

    def refuse_ipvlan(self, nic: NicReservation) -> None:
        """Raises: WrongState unless the kernel makes one, which is taken away at once."""
        name = nic.host_name.replace("veth", "ipv", 1)
        try:
            self._ip.link("add", ifname=name, kind="ipvlan", link=self._parent_of(nic))
        except NetlinkError as exc:
            if exc.code != errno.EOPNOTSUPP:
                return  # others are there already, in another mode: the engine says what is wrong with that
            why = "this kernel has no ipvlan (CONFIG_IPVLAN); use macvlan or routed"
            raise parents.not_started(nic, why) from exc
        self._ip.link("del", index=index_of(name))

    # --- the host's end --------------------------------------------------------------------------

    def _ensure_side(self, side: HostSide, nic: NicReservation) -> None:
        if side.vlans:
            self._ensure_vlans(side, nic)
        for address in side.addresses:
            self._ensure_address(address, nic)
        for route in side.routes:
            self._ensure_route(route, nic)
        for address in side.proxies:
            self._proxy("replace", address, side.parent)
        if nic.nictype == keys.BRIDGED and (side.isolated or nic.host_side):
            self._ip.brport("set", index=index_of(nic.host_name), isolated=int(side.isolated))

    def set_loops(self, ports: Mapping[str, bool]) -> None:
        """Let what comes in by a port of a bridge go out there too, or no more. Who is gone is left out."""
        for name, is_on in ports.items():
            if (index := index_of(name)) is not None:
                with contextlib.suppress(NetlinkError):
                    self._ip.brport("set", index=index, mode=int(is_on))

    def _ensure_vlans(self, side: HostSide, nic: NicReservation) -> None:
        """Let just these VLANs through; 1 is what a port of a bridge is born with."""
        try:
            status = (SYS / nic.bridge / "bridge" / "vlan_filtering").read_text().strip()
        except OSError:
            why = "this kernel's bridges know no VLANs (CONFIG_BRIDGE_VLAN_FILTERING)"
            text = f'Failed getting bridge VLAN status for "{nic.bridge}": {why}'
            raise parents.not_started(nic, text) from None
        if status != "1":
            raise parents.not_started(nic, f'VLAN filtering is not enabled in parent bridge "{nic.bridge}"')
        index = index_of(nic.host_name)
        if 1 not in {vlan.id for vlan in side.vlans}:
            with contextlib.suppress(NetlinkError):
                self._ip.vlan_filter("del", index=index, vlan_info={"vid": 1})
        for vlan in side.vlans:
            flags = _UNTAGGED if vlan.untagged else 0
            self._ip.vlan_filter("add", index=index, vlan_info={"vid": vlan.id, "flags": flags})

    def _ensure_address(self, address: str, nic: NicReservation) -> None:
        interface, index = ip_interface(address), index_of(nic.host_name)
        with contextlib.suppress(NetlinkError):  # there already
            add_address(self._ip, index, str(interface.ip), interface.network.prefixlen)

    def _ensure_route(self, route: Route, nic: NicReservation) -> None:
        what = self._route(route)
        try:
            self._ip.route("add", **what)
        except NetlinkError as exc:
            if exc.code != errno.EEXIST or not self._has_route(what):
                raise parents.not_started(
                    nic, f"Failed to add route {route.net}: {os.strerror(exc.code)}"
                ) from exc

    def _has_route(self, what: dict[str, Any]) -> bool:
        """Return whether the route that is there is ours: another one to the same net would win."""
        address, _, bits = what["dst"].partition("/")
        found = self._ip.get_routes(table=what["table"], oif=what["oif"])
        return any(r.get_attr("RTA_DST") == address and r["dst_len"] == int(bits) for r in found)

    def _drop_route(self, route: Route) -> None:
        if index_of(route.device) is not None:
            with contextlib.suppress(NetlinkError):
                self._ip.route("del", **self._route(route))

    def _route(self, route: Route) -> dict[str, Any]:
        what: dict[str, Any] = {"dst": route.net, "oif": index_of(route.device), "proto": _BOOT}
        what["table"] = route.table or _MAIN
        if route.via:
            what["gateway"] = route.via
        elif ":" not in route.net:
            what["scope"] = _LINK_SCOPE
        return what

    def _proxy(self, verb: str, address: str, parent: str) -> None:
        """Let the host answer for *address* on *parent*, or no more. NTF_PROXY is 8 (neighbour.h)."""
        if (index := index_of(parent)) is None:
            return
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with contextlib.suppress(NetlinkError):
            self._ip.neigh(verb, dst=address, ifindex=index, family=family, flags=8, state=0)


def _is_ours(nic: NicReservation) -> bool:
    """Say whether what has the name of its host side is a veth on its bridge: one ioctl, one readlink."""
    return driver_of(nic.host_name) == "veth" and master_of(nic.host_name) == nic.bridge


def not_plugged(nic: NicReservation, code: int) -> WrongState:
    """Return what is said where the kernel refuses with errno *code*."""
    why = os.strerror(code)
    if code == errno.EEXIST:
        why = f"the instance has an interface {nic.name!r} already; set another name"
    elif code == errno.ESRCH:
        why = "the instance stopped meanwhile"
    return parents.not_started(nic, why)


def _mtu(name: str) -> int:
    try:
        return int((SYS / name / "mtu").read_text()) if name else 0
    except (OSError, ValueError):
        return 0
