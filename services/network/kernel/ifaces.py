"""What all who speak netlink here do with interfaces: find, tell apart, change what differs. Blocking."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
from pathlib import Path
from typing import Any

IFF_UP = 1
SYS = Path("/sys/class/net")
# Source: include/uapi/linux/sockios.h, ethtool.h: struct ethtool_drvinfo begins with cmd and driver[32].
_SIOCETHTOOL, _GDRVINFO, _DRVINFO_SIZE = 0x8946, 3, 196


def index_of(name: str) -> int | None:
    """Return the index of an interface, None where there is none. Cheap: one ioctl."""
    try:
        return socket.if_nametoindex(name) if name else None
    except OSError:
        return None


def driver_of(name: str) -> str:
    """Return the kernel's driver of an interface, for example "veth"; "" where it is gone. One ioctl."""
    told = bytearray(struct.pack("I", _GDRVINFO).ljust(_DRVINFO_SIZE, b"\0"))
    # The kernel writes through the pointer, which must stay where it is meanwhile.
    where = ctypes.addressof(ctypes.c_char.from_buffer(told))
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        fcntl.ioctl(asking, _SIOCETHTOOL, struct.pack("16sP16x", name.encode(), where))
    return told[4:36].partition(b"\0")[0].decode(errors="replace")


def master_of(name: str) -> str:
    """Return the name of the bridge that an interface is a port of, "" for none. One readlink."""
    try:
        return os.path.basename(os.readlink(SYS / name / "master"))
    except OSError:
        return ""


def kind_of(link: Any) -> str:
    """Return what ip-link(8) calls its type, "" for hardware."""
    info = link.get_attr("IFLA_LINKINFO")
    return str(info.get_attr("IFLA_INFO_KIND") or "") if info else ""


def differing(link: Any, *, hwaddr: str = "", mtu: int, master: int | None = None) -> dict[str, Any]:
    """Return what to set so that *link* is as wanted, and up; hwaddr and master where they are given.

    Setting a MAC or an MTU to what it is still tells everybody.
    """
    found: dict[str, Any] = {}
    if hwaddr and (link.get_attr("IFLA_ADDRESS") or "").lower() != hwaddr:
        found["address"] = hwaddr
    if link.get_attr("IFLA_MTU") != mtu:
        found["mtu"] = mtu
    if master is not None and link.get_attr("IFLA_MASTER") != master:
        found["master"] = master
    if not link["flags"] & IFF_UP:
        found["state"] = "up"
    return found


def addresses_of(ip: Any, index: int) -> set[tuple[str, int]]:
    """Return the addresses that were given to an interface, with the lengths of their prefixes."""
    found = (entry for entry in ip.get_addr(index=index) if entry["scope"] == 0)
    return {(entry.get_attr("IFA_ADDRESS"), entry["prefixlen"]) for entry in found}


def add_address(ip: Any, index: int | None, address: str, prefix: int) -> None:
    """IPv6 would be tentative for a second: nobody could bind to it, and no route come from it."""
    flags = {"flags": 0x02} if ":" in address else {}
    ip.addr("add", index=index, address=address, prefixlen=prefix, **flags)
