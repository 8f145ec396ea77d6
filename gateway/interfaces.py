"""The addresses of this host under which others may reach it, as the kernel tells them."""

from __future__ import annotations

import ipaddress
import socket
import struct
import time
from collections.abc import Iterator
from functools import lru_cache
from operator import itemgetter

_NEW_ADDRESS, _GET_ADDRESS, _DUMP = 20, 22, 0x301
_HEADER = struct.Struct("=IHHII")
_IFADDR = struct.Struct("=BBBBI")
_ADDRESS, _LOCAL = 1, 2
_KNOWN_FOR_S = 5

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def host_addresses() -> list[IpAddress]:
    """Return the host's addresses that are neither loopback nor of one link only, interface by interface."""
    return _known(int(time.monotonic()) // _KNOWN_FOR_S)


@lru_cache(1)
def _known(_period: int) -> list[IpAddress]:
    found = (ipaddress.ip_address(raw) for _, raw in sorted(_dumped(), key=itemgetter(0)))
    return [ip for ip in found if not (ip.is_loopback or ip.is_link_local or ip.is_multicast)]


def _dumped() -> Iterator[tuple[int, bytes]]:
    """Yield each address with the index of its interface."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.settimeout(1)
        netlink.send(
            _HEADER.pack(_HEADER.size + _IFADDR.size, _GET_ADDRESS, _DUMP, 1, 0) + bytes(_IFADDR.size)
        )
        while chunk := netlink.recv(65536):
            for kind, body in _messages(chunk):
                if kind != _NEW_ADDRESS:
                    return
                attributes = dict(_attributes(body[_IFADDR.size :]))
                if raw := attributes.get(_LOCAL) or attributes.get(_ADDRESS):
                    yield _IFADDR.unpack_from(body)[-1], raw


def _messages(chunk: bytes) -> Iterator[tuple[int, bytes]]:
    while len(chunk) >= _HEADER.size:
        length, kind, *_ = _HEADER.unpack_from(chunk)
        yield kind, chunk[_HEADER.size : length]
        chunk = chunk[_aligned(length) :]


def _attributes(body: bytes) -> Iterator[tuple[int, bytes]]:
    while len(body) >= 4:
        length, kind = struct.unpack_from("=HH", body)
        yield kind, body[4:length]
        body = body[_aligned(length) :]


def _aligned(length: int) -> int:
    return max(length + 3 & ~3, 4)
