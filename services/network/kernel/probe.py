"""Ask on a link whether an address is in use there, before a guest gets it. Needs CAP_NET_RAW.

IPv4 by an ARP probe (RFC 5227, sender 0.0.0.0), IPv6 by a neighbour solicitation from :: (RFC 4861).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from ipaddress import IPv6Address
from pathlib import Path

from core.logs import get_logger
from core.records import NicReservation
from services.network.domain import hostside, parents

log = get_logger(__name__)
_WAIT_S = 0.5
_ARP, _IPV6 = 0x0806, 0x86DD
_ALL = b"\xff" * 6
_SOLICITATION, _ADVERTISEMENT, _ICMPV6 = 135, 136, 58


async def refuse_used(nic: NicReservation) -> None:
    """Raises: WrongState when somebody on the parent answers for an address of *nic*, unless it is made."""
    if not nic.parent or await asyncio.to_thread(Path("/sys/class/net", nic.host_name).exists):
        return
    for version, kind in (("ipv4", _ARP), ("ipv6", _IPV6)):
        if hostside.wants_probe(nic, version):
            for address in hostside.addresses_of(nic, version):
                if await _is_used(nic.parent, address, kind):
                    why = f'IP address "{address}" in use on parent network "{nic.parent}"'
                    raise parents.not_started(nic, why)


async def _is_used(parent: str, address: str, kind: int) -> bool:
    try:
        return await asyncio.to_thread(_probe, parent, address, kind)
    except OSError as exc:  # a parent that is down has nobody to ask
        log.warning("address_not_probed", parent=parent, address=address, error=str(exc))
        return False


def _probe(parent: str, address: str, kind: int) -> bool:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.htons(kind)) as sock:
        sock.bind((parent, kind))
        mac = sock.getsockname()[4]
        sock.send(arp_probe(mac, address) if kind == _ARP else solicitation(mac, address))
        sock.settimeout(_WAIT_S)
        with contextlib.suppress(TimeoutError):
            for _ in range(1000):
                frame = sock.recv(256)
                if frame[6:12] != mac and answers(frame, address):
                    return True
    return False


def arp_probe(mac: bytes, address: str) -> bytes:
    head = _ALL + mac + struct.pack("!HHHBBH", _ARP, 1, 0x0800, 6, 4, 1)
    return head + mac + bytes(4) + bytes(6) + socket.inet_aton(address)


def solicitation(mac: bytes, address: str) -> bytes:
    target = IPv6Address(address).packed
    group = IPv6Address("ff02::1:ff00:0").packed[:13] + target[13:]
    message = struct.pack("!BBHI", _SOLICITATION, 0, 0, 0) + target
    pseudo = bytes(16) + group + struct.pack("!II", len(message), _ICMPV6)
    message = message[:2] + struct.pack("!H", _checksum(pseudo + message)) + message[4:]
    header = struct.pack("!IHBB", 6 << 28, len(message), _ICMPV6, 255) + bytes(16) + group
    return b"\x33\x33" + group[12:] + mac + struct.pack("!H", _IPV6) + header + message


def answers(frame: bytes, address: str) -> bool:
    """Return whether *frame* says that somebody has *address*."""
    if frame[12:14] == struct.pack("!H", _ARP):
        return frame[28:32] == socket.inet_aton(address) if "." in address else False
    is_advertised = frame[20:21] == bytes([_ICMPV6]) and frame[54:55] == bytes([_ADVERTISEMENT])
    return ":" in address and is_advertised and frame[62:78] == IPv6Address(address).packed


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF
