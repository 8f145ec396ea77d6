"""Packets of SFTP version 3. Pure. Source: draft-ietf-secsh-filexfer-02; OpenSSH's PROTOCOL, section 4."""

from __future__ import annotations

import os
import stat
import struct
import time
from dataclasses import dataclass

INIT, VERSION = 1, 2
OPEN, CLOSE, READ, WRITE, LSTAT, FSTAT, SETSTAT, FSETSTAT = range(3, 11)
OPENDIR, READDIR, REMOVE, MKDIR, RMDIR, REALPATH, STAT, RENAME, READLINK, SYMLINK = range(11, 21)
STATUS, HANDLE, DATA, NAME, ATTRS = range(101, 106)
EXTENDED, EXTENDED_REPLY = 200, 201

OK, EOF, NO_SUCH_FILE, PERMISSION_DENIED, FAILURE, BAD_MESSAGE = range(6)
OP_UNSUPPORTED = 8

MOST_PACKET = 1 << 20
_SIZE, _IDS, _MODE, _TIMES, _MORE = 1, 2, 4, 8, 0x80000000
_YEAR_9999 = 253402300799  # later ones have no name, but a guest's files may have them
_ALL = _SIZE | _IDS | _MODE | _TIMES


class BadPacket(Exception):
    """Bytes that are no packet of this protocol."""


@dataclass(frozen=True)
class Attributes:
    """What is to be set; None: as it is."""

    size: int | None = None
    ids: tuple[int, int] | None = None
    mode: int | None = None
    times: tuple[int, int] | None = None


class Fields:
    """The fields of one packet, read from left to right."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def _take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._data):
            raise BadPacket("the packet is too short")
        found, self._at = self._data[self._at : end], end
        return found

    def byte(self) -> int:
        return self._take(1)[0]

    def number(self) -> int:
        return int.from_bytes(self._take(4), "big")

    def long(self) -> int:
        return int.from_bytes(self._take(8), "big")

    def text(self) -> bytes:
        return self._take(self.number())

    def attributes(self) -> Attributes:
        flags = self.number()
        size = self.long() if flags & _SIZE else None
        ids = (self.number(), self.number()) if flags & _IDS else None
        mode = self.number() if flags & _MODE else None
        times = (self.number(), self.number()) if flags & _TIMES else None
        if flags & _MORE:
            for _ in range(2 * min(self.number(), 64)):
                self.text()
        return Attributes(size, ids, mode, times)


def text(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value


def packet(kind: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">IB", len(body) + 1, kind) + body


def status(id: int, code: int, message: str = "") -> bytes:
    return packet(STATUS, struct.pack(">II", id, code), text(message.encode()), text(b"en"))


def attributes(found: os.stat_result) -> bytes:
    times = (max(0, int(found.st_atime)) & 0xFFFFFFFF, max(0, int(found.st_mtime)) & 0xFFFFFFFF)
    return struct.pack(">IQIIIII", _ALL, found.st_size, found.st_uid, found.st_gid, found.st_mode, *times)


def name(file: bytes, found: os.stat_result) -> bytes:
    return text(file) + text(_long_name(file, found)) + attributes(found)


def bare_name(file: bytes) -> bytes:
    """Return a name of which nothing else is told."""
    return text(file) + text(file) + struct.pack(">I", 0)


def _long_name(file: bytes, found: os.stat_result) -> bytes:
    """Return the line `ls -l` prints, which clients show as it is."""
    at = time.gmtime(min(max(found.st_mtime, 0), _YEAR_9999))
    is_recent = 0 <= time.time() - found.st_mtime < 180 * 86400
    shown = time.strftime("%b %e %H:%M" if is_recent else "%b %e  %Y", at)
    head = f"{stat.filemode(found.st_mode)} {found.st_nlink:4} {found.st_uid:<8} {found.st_gid:<8}"
    return f"{head} {found.st_size:8} {shown} ".encode() + file
