"""The two messages about interfaces whose time counts, put together by hand. Blocking.

pyroute2 takes longer to write and read them than the kernel to do what they say: a millisecond more while a
client waits. Source: include/uapi/linux/netlink.h, rtnetlink.h, if_link.h, veth.h.
"""

from __future__ import annotations

import os
import socket
import struct

_HEADER, _LINK, _ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=BxHiII"), struct.Struct("=HH")
_NEWLINK, _DELLINK = 16, 17
_REQUEST_ACK, _CREATE_NEW = 1 | 4, 0x200 | 0x400
_ADDRESS, _IFNAME, _MTU, _MASTER, _LINKINFO, _NET_NS_PID = 1, 3, 4, 10, 18, 19
_KIND, _DATA, _VETH_PEER = 1, 2, 1
_NESTED, _UP = 0x8000, 1
_MOST_ANSWER = 4096


def add_veth(name: str, peer: str, *, hwaddr: str, pid: int, mtu: int = 0, master: int = 0) -> None:
    """Make *name* here, up and a port of *master*, and *peer*, down, where *pid* is. Raises: OSError."""
    of_both = _number(_MTU, mtu) if mtu else b""
    there = _LINK.pack(0, 0, 0, 0, 0) + _text(_IFNAME, peer) + _attribute(_ADDRESS, _mac(hwaddr))
    there += _number(_NET_NS_PID, pid) + of_both
    kind = _text(_KIND, "veth") + _nested(_DATA, _nested(_VETH_PEER, there))
    here = _LINK.pack(0, 0, 0, _UP, _UP) + _text(_IFNAME, name) + of_both
    here += _number(_MASTER, master) if master else b""
    _ask(_NEWLINK, _CREATE_NEW, here + _nested(_LINKINFO, kind))


def delete(index: int) -> None:
    """Raises: OSError."""
    _ask(_DELLINK, 0, _LINK.pack(0, 0, index, 0, 0))


def _ask(what: int, flags: int, body: bytes) -> None:
    header = _HEADER.pack(_HEADER.size + len(body), what, _REQUEST_ACK | flags, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.send(header + body)
        answer = netlink.recv(_MOST_ANSWER)
    if code := -struct.unpack_from("=i", answer, _HEADER.size)[0]:
        raise OSError(code, os.strerror(code))


def _attribute(kind: int, value: bytes) -> bytes:
    size = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(size, kind) + value + bytes(-size % 4)


def _nested(kind: int, value: bytes) -> bytes:
    return _attribute(kind | _NESTED, value)


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("=I", value))


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))
