"""Headers of tar entries, written so that the same entry has the same bytes wherever and whenever. Pure.

Names are GNU's (long ones in entries of their own), extended attributes are pax records.
"""

from __future__ import annotations

import os

BLOCK = 512
_SHORT = 100


def header(
    path: str,
    kind: bytes,
    *,
    mode: int = 0o755,
    uid: int = 0,
    gid: int = 0,
    mtime: int = 0,
    size: int = 0,
    link: str = "",
    xattrs: dict[str, bytes] | None = None,
) -> bytes:
    """Return all blocks that come before the *size* bytes of an entry. kind: the type as tar has it."""
    name, target = os.fsencode(path), os.fsencode(link)
    out = b""
    if xattrs:
        records = b"".join(_record(b"SCHILY.xattr." + os.fsencode(k), v) for k, v in sorted(xattrs.items()))
        out += _block(b"./PaxHeaders", b"x", size=len(records)) + padded(records)
    if len(target) > _SHORT:
        out += _block(b"././@LongLink", b"K", size=len(target) + 1) + padded(target + b"\0")
    if len(name) > _SHORT:
        out += _block(b"././@LongLink", b"L", size=len(name) + 1) + padded(name + b"\0")
    return out + _block(name, kind, mode=mode, uid=uid, gid=gid, mtime=mtime, size=size, link=target)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def _block(
    name: bytes,
    kind: bytes,
    *,
    mode: int = 0,
    uid: int = 0,
    gid: int = 0,
    mtime: int = 0,
    size: int = 0,
    link: bytes = b"",
) -> bytes:
    fields = (
        name[:_SHORT].ljust(_SHORT, b"\0"),
        *(_number(n, 8) for n in (mode & 0o7777, uid, gid)),
        *(_number(n, 12) for n in (size, mtime)),
        b" " * 8,
        kind,
        link[:_SHORT].ljust(_SHORT, b"\0"),
        b"ustar  \0",
    )
    block = b"".join(fields).ljust(BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _number(value: int, width: int) -> bytes:
    if 0 <= value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    return b"\x80" + value.to_bytes(width - 1, "big")


def _record(key: bytes, value: bytes) -> bytes:
    """Return a pax record, which begins with its own length."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest) + 1
    while len(b"%d" % length) + len(rest) != length:
        length = len(b"%d" % length) + len(rest)
    return b"%d" % length + rest
