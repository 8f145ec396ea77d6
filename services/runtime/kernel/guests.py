"""A guest's addresses and counters from /proc/<pid>/net: read from outside, nothing is entered."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from ipaddress import IPv6Address
from pathlib import Path

from services.runtime.kernel import netns
from services.runtime.ports import GuestAddress, GuestInterface, NicPlan

_V6_SCOPES = {0x00: "global", 0x10: "local", 0x20: "link", 0x40: "global"}
# Below an instance's folder: its network namespace, while the host has something to get back from it.
_KEPT = "netns"
_MOST_READ = 1 << 18
_ODD = re.compile(rb"[^\n\t\x20-\x7e]")
# Columns of /proc/net/dev. Source: net/core/net-procfs.c, dev_seq_printf_stats.
_COLUMNS = {
    "bytes_received": 0,
    "packets_received": 1,
    "errors_received": 2,
    "packets_dropped_inbound": 3,
    "bytes_sent": 8,
    "packets_sent": 9,
    "errors_sent": 10,
    "packets_dropped_outbound": 11,
}


class ProcGuests:
    """Implements ports.Guests."""

    def interfaces(self, pid: int) -> list[GuestInterface]:
        return interfaces_of(f"/proc/{pid}/net")

    def counters(self, pid: int) -> list[GuestInterface]:
        return counters_of(f"/proc/{pid}/net")

    def set_up(self, pid: int, names: Sequence[str]) -> None:
        netns.set_up(pid, names)

    def give_addresses(self, pid: int, nic: NicPlan) -> None:
        netns.give_addresses(pid, nic.name, nic.addresses, nic.gateways)

    def take_out(self, pid: int, name: str, parent: str) -> None:
        netns.take_out(Path(f"/proc/{pid}/ns/net"), name, parent)

    def keep(self, folder: Path, pid: int) -> None:
        netns.keep(folder / _KEPT, pid)

    def give_back(self, folder: Path, given: Mapping[str, str]) -> None:
        netns.give_back(folder / _KEPT, given)


def interfaces_of(folder: str | Path) -> list[GuestInterface]:
    """Return what /proc/PID/net tells; nothing when the guest is gone."""
    try:
        dev, v6 = _text(f"{folder}/dev"), _ipv6(folder)
        v4 = ipv4_addresses(_text(f"{folder}/fib_trie"), _text(f"{folder}/route"))
    except OSError:
        return []
    found = []
    for name, counters in parse_dev(dev).items():
        addresses = tuple(v4.get(name, ())) + tuple(v6.get(name, ()))
        found.append(GuestInterface(name, addresses, counters))
    return found


def counters_of(folder: str | Path) -> list[GuestInterface]:
    """Return the interfaces without addresses; nothing when the guest is gone."""
    try:
        dev = _text(f"{folder}/dev")
    except OSError:
        return []
    return [GuestInterface(name, (), counters) for name, counters in parse_dev(dev).items()]


def _text(path: str) -> str:
    """Return the whole lines of the file's beginning.

    Guests decide how many interfaces and addresses they have, and call them what they want: the
    kernel takes any byte but a few, also what is no UTF-8 or what Python splits lines and words at.
    """
    data = b""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # The kernel gives a page at a time.
        while len(data) < _MOST_READ and (piece := os.read(fd, _MOST_READ - len(data))):
            data += piece
    finally:
        os.close(fd)
    whole = data if len(data) < _MOST_READ else data[: data.rfind(b"\n") + 1]
    return _ODD.sub(b"?", whole).decode()


def parse_dev(text: str) -> dict[str, dict[str, int]]:
    rows = (line.split(":", 1) for line in text.splitlines()[2:] if ":" in line)
    return {
        name.strip(): {key: int(values.split()[column]) for key, column in _COLUMNS.items()}
        for name, values in rows
    }


def ipv4_addresses(trie: str, routes: str) -> dict[str, list[GuestAddress]]:
    """Return IPv4 addresses by interface: local /32 entries of the trie, placed by connected routes."""
    networks = _connected(routes)
    found: dict[str, list[GuestAddress]] = {"lo": [GuestAddress("inet", "127.0.0.1", 8, "local")]}
    for address in sorted(_locals(trie)):
        number = _number(address)
        for name, net, mask in networks:
            if number & mask == net:
                entry = GuestAddress("inet", address, bin(mask).count("1"), "global")
                found.setdefault(name, []).append(entry)
                break
    return found


def _locals(trie: str) -> set[str]:
    found, candidate = set(), ""
    for line in trie.splitlines():
        words = line.split()
        if words[:1] == ["|--"]:
            candidate = words[1]
        elif words[:2] == ["/32", "host"] and words[2] == "LOCAL" and not candidate.startswith("127."):
            found.add(candidate)
    return found


def _connected(routes: str) -> list[tuple[str, int, int]]:
    found = []
    for line in routes.splitlines()[1:]:
        words = line.split()
        gateway, mask = words[2], int.from_bytes(bytes.fromhex(words[7]), "little")
        if gateway == "00000000" and mask:
            found.append((words[0], int.from_bytes(bytes.fromhex(words[1]), "little"), mask))
    # The longest prefix first, so that an address lands on the narrowest network that holds it.
    return sorted(found, key=lambda row: -row[2])


def _number(address: str) -> int:
    return int.from_bytes(bytes(int(part) for part in address.split(".")), "big")


def _ipv6(folder: str | Path) -> dict[str, list[GuestAddress]]:
    try:
        text = _text(f"{folder}/if_inet6")
    except FileNotFoundError:
        return {}
    found: dict[str, list[GuestAddress]] = {}
    for line in text.splitlines():
        raw, _, prefix, scope, _, name = line.split()
        address = str(IPv6Address(bytes.fromhex(raw)))
        entry = GuestAddress("inet6", address, int(prefix, 16), _V6_SCOPES.get(int(scope, 16), "global"))
        found.setdefault(name, []).append(entry)
    return found
