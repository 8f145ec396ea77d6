"""Interfaces of the host that NICs hang on or take: whether they are there, and come back. Pure."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import replace

from core.configkeys import nic as keys
from core.errors import WrongState
from core.records import NicReservation
from services.network.ports import Link

# The kernel's name for what comes back from a namespace that ended while its own is taken.
_RETURNED = re.compile(r"dev[0-9]+")
_QUOTED = {keys.MACVLAN: "'{}'", keys.PHYSICAL: "'{}'"}


def found(
    nic: NicReservation, links: Mapping[str, Link], uplinks: Container[str] = frozenset()
) -> NicReservation:
    """Return *nic* as it can be made on a host with *links*; a taken parent with what it must be again.

    *uplinks* are the interfaces without which the host would lose its default route.

    Raises: WrongState when its parent is missing, or needed by the host.
    """
    parent = nic.parent or ("" if nic.network else nic.bridge)
    link = links.get(parent)
    if not parent or (nic.taken and (link is None or not is_taken(nic, link))):
        return nic
    if link is None:
        name = _QUOTED.get(nic.nictype, '"{}"').format(parent)
        raise not_started(nic, f"Parent device {name} doesn't exist")
    if nic.nictype == keys.BRIDGED and link.kind != "bridge":
        raise not_started(nic, f'Parent device "{parent}" is not a bridge')
    if nic.nictype == keys.SRIOV:
        raise not_started(nic, f'Parent device "{parent}" doesn\'t support SR-IOV')
    if nic.nictype != keys.PHYSICAL:
        return nic
    if parent in uplinks:
        raise not_started(nic, f"Parent device '{parent}' carries the default route of this host")
    return replace(nic, taken={"index": str(link.index), "hwaddr": link.hwaddr, "mtu": str(link.mtu)})


def returned(nic: NicReservation, links: Iterable[Link]) -> Link | None:
    """Return the interface that *nic* took, if it is back on the host, under whatever name.

    liblxc gives it its own name again; the kernel does not, when it alone is left to give it back. The
    name proves nothing: meanwhile another interface may have been made with it.
    """
    if not nic.taken:
        return None
    mine = [link for link in links if is_taken(nic, link)]
    same = (link for link in mine if str(link.index) == nic.taken["index"])
    names = (nic.parent, nic.name)
    called = (link for link in mine if link.name in names or _RETURNED.fullmatch(link.name))
    return next(same, None) or next(called, None)


def is_taken(nic: NicReservation, link: Link) -> bool:
    """Return whether *link* may be the interface that *nic* took: its number, or its address.

    It comes back with another number if its own is an interface's of the guest, never with one that the
    host gives to a new interface.
    """
    has_its_mac = link.hwaddr != "" and link.hwaddr == nic.taken["hwaddr"]
    return str(link.index) == nic.taken["index"] or has_its_mac


def link_of(nic: NicReservation) -> str:
    """Return the interface that it hangs on, or is: that of a VLAN is made when it is needed."""
    return f"{nic.parent}.{nic.vlan}" if nic.vlan else nic.parent


def not_started(nic: NicReservation, why: str) -> WrongState:
    return WrongState("NIC_NOT_MADE", f'Failed to start device "{nic.device}": {why}', about=nic.device)
