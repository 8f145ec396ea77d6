"""Tunnels of a bridge: ports of it that lead to another host, by GRE or VXLAN. Blocking."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any

from core.configkeys.tunnels import Tunnel
from core.errors import WrongState
from services.network.kernel.ifaces import differing, index_of, kind_of
from services.network.kernel.netlink import NetlinkError

_KINDS = {"gre": "gretap", "vxlan": "vxlan"}
_LACKS = {"gre": "GRE (CONFIG_NET_IPGRE)", "vxlan": "VXLAN (CONFIG_VXLAN)"}


class Tunnels:
    """Shares the netlink socket of Links, and its thread."""

    def __init__(self, ip: Any) -> None:
        self._ip = ip

    def ensure(self, wanted: Tunnel, bridge: int, mtu: int, *, is_known: bool) -> None:
        """Make a tunnel and join it to *bridge*; *is_known*: what is there is as wanted.

        Raises: WrongState.
        """
        index = index_of(wanted.device)
        if index is not None and not is_known:
            self.remove([wanted.device])
            index = None
        if index is None:
            self._make(wanted)
            index = index_of(wanted.device)
        if index is not None:
            self._join(wanted, index, bridge, mtu)

    def remove(self, devices: Iterable[str]) -> None:
        """Remove tunnels; what is none stays."""
        for device in devices:
            index = index_of(device)
            if index is not None and kind_of(self._ip.get_links(index)[0]) in _KINDS.values():
                self._ip.link("del", index=index)

    def _make(self, wanted: Tunnel) -> None:
        try:
            self._ip.link("add", ifname=wanted.device, kind=_KINDS[wanted.protocol], **self._options(wanted))
        except NetlinkError as exc:
            why = os.strerror(exc.code)
            if exc.code == errno.EOPNOTSUPP:
                why = f"this kernel has no {_LACKS[wanted.protocol]}"
            said = f"The tunnel {wanted.device} could not be made: {why}"
            raise WrongState("NO_TUNNEL", said, about=wanted.device) from exc

    def _options(self, wanted: Tunnel) -> dict[str, Any]:
        if wanted.protocol == "gre":
            return {"gre_local": wanted.local, "gre_remote": wanted.remote}
        found: dict[str, Any] = {"vxlan_id": wanted.id, "vxlan_ttl": wanted.ttl}
        found[_by_version("vxlan_group", wanted.remote)] = wanted.remote
        if wanted.local:
            found[_by_version("vxlan_local", wanted.local)] = wanted.local
        if wanted.port:
            found["vxlan_port"] = wanted.port
        if wanted.is_group:
            found["vxlan_link"] = self._way_out(wanted)
        return found

    def _way_out(self, wanted: Tunnel) -> int:
        """Return the interface that a group is reached by."""
        if wanted.interface:
            if (index := index_of(wanted.interface)) is None:
                said = (
                    f"The interface {wanted.interface} of tunnel {wanted.device} does not exist on this host"
                )
                raise WrongState("NO_INTERFACE", said, about=wanted.interface)
            return index
        for route in self._ip.get_default_routes(family=socket.AF_INET):
            if found := route.get_attr("RTA_OIF"):
                return int(found)
        said = f"The tunnel {wanted.device} needs a default route, or tunnel.NAME.interface"
        raise WrongState("NO_INTERFACE", said, about=wanted.device)

    def _join(self, wanted: Tunnel, index: int, bridge: int, mtu: int) -> None:
        link = self._ip.get_links(index)[0]
        if not (changed := differing(link, mtu=mtu, master=bridge)):
            return
        try:
            self._ip.link("set", index=index, **changed)
        except NetlinkError as exc:
            # A new tunnel has the most that its way out leaves; more is refused without a word.
            most = int(link.get_attr("IFLA_MTU") or 0)
            if exc.code != errno.EINVAL or mtu <= most:
                raise
            said = (
                f"The tunnel {wanted.device} carries packets of at most {most} bytes; set bridge.mtu={most}"
            )
            raise WrongState("MTU_TOO_LARGE", said, about=wanted.device) from exc


def _by_version(name: str, address: str) -> str:
    return f"{name}6" if ip_address(address).version == 6 else name
