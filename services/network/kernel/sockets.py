"""Who listens where DNS and DHCP servers do, by sock_diag through `ss`, with the process named."""

from __future__ import annotations

import asyncio
import pwd
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from core.errors import WrongState
from services.network.domain.conflicts import Listener
from services.network.kernel.programs import run

_SERVERS = frozenset(
    {"named", "dnsmasq", "unbound", "systemd-resolve", "kresd", "coredns", "CoreDNS", "pdns_server",
     "pdns_recursor", "dhcpd", "kea-dhcp4", "kea-dhcp6", "udhcpd", "dnscrypt-proxy", "stubby", "nsd", "knotd"}
)  # fmt: skip
_USERS = re.compile(r'users:\(\("([^"]+)",pid=(\d+)')


@dataclass(frozen=True)
class Server:
    pid: int
    name: str
    uid: int


async def listening(ours: set[int]) -> list[Listener]:
    """Return the sockets on ports 53 and 67 whose owner is not one of the processes *ours*."""
    code, output = await run(["ss", "-Hlntuep", "( sport = :53 or sport = :67 )"])
    if code:
        raise WrongState("SS_FAILED", f"ss failed: {output.strip()[:200]}")
    servers = await asyncio.to_thread(lambda: list(_servers()))
    found = (_listener(line, ours, servers) for line in output.splitlines())
    return [listener for listener in found if listener]


def _listener(line: str, ours: set[int], servers: list[Server]) -> Listener | None:
    """Return one line of ss as a listener; None for one of *ours* or a line of another shape.

    The kernel tells the owner of a socket to root only. For us it is one of the known servers that run
    as the socket's user; when all of them are ours, so is the socket.
    """
    words = line.split()
    if len(words) < 6:
        return None
    address, _, port = words[4].rpartition(":")
    address, _, interface = address.replace("[", "").replace("]", "").partition("%")
    if match := _USERS.search(line):
        pid, name = int(match[2]), match[1]
        return None if pid in ours else Listener(address, interface, int(port), f"{name} (process {pid})")
    owner = re.search(r"\buid:(\d+)", line)
    uid = int(owner[1]) if owner else 0
    candidates = [server for server in servers if server.uid == uid]
    others = [server for server in candidates if server.pid not in ours]
    if candidates and not others:
        return None
    return Listener(address, interface, int(port), _named(others, uid))


def _named(servers: list[Server], uid: int) -> str:
    if servers:
        return " or ".join(f"{s.name} (process {s.pid})" for s in servers[:3])
    try:
        return f"a process of user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"a process of user {uid}"


def _servers() -> Iterator[Server]:
    """Yield the known servers that run. Their folder in /proc may be root's; their status tells the user."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            name = (path / "comm").read_text().strip()
            if name in _SERVERS:
                status = (path / "status").read_text()
                yield Server(int(path.name), name, int(status.split("Uid:", 1)[1].split()[1]))
        except OSError:
            continue
