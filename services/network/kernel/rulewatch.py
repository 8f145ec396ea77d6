"""Hears which tables of nftables others change, from the kernel and at once.

Source: include/uapi/linux/netfilter/nf_tables.h and nfnetlink.h; the order of messages is that of
nf_tables_commit (net/netfilter/nf_tables_api.c): what changed, then who changed it.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

from core.logs import get_logger
from services.network.kernel.subnets import attributes

log = get_logger(__name__)
_NETLINK_NETFILTER, _NFTABLES, _NEWGEN = 12, 10, 15
_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP_NFTABLES = 270, 1, 7
# The table's name has this number in messages about tables, chains, rules, sets and elements alike.
_TABLE, _GEN_PROC_PID = 1, 2
_GATHER_S = 0.05


class RuleWatch:
    """*prefix* begins the names of the tables that matter; what this process changes itself does not."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._socket: socket.socket | None = None
        self._pending, self._found = set[str](), set[str]()
        self._heard = asyncio.Event()

    def open(self) -> None:
        """Begin to listen. Without it what is lost comes back with the next look after everything."""
        try:
            opened = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _NETLINK_NETFILTER
            )
            opened.bind((0, 0))
            opened.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP_NFTABLES)
        except OSError as exc:
            log.warning("rules_not_watched", error=str(exc))
            return
        self._socket = opened
        asyncio.get_running_loop().add_reader(opened, self._receive)

    def close(self) -> None:
        if self._socket:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    async def changed(self) -> set[str]:
        """Return the tables of which somebody else changed something, when it happens."""
        await self._heard.wait()
        await asyncio.sleep(_GATHER_S)  # who deletes rules by hand deletes several
        self._heard.clear()
        found, self._found = self._found, set()
        return found

    def _receive(self) -> None:
        assert self._socket
        try:
            data = self._socket.recv(1 << 18)
        except OSError:  # there was more than the socket holds
            return
        for kind, body in messages(data):
            if kind != _NEWGEN:
                name = attributes(body).get(_TABLE, b"").rstrip(b"\0").decode(errors="replace")
                self._pending |= {name} if name.startswith(self._prefix) else set()
                continue
            pid = attributes(body).get(_GEN_PROC_PID, bytes(4))
            if self._pending and not _is_ours(struct.unpack("!I", pid)[0]):
                self._found |= self._pending
                self._heard.set()
            self._pending = set()


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield kind and body of each message about nftables."""
    while len(data) >= 16:
        length, type = struct.unpack("=IH", data[:6])
        if length < 16:
            return
        if type >> 8 == _NFTABLES:
            yield type & 0xFF, data[20:length]
        data = data[(length + 3) & ~3 :]


def _is_ours(thread: int) -> bool:
    """The kernel tells the thread."""
    return Path(f"/proc/self/task/{thread}").exists()
