"""Read the headers of a tar stream as it passes by, and refuse what no honest image has.

It sees every byte before the squashfs writer does. Bounds hold against the declared sizes too, so a
sparse file of an exabyte is refused though it is short in the archive.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from core.errors import Invalid

BLOCK = 512
_LONG_MAX = 64 * 1024
_PATH_MAX = 4096
_PART_MAX = 255
_FILES = b"0\x007"
_KNOWN = b"01234567LKxgS\x00"


@dataclass(frozen=True)
class Limits:
    """tree_bytes and entries: after unpacking; ratio: of that to what was received.

    Below ratio_floor_bytes nothing is refused for its ratio: an empty tarball is all zeros.
    """

    tree_bytes: int = 64 << 30
    entries: int = 2_000_000
    ratio: int = 250
    ratio_floor_bytes: int = 256 << 20

    def allowed_bytes(self, received: int) -> int:
        """Return how far a file of *received* bytes may grow."""
        return min(self.tree_bytes, max(self.ratio_floor_bytes, received * self.ratio))


def _bad(why: str) -> Invalid:
    return Invalid("BAD_ARCHIVE", f"The image's archive is refused: {why}")


class TarScanner:
    """Push bytes in with feed(), then call finish(). `allowed` may grow while more is received."""

    def __init__(self, limits: Limits, received: int) -> None:
        self._limits = limits
        self.allowed = limits.allowed_bytes(received)
        self._head = bytearray()
        self._skip = 0
        self._wanted = 0
        self._body = bytearray()
        self._body_kind = b""
        self._size, self._pax_size = 0, -1
        self._path = self._link = ""
        self._real_size = 0
        self._total = self.passed = 0
        self.entries = 0
        self.ended = False

    def feed(self, data: bytes | memoryview) -> None:
        """Look at the next bytes. Raises: Invalid."""
        self.passed += len(data)
        if self.passed > self.allowed:
            raise _bad(f"it unpacks to more than {self.allowed} bytes")
        view, at = memoryview(data), 0
        while at < len(view) and not self.ended:
            at += self._take(view[at:])

    def finish(self) -> None:
        """The stream ended. Raises: Invalid when it ended inside a file."""
        if self._skip or self._wanted or self._head:
            raise _bad("it ends in the middle of an entry")
        if not self.entries:
            raise _bad("it is empty")

    def _take(self, view: memoryview) -> int:
        if self._wanted:
            return self._collect(view)
        if self._skip:
            passed = min(self._skip, len(view))
            self._skip -= passed
            return passed
        missing = BLOCK - len(self._head)
        part = view[:missing]
        self._head += part
        if len(self._head) == BLOCK:
            block, self._head = bytes(self._head), bytearray()
            self._header(block)
        return len(part)

    def _collect(self, view: memoryview) -> int:
        """Take bytes of a header's own body (long name, pax record, sparse map)."""
        part = view[: self._wanted]
        self._body += part
        self._wanted -= len(part)
        if not self._wanted:
            body, self._body = bytes(self._body), bytearray()
            self._extended(self._body_kind, body)
        return len(part)

    def _header(self, block: bytes) -> None:
        if not block.strip(b"\0"):
            self.ended = True
            return
        _check_sum(block)
        kind, size = block[156:157], _number(block[124:136])
        if kind not in _KNOWN:
            raise _bad(f"it has an entry of the unknown type {kind!r}")
        if kind in b"LKxg":
            self._expect(kind, size)
            return
        self._entry(block, kind, size)

    def _expect(self, kind: bytes, size: int) -> None:
        if not 0 < size <= _LONG_MAX:
            raise _bad("it has an oversized header")
        self._body_kind, self._size = kind, size
        self._wanted = _padded(size)

    def _extended(self, kind: bytes, body: bytes) -> None:
        if kind == b"S":
            self._sparse_map(body)
            return
        text = body[: self._size]
        if kind == b"L":
            self._path = _text(text.rstrip(b"\0"))
        elif kind == b"K":
            self._link = _text(text.rstrip(b"\0"))
        else:
            self._pax(text, everywhere=kind == b"g")

    def _pax(self, text: bytes, *, everywhere: bool) -> None:
        for key, value in _pax_records(text):
            if key in (b"path", b"linkpath", b"size") or key.startswith(b"GNU.sparse"):
                if everywhere:
                    raise _bad("it sets names or sizes for all of its entries")
                self._pax_field(key, value)

    def _pax_field(self, key: bytes, value: bytes) -> None:
        if key in (b"path", b"GNU.sparse.name"):
            self._path = _text(value)
        elif key == b"linkpath":
            self._link = _text(value)
        elif key in (b"size", b"GNU.sparse.realsize", b"GNU.sparse.size"):
            if not value.isdigit() or len(value) > 20:
                raise _bad("it has a size that is no number")
            if key == b"size":
                self._pax_size = int(value)
            else:
                self._real_size = int(value)

    def _entry(self, block: bytes, kind: bytes, size: int) -> None:
        size = self._pax_size if self._pax_size >= 0 else size
        path = self._path or _own_path(block)
        link = self._link or _text(block[157:257].split(b"\0", 1)[0])
        real = max(size, self._real_size, _number(block[483:495]) if kind == b"S" else 0)
        self._path = self._link = ""
        self._pax_size, self._real_size = -1, 0
        _check_path(path)
        if kind == b"1":
            _check_path(link)
        self._count(real if kind in _FILES + b"S" else 0)
        has_body = kind in _FILES + b"S"
        self._skip = _padded(size) if has_body else 0
        if kind == b"S" and block[482]:
            self._body_kind, self._wanted = b"S", BLOCK

    def _sparse_map(self, body: bytes) -> None:
        if body[504]:
            self._body_kind, self._wanted = b"S", BLOCK

    def _count(self, size: int) -> None:
        self.entries += 1
        self._total += size
        if self.entries > self._limits.entries:
            raise _bad(f"it has more than {self._limits.entries} entries")
        if self._total > self.allowed:
            raise _bad(f"it unpacks to more than {self.allowed} bytes")


def _padded(size: int) -> int:
    return (size + BLOCK - 1) // BLOCK * BLOCK


def _text(raw: bytes) -> str:
    if len(raw) > _PATH_MAX:
        raise _bad("it has a name that is too long")
    return raw.decode("utf-8", "surrogateescape")


def _own_path(block: bytes) -> str:
    name = block[0:100].split(b"\0", 1)[0]
    prefix = block[345:500].split(b"\0", 1)[0] if block[257:263] == b"ustar\0" else b""
    return _text(prefix + b"/" + name if prefix else name)


def _check_path(path: str) -> None:
    shown = path.encode("utf-8", "replace").decode()[:80]
    if not path or path.startswith("/") or "\0" in path:
        raise _bad(f"it has the entry {shown!r}, which is not a relative path")
    parts = path.split("/")
    if len(path) > _PART_MAX and any(len(os.fsencode(part)) > _PART_MAX for part in parts):
        raise _bad(f"it has the entry {shown!r} with a name that is too long")
    if ".." in parts:
        raise _bad(f"it has the entry {shown!r}, which leads out of it")


def _check_sum(block: bytes) -> None:
    field = block[148:156]
    if _number(field) != sum(block) - sum(field) + 8 * 32:
        raise _bad("a header is damaged")


def _number(field: bytes) -> int:
    """Return an octal or base-256 number of a header."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    text = field.split(b"\0", 1)[0].strip()
    if text.strip(b"01234567"):
        raise _bad("a header has a number that is none")
    return int(text, 8) if text else 0


def _pax_records(text: bytes) -> list[tuple[bytes, bytes]]:
    records, at = [], 0
    while at < len(text):
        end = text.find(b" ", at, at + 8)
        digits = text[at:end] if end > 0 else b""
        if (
            not digits.isdigit()
            or not (length := int(digits))
            or text[at + length - 1 : at + length] != b"\n"
        ):
            raise _bad("an extended header is damaged")
        key, equals, value = text[end + 1 : at + length - 1].partition(b"=")
        if not equals:
            raise _bad("an extended header is damaged")
        records.append((key, value))
        at += length
    return records
