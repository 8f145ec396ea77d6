"""Give a DHCP lease back on behalf of a guest that is gone, so that its address is free at once.

dnsmasq keeps leases in memory; the way to end one is the message the guest would have sent.
Source: RFC 2131, section 4.4.6 (DHCPRELEASE) and figure 1 (layout); RFC 2132 (options 53, 54).
"""

from __future__ import annotations

import os
import socket
import struct
from ipaddress import IPv4Address

_BOOTREQUEST, _ETHERNET, _RELEASE = 1, 1, 7
_MAGIC = b"\x63\x82\x53\x63"


def message(address: str, hwaddr: str, server: str) -> bytes:
    """Return the datagram that releases *address*."""
    head = struct.pack("!BBBB4sHH", _BOOTREQUEST, _ETHERNET, 6, 0, os.urandom(4), 0, 0)
    addresses = IPv4Address(address).packed + bytes(12)
    chaddr = bytes.fromhex(hwaddr.replace(":", "")) + bytes(10)
    options = bytes([53, 1, _RELEASE, 54, 4]) + IPv4Address(server).packed + b"\xff"
    return head + addresses + chaddr + bytes(192) + _MAGIC + options


def send(bridge: str, address: str, hwaddr: str, server: str) -> None:
    """Send it out of *bridge* to the server on it. Raises: OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, bridge.encode())
        sock.sendto(message(address, hwaddr, server), (server, 67))
