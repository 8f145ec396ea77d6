"""What rules of ACLs log: the kernel sends it here (NFLOG), and it lies in a bounded file for each ACL.

Source: include/uapi/linux/netfilter/nfnetlink_log.h and nfnetlink.h.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from core.logs import get_logger
from services.network.domain import acllog

log = get_logger(__name__)
_NETLINK_NETFILTER, _ULOG = 12, 4
_PACKET, _CONFIG, _REQUEST = _ULOG << 8, _ULOG << 8 | 1, 1
_CFG_CMD, _BIND, _CFG_TIMEOUT, _PAYLOAD, _PREFIX_ATTR = 1, 1, 4, 9, 10
# Hundredths of a second that the kernel gathers packets for.
_GATHER = 10
_MOST_BYTES = 256 << 10
_ID = re.compile(r"[0-9a-f]{8}")


class AclLog:
    """*folder* holds the files. Two Podiums of a host have groups of their own, by their folders."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.group = 1 + int(hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:8], 16) % 65000
        self._socket: socket.socket | None = None

    def open(self) -> None:
        """Begin to listen, once. A kernel without NFLOG logs nothing; its rules hold all the same."""
        if self._socket:
            return
        try:
            opened = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _NETLINK_NETFILTER
            )
            opened.bind((0, 0))
            opened.send(_configure(self.group, struct.pack("=HHBxxx", 5, _CFG_CMD, _BIND)))
            opened.send(
                _configure(self.group, struct.pack("=HH", 8, _CFG_TIMEOUT) + struct.pack("!I", _GATHER))
            )
        except OSError as exc:
            log.warning("acl_log_not_opened", error=str(exc))
            return
        self._socket = opened
        asyncio.get_running_loop().add_reader(opened, self._receive)

    def close(self) -> None:
        if self._socket:
            with contextlib.suppress(RuntimeError):
                asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def read(self, acl_id: str) -> bytes:
        """Return what there is, oldest first. Blocking."""
        return b"".join(_bytes(path) for path in self._files(acl_id))

    def forget(self, acl_id: str) -> None:
        for path in self._files(acl_id):
            path.unlink(missing_ok=True)

    def _files(self, acl_id: str) -> tuple[Path, Path]:
        name = acl_id if _ID.fullmatch(acl_id) else "none"
        return self._folder / f"{name}.1", self._folder / name

    def _receive(self) -> None:
        assert self._socket
        for _ in range(64):  # and then others have their turn
            try:
                data = self._socket.recv(1 << 17)
            except BlockingIOError:
                return
            except OSError:  # ENOBUFS: more than we can take was logged; what is lost is lost
                continue
            for found in packets(data):
                self._write(found)

    def _write(self, found: acllog.Logged) -> None:
        """Rules bound how much there is to write, so that this may block shortly."""
        older, path = self._files(found.acl_id)
        self._folder.mkdir(exist_ok=True)
        with path.open("a") as file:
            file.write(f"{found.line}\n")
            if file.tell() < _MOST_BYTES:
                return
        path.replace(older)


def _configure(group: int, attribute: bytes) -> bytes:
    body = struct.pack("!BBH", 0, 0, group) + attribute
    return struct.pack("=IHHII", 16 + len(body), _CONFIG, _REQUEST, 0, 0) + body


def packets(data: bytes) -> Iterator[acllog.Logged]:
    """Yield what is of ours in a datagram of netlink messages."""
    for kind, body in _messages(data):
        if kind == _PACKET:
            attributes = dict(_attributes(body[4:]))
            prefix = attributes.get(_PREFIX_ATTR, b"").rstrip(b"\0").decode(errors="replace")
            if found := acllog.parse(prefix, attributes.get(_PAYLOAD, b""), time.time()):
                yield found


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= 16:
        length, kind = struct.unpack_from("=IH", data)
        if not 16 <= length <= len(data):
            return
        yield kind, data[16:length]
        data = data[length + 3 & ~3 :]


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if not 4 <= length <= len(data):
            return
        yield kind & 0x3FFF, data[4:length]
        data = data[length + 3 & ~3 :]


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
