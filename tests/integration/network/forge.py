"""Send raw frames from, or listen to them in, the network namespace this is started in.

    nsenter -t PID -n python -m tests.integration.network.forge send|listen INTERFACE [HEX...]

`listen` says "ready", reads until its standard input ends, and prints the tags of the frames it saw.
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


def arp(source: str, sender_mac: str, sender: str) -> bytes:
    """A gratuitous answer: "*sender* is at *sender_mac*". Source: RFC 826."""
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 2) + _mac(sender_mac) + ip_address(sender).packed
    return ethernet(source, 0x0806, body + _mac(_BROADCAST) + ip_address(sender).packed + _MARK)


def ipv4(source: str, sender: str, *, ports: tuple[int, int] = (4000, 4001)) -> bytes:
    udp = struct.pack("!HHHH", *ports, 8 + len(_MARK), 0) + _MARK
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0)
    head += ip_address(sender).packed + ip_address("255.255.255.255").packed
    return ethernet(source, 0x0800, head[:10] + struct.pack("!H", _checksum(head)) + head[12:] + udp)


def _checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def icmpv6(source: str, sender: str, kind: int, body: bytes) -> bytes:
    message = struct.pack("!BBH", kind, 0, 0) + body + _MARK
    head = struct.pack("!IHBB", 6 << 28, len(message), 58, 255)
    return ethernet(source, 0x86DD, head + ip_address(sender).packed + ip_address("ff02::1").packed + message)


def neighbour(source: str, sender: str, kind: int, target: str, option_mac: str) -> bytes:
    """A solicitation (135) or advertisement (136). Source: RFC 4861, section 4.3 and 4.4."""
    option = bytes([1 if kind == 135 else 2, 1]) + _mac(option_mac)
    return icmpv6(source, sender, kind, bytes(4) + ip_address(target).packed + option)


def router(source: str, sender: str) -> bytes:
    return icmpv6(source, sender, 134, bytes(12))


def vlan(frame: bytes) -> bytes:
    return frame[:12] + struct.pack("!HH", 0x8100, 5) + frame[12:]


def _send(interface: str, frames: list[str]) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind((interface, 0))
        for number, frame in enumerate(frames):
            sock.send(bytes.fromhex(frame).replace(_MARK, TAG + bytes([number])))


def _listen(interface: str) -> None:
    seen = set()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as sock:
        sock.bind((interface, 0))
        print("ready", flush=True)
        while True:
            ready, _, _ = select.select([sock, sys.stdin], [], [])
            if sock in ready:
                found = sock.recv(65536)
                if TAG in found:
                    seen.add(found[found.index(TAG) + len(TAG)])
            elif not sys.stdin.buffer.read1(1):
                break
    print(" ".join(map(str, sorted(seen))), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "send":
        _send(sys.argv[2], sys.argv[3:])
    else:
        _listen(sys.argv[2])
