"""What the kernel tells of a packet that a rule logged, as the line that clients are shown. Pure.

The shape of the line is LXD's. Source of the offsets: RFC 791, RFC 8200.
"""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address

_PREFIX = re.compile(r"podium ([0-9a-f]{8}) (\S{1,8}) (allow|drop|reject) ?")
_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "ipv6-icmp"}


@dataclass(frozen=True)
class Logged:
    """Of which ACL, and what its log gets."""

    acl_id: str
    line: str


def parse(prefix: str, packet: bytes, at: float) -> Logged | None:
    """Return None for what is none of ours or cannot be read."""
    match = _PREFIX.fullmatch(prefix)
    if not match:
        return None
    about = {"time": datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")}
    try:
        about |= _packet(packet)
    except (struct.error, ValueError, IndexError):
        return None
    about |= {"action": match[3], "rule": _rule(match[2])}
    return Logged(match[1], json.dumps(about))


def _rule(label: str) -> str:
    direction = "ingress" if label.startswith("i") else "egress"
    return f"{direction} {'default' if label.endswith('-') else label[1:]}"


def _packet(packet: bytes) -> dict[str, str]:
    if packet[0] >> 4 == 4:
        number, start = packet[9], (packet[0] & 15) * 4
        source, target = packet[12:16], packet[16:20]
    else:
        number, start = packet[6], 40
        source, target = packet[8:24], packet[24:40]
    found = {
        "proto": _PROTOCOLS.get(number, str(number)),
        "src": str(ip_address(source)),
        "dst": str(ip_address(target)),
    }
    if number in (6, 17):
        ports = struct.unpack_from("!HH", packet, start)
        found |= {"src_port": str(ports[0]), "dst_port": str(ports[1])}
    if number in (1, 58):
        found |= {"icmp_type": str(packet[start]), "icmp_code": str(packet[start + 1])}
    return found
