"""What guests see of each other on their bridge, asked from within their network namespaces."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import dns.message
import dns.rdatatype

T = TypeVar("T")
_CLONE_NEWNET = 0x40000000
_WAIT_S = 5.0
# Their addresses are listed before they have booted.
_BOOT_S = 90.0
_ECHO, _ANSWER = 8, 0


def inside(pid: int, work: Callable[[], T]) -> T:
    """Do *work* in a thread that lies in the network namespace of *pid*."""

    def enter() -> None:
        with Path(f"/proc/{pid}/ns/net").open() as file:
            if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")

    with ThreadPoolExecutor(1, initializer=enter) as thread:
        return thread.submit(work).result()


def answering(addresses: Iterable[str]) -> set[str]:
    """Return which of *addresses* answer a ping, once their guests have booted."""
    missing, found = set(addresses), set[str]()
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
        sock.settimeout(0.2)
        end = time.monotonic() + _BOOT_S
        while missing and time.monotonic() < end:
            with contextlib.suppress(OSError):  # unreachable: we have no address yet ourselves
                for address in missing:
                    sock.sendto(_echo(), (address, 0))
            with contextlib.suppress(TimeoutError):
                while missing:
                    packet, (sender, _) = sock.recvfrom(200)
                    if packet[20] == _ANSWER and sender in missing:
                        missing.remove(sender)
                        found.add(sender)
    return found


def _echo() -> bytes:
    number = os.getpid() & 0xFFFF
    total = (_ECHO << 8) + number
    return struct.pack("!BBHHH", _ECHO, 0, ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF, number, 0)


def resolved(server: str, names: Iterable[str]) -> dict[str, str]:
    """Return the IPv4 address of each of *names* that *server* knows."""
    found = dict[str, str]()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(_WAIT_S)
        sock.connect((server, 53))
        for name in names:
            sock.send(dns.message.make_query(f"{name}.lxd", "A").to_wire())
            answer = dns.message.from_wire(sock.recv(512)).answer
            rows = [row for part in answer if part.rdtype == dns.rdatatype.A for row in part]
            found |= {name: str(rows[0])} if rows else {}
    return found
