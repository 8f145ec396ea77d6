"""Subnets that this host's interfaces and routes use, read from the kernel without much ado. Blocking.

A dump of all links, as pyroute2 parses it, takes a millisecond a link; this takes one for all.
Source: rtnetlink(7), include/uapi/linux/if_addr.h and rtnetlink.h.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path

from services.network.kernel.vxlan import PROTOCOL

Subnet = IPv4Network | IPv6Network
_GETADDR, _NEWADDR, _GETROUTE, _NEWROUTE = 22, 20, 26, 24
_DUMP, _DONE, _ERROR = 0x301, 3, 2  # NLM_F_REQUEST | NLM_F_DUMP
_IFA_ADDRESS, _RTA_DST, _RTA_OIF, _RTA_TABLE = 1, 1, 4, 15
_MAIN = 254


def found() -> list[tuple[str, Subnet]]:
    """Return subnets with the interface they are on; default routes are none. Raises: OSError."""
    names = dict(socket.if_nameindex())
    with socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
    ) as sock:
        sock.bind((0, 0))
        placed = [*_addresses(sock), *_routes(sock)]
    # The port of an overlay has addresses of the network's own subnet.
    overlays = {index for index, _ in placed if _is_overlay(names.get(index, ""))}
    return [(names[index], subnet) for index, subnet in placed if index in names and index not in overlays]


def _is_overlay(name: str) -> bool:
    try:
        return "DEVTYPE=vxlan" in Path("/sys/class/net", name or "none", "uevent").read_text()
    except OSError:
        return False


def _addresses(sock: socket.socket) -> Iterator[tuple[int, Subnet]]:
    for body in _dump(sock, _GETADDR, _NEWADDR, struct.pack("=BBBBI", 0, 0, 0, 0, 0)):
        _, prefix, _, _, index = struct.unpack_from("=BBBBI", body)
        if address := attributes(body[8:]).get(_IFA_ADDRESS):
            yield index, _subnet(address, prefix)


def _routes(sock: socket.socket) -> Iterator[tuple[int, Subnet]]:
    for body in _dump(sock, _GETROUTE, _NEWROUTE, bytes(12)):
        _, prefix, _, _, table, protocol = struct.unpack_from("=BBBBBB", body)
        told = attributes(body[12:])
        destination, index = told.get(_RTA_DST), told.get(_RTA_OIF)
        if _RTA_TABLE in told:
            table = struct.unpack("=I", told[_RTA_TABLE])[0]
        is_ours = protocol == PROTOCOL or (destination is not None and _is_of_link(destination))
        if table == _MAIN and destination and index and not is_ours:
            yield struct.unpack("=I", index)[0], _subnet(destination, prefix)


def _is_of_link(address: bytes) -> bool:
    return len(address) == 16 and (address[0] == 0xFF or address[:2] == b"\xfe\x80")


def _subnet(address: bytes, prefix: int) -> Subnet:
    family = socket.AF_INET if len(address) == 4 else socket.AF_INET6
    return ip_network(f"{socket.inet_ntop(family, address)}/{prefix}", strict=False)


def _dump(sock: socket.socket, ask: int, kind: int, body: bytes) -> Iterator[bytes]:
    sock.send(struct.pack("=IHHII", 16 + len(body), ask, _DUMP, 1, 0) + body)
    while True:
        data = sock.recv(1 << 17)
        while len(data) >= 16:
            length, type = struct.unpack_from("=IH", data)
            if type == _DONE:
                return
            if type == _ERROR or length < 16:
                raise OSError("the kernel does not tell its addresses")
            if type == kind:
                yield data[16:length]
            data = data[(length + 3) & ~3 :]


def attributes(body: bytes) -> dict[int, bytes]:
    """Return the attributes of the highest level by number."""
    told = dict[int, bytes]()
    while len(body) >= 4:
        length, kind = struct.unpack_from("=HH", body)
        if length < 4:
            break
        told[kind & 0x3FFF] = body[4:length]
        body = body[(length + 3) & ~3 :]
    return told
