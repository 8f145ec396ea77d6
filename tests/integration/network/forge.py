"""Send raw frames from, or listen to them in, the network namespace this is started in.

    nsenter -t PID -n python -m tests.integration.network.forge send|flood|listen INTERFACE [HEX...]

`listen` says "ready", reads until its standard input ends, and prints the tags of the frames that came;
`flood` sends all frames again and again until then, and says "ready" after the first time.
"""

from __future__ import annotations

import select
import socket
import struct
import sys
from ipaddress import ip_address

TAG = b"forged:"
# Inside of what the headers count: bridge-netfilter cuts off the rest.
_MARK = TAG + b"\xff"
_BROADCAST = "ff:ff:ff:ff:ff:ff"


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def ethernet(source: str, kind: int, payload: bytes) -> bytes:
    return _mac(_BROADCAST) + _mac(source) + struct.pack("!H", kind) + payload


def arp(source: str, sender_mac: str, sender: str, *, hardware: int = 1) -> bytes:
    """A gratuitous answer: "*sender* is at *sender_mac*". Source: RFC 826."""
    body = struct.pack("!HHBBH", hardware, 0x0800, 6, 4, 2) + _mac(sender_mac) + ip_address(sender).packed
    return ethernet(source, 0x0806, body + _mac(_BROADCAST) + ip_address(sender).packed + _MARK)


def ipv4(source: str, sender: str, *, ports: tuple[int, int] = (4000, 4001), body: bytes = b"") -> bytes:
    udp = _udp(ports, body)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0)
    head += ip_address(sender).packed + ip_address("255.255.255.255").packed
    return ethernet(source, 0x0800, head[:10] + struct.pack("!H", _checksum(head)) + head[12:] + udp)


def _udp(ports: tuple[int, int], body: bytes) -> bytes:
    return struct.pack("!HHHH", *ports, 8 + len(body + _MARK), 0) + body + _MARK


def dhcp(client: str) -> bytes:
    """The body of a question in the name of *client*. Source: RFC 2131, section 2."""
    return bytes([1, 1, 6, 0]) + bytes(24) + _mac(client) + bytes(10)


def _checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def _ipv6(source: str, sender: str, kind: int, payload: bytes) -> bytes:
    head = struct.pack("!IHBB", 6 << 28, len(payload), kind, 255)
    return ethernet(source, 0x86DD, head + ip_address(sender).packed + ip_address("ff02::1").packed + payload)


def icmpv6(source: str, sender: str, kind: int, body: bytes) -> bytes:
    return _ipv6(source, sender, 58, struct.pack("!BBH", kind, 0, 0) + body + _MARK)


def udp6(source: str, sender: str, ports: tuple[int, int], body: bytes = b"") -> bytes:
    return _ipv6(source, sender, 17, _udp(ports, body))


def option(kind: int, mac: str) -> bytes:
    """A link-layer address: 1 of who asks, 2 of who is asked for. Source: RFC 4861, section 4.6.1."""
    return bytes([kind, 1]) + _mac(mac)


def neighbour(source: str, sender: str, kind: int, target: str, option_mac: str) -> bytes:
    """A solicitation (135) or advertisement (136). Source: RFC 4861, section 4.3 and 4.4."""
    told = option(1 if kind == 135 else 2, option_mac)
    return icmpv6(source, sender, kind, bytes(4) + ip_address(target).packed + told)


def router(source: str, sender: str) -> bytes:
    return icmpv6(source, sender, 134, bytes(12))


def extended(frame: bytes, filler: bytes = bytes(20)) -> bytes:
    """Put an option that nobody knows, with *filler* as its 20 bytes, before what an IPv6 packet carries."""
    head, payload = frame[14:54], frame[54:]
    header = bytes([head[6], 2, 0x1E, 20]) + filler
    length = struct.pack("!H", len(header + payload))
    return frame[:14] + head[:4] + length + bytes([60]) + head[7:] + header + payload


def hidden(source: str, sender: str, target: str) -> bytes:
    """An advertisement of *target* that shows *sender* and *source* where there is no extension header."""
    message = bytes([136, 0]) + _mac(source) + ip_address(target).packed + option(2, source) + _MARK
    return extended(_ipv6(source, sender, 58, message), bytes(4) + ip_address(sender).packed)


def vlan(frame: bytes, number: int = 5) -> bytes:
    return frame[:12] + struct.pack("!HH", 0x8100, number) + frame[12:]


def _send(interface: str, frames: list[str]) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind((interface, 0))
        for number, frame in enumerate(frames):
            sock.send(bytes.fromhex(frame).replace(_MARK, TAG + bytes([number])))


def _flood(interface: str, frames: list[str]) -> None:
    _send(interface, frames)
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], 0.02)[0]:
        _send(interface, frames)


def _listen(interface: str) -> None:
    seen = set()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as sock:
        sock.bind((interface, 0))
        print("ready", flush=True)
        while True:
            ready, _, _ = select.select([sock, sys.stdin], [], [])
            if sock in ready:
                found, (_, _, kind, _, _) = sock.recvfrom(65536)
                if TAG in found and kind != socket.PACKET_OUTGOING:
                    seen.add(found[found.index(TAG) + len(TAG)])
            elif not sys.stdin.buffer.read1(1):
                break
    print(" ".join(map(str, sorted(seen))), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "listen":
        _listen(sys.argv[2])
    else:
        {"send": _send, "flood": _flood}[sys.argv[1]](sys.argv[2], sys.argv[3:])
