"""Read the headers of a tar stream as it passes by, and refuse what no honest image has.

It sees every byte before anybody else does. Bounds hold against the declared sizes too, so a
sparse file of an exabyte is refused though it is short in the archive.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from services.image.formats.tarheaders import (
    BLOCK,
    PATH_MAX,
    Segments,
    bad,
    check_path,
    check_sum,
    decimal,
    number,
    own_path,
    padded,
    pax_records,
    sparse_fields,
    sparse_pairs,
    time_of,
)

FILE, LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, FOLDER, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
INLINE: Segments = ((-1, -1),)
_LONG_MAX = 64 * 1024
_PAX_MAX = 1 << 20
_SEGMENTS_MAX = 1 << 20
_FILES = b"0\x007S"
_KNOWN = b"01234567LKxgS\x00"
_XATTR, _BSD_XATTR = b"SCHILY.xattr.", b"LIBARCHIVE.xattr."


@dataclass(frozen=True)
class Limits:
    """tree_bytes and entries: after unpacking; ratio: of that to what was received.

    Below ratio_floor_bytes nothing is refused for its ratio: an empty tarball is all zeros.
    memory_bytes and seconds: what reading it may take.
    """

    tree_bytes: int = 64 << 30
    entries: int = 2_000_000
    ratio: int = 250
    ratio_floor_bytes: int = 256 << 20
    memory_bytes: int = 8 << 30
    seconds: float = 900.0

    def allowed_bytes(self, received: int) -> int:
        """Return how far a file of *received* bytes may grow."""
        return min(self.tree_bytes, max(self.ratio_floor_bytes, received * self.ratio))


class Member:
    """One entry. at, stored: where its bytes lie in the stream, and how many.

    size: how large the file is; sparse: its segments, None for all files but sparse ones, and
    INLINE where the map is the beginning of what is stored (version 1.0 of the pax format).
    """

    __slots__ = (
        "at",
        "gid",
        "kind",
        "link",
        "mode",
        "modified",
        "path",
        "rdev",
        "size",
        "sparse",
        "stored",
        "uid",
        "xattrs",
    )

    kind: bytes
    path: bytes
    link: bytes
    mode: int
    uid: int
    gid: int
    modified: int
    at: int
    stored: int
    size: int
    rdev: tuple[int, int]
    sparse: Segments | None
    xattrs: dict[bytes, bytes]


class TarScanner:
    """Push bytes in with feed(), then call finish().

    received: tells how much of the packed file is here, which bounds how far it may grow.
    found: is told of each entry, before its bytes passed.
    """

    found: Callable[[Member], None]

    def __init__(
        self,
        limits: Limits,
        received: Callable[[], int],
        found: Callable[[Member], None] = lambda member: None,
    ) -> None:
        self._limits = limits
        self._received = received
        self.found = found
        self._allowed = limits.allowed_bytes(received())
        self._head = self._body = b""
        self._skip = self._wanted = self._size = 0
        self._body_kind = b""
        self._path = self._link = b""
        self._pax: dict[bytes, bytes] = {}
        self._pax_bytes = 0
        self._pairs: list[bytes] = []
        self._sparse: tuple[Member, list[tuple[int, int]]] | None = None
        self._total = self.passed = self.entries = 0
        self.ended = False
        self.ended_at = 0
        """Where the zeros begin that mark the end."""

    def feed(self, data: bytes | memoryview) -> None:
        """Look at the next bytes. Raises: Invalid."""
        view, at, base = memoryview(data), 0, self.passed
        self.passed += len(view)
        self._check_bound(self.passed)
        while at < len(view) and not self.ended:
            if self._skip:
                step = min(self._skip, len(view) - at)
                self._skip -= step
                at += step
            elif self._wanted:
                part = bytes(view[at : at + self._wanted])
                at += len(part)
                self._collect(part, base + at)
            else:
                part = bytes(view[at : at + BLOCK - len(self._head)])
                at += len(part)
                self._header_part(part, base + at)

    def finish(self) -> None:
        """The stream ended. Raises: Invalid when something is missing: archives end with a block of zeros."""
        if self._skip or self._wanted or self._head:
            raise bad("it ends in the middle of an entry")
        if not self.entries:
            raise bad("it is empty")
        if not self.ended:
            raise bad("it was cut off between two entries")

    def _check_bound(self, size: int) -> None:
        if size > self._allowed:
            self._allowed = self._limits.allowed_bytes(self._received())
            if size > self._allowed:
                raise bad(f"it unpacks to more than {self._allowed} bytes")

    def _header_part(self, part: bytes, end: int) -> None:
        block = self._head + part if self._head else part
        if len(block) < BLOCK:
            self._head = block
            return
        self._head = b""
        self._header(block, end)

    def _collect(self, part: bytes, end: int) -> None:
        """Take bytes of a header's own body (long name, pax record, sparse map)."""
        self._body += part
        self._wanted -= len(part)
        if not self._wanted:
            body, self._body = self._body, b""
            self._extended(self._body_kind, body, end)

    def _header(self, block: bytes, end: int) -> None:
        kind = block[156:157]
        if kind == b"\0" and not block.strip(b"\0"):
            self.ended, self.ended_at = True, end - BLOCK
            return
        check_sum(block)
        if kind not in _KNOWN:
            raise bad(f"it has an entry of the unknown type {kind!r}")
        if kind in b"LKxg":
            self._expect(kind, number(block[124:136]))
            return
        self._entry(block, kind, end)

    def _expect(self, kind: bytes, size: int) -> None:
        if not 0 < size <= _LONG_MAX:
            raise bad("it has an oversized header")
        self._body_kind, self._size = kind, size
        self._wanted = padded(size)

    def _extended(self, kind: bytes, body: bytes, end: int) -> None:
        if kind == b"S":
            self._more_segments(body, end)
            return
        text = body[: self._size]
        if kind == b"L":
            self._path = text.rstrip(b"\0")
        elif kind == b"K":
            self._link = text.rstrip(b"\0")
        elif kind == b"g":
            self._refuse_global(text)
        else:
            self._pax_header(text)

    def _refuse_global(self, text: bytes) -> None:
        for key, _ in pax_records(text):
            if key in (b"path", b"linkpath", b"size") or key.startswith(b"GNU.sparse"):
                raise bad("it sets names or sizes for all of its entries")

    def _pax_header(self, text: bytes) -> None:
        self._pax_bytes += len(text)
        if self._pax_bytes > _PAX_MAX:
            raise bad("it has oversized headers for one entry")
        for key, value in pax_records(text):
            if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
                self._pairs.append(value)
            else:
                self._pax[key] = value

    def _entry(self, block: bytes, kind: bytes, end: int) -> None:
        pax, pairs = self._pax, self._pairs
        member = Member()
        member.path = pax.get(b"GNU.sparse.name") or pax.get(b"path") or self._path or own_path(block)
        member.link = pax.get(b"linkpath") or self._link or block[157:257].split(b"\0", 1)[0]
        stored = decimal(pax[b"size"]) if b"size" in pax else number(block[124:136])
        member.stored = member.size = stored if kind in _FILES else 0
        member.at, member.sparse = end, None
        _fill(member, block, pax)
        self._path = self._link = b""
        self._pax_bytes = 0
        if pax:
            self._pax = {}
        if pairs:
            self._pairs = []
        if kind in _FILES:
            self._file(member, block, kind, pax, pairs)
        else:
            member.kind = kind
            self._done(member)

    def _file(
        self, member: Member, block: bytes, kind: bytes, pax: dict[bytes, bytes], pairs: list[bytes]
    ) -> None:
        member.kind = FOLDER if member.path.endswith(b"/") else FILE
        if kind == b"S":
            member.size = number(block[483:495])
            segments = sparse_fields(block, 386, 4)
            if block[482]:
                # What comes next is more of the map; the entry is complete after it.
                self._check_bound(self._total + member.size)
                self._sparse = member, segments
                self._body_kind, self._wanted = b"S", BLOCK
                return
            member.sparse = tuple(segments)
        elif b"GNU.sparse.realsize" in pax or b"GNU.sparse.size" in pax:
            member.size = decimal(pax.get(b"GNU.sparse.realsize") or pax.get(b"GNU.sparse.size", b""))
            pairs = pairs or _numbers(pax.get(b"GNU.sparse.map", b""))
            member.sparse = INLINE if b"GNU.sparse.major" in pax else sparse_pairs(pairs)
        self._done(member)

    def _more_segments(self, body: bytes, end: int) -> None:
        assert self._sparse
        member, segments = self._sparse
        segments += sparse_fields(body, 0, 21)
        if len(segments) > _SEGMENTS_MAX:
            raise bad("a sparse file has too many segments")
        member.at = end
        if body[504]:
            self._wanted = BLOCK
            return
        self._sparse = None
        member.sparse = tuple(segments)
        self._done(member)

    def _done(self, member: Member) -> None:
        check_path(member.path)
        if member.kind == LINK:
            check_path(member.link)
        elif len(member.link) > PATH_MAX:
            raise bad("it has a name that is too long")
        self._skip = padded(member.stored)
        self.entries += 1
        self._total += max(member.size, member.stored)
        if self.entries > self._limits.entries:
            raise bad(f"it has more than {self._limits.entries} entries")
        self._check_bound(self._total)
        self.found(member)


def _fill(member: Member, block: bytes, pax: dict[bytes, bytes]) -> None:
    member.mode = number(block[100:108]) & 0o7777
    member.uid = decimal(pax[b"uid"]) if b"uid" in pax else number(block[108:116])
    member.gid = decimal(pax[b"gid"]) if b"gid" in pax else number(block[116:124])
    seconds = pax.get(b"mtime", b"").split(b".", 1)[0]
    member.modified = int(seconds) if seconds.isdigit() and len(seconds) < 12 else time_of(block[136:148])
    member.rdev = 0, 0
    if block[156] in b"34":
        member.rdev = number(block[329:337]), number(block[337:345])
    member.xattrs = _xattrs(pax) if pax else {}


def _xattrs(pax: dict[bytes, bytes]) -> dict[bytes, bytes]:
    found = {}
    for key, value in pax.items():
        if key.startswith(_XATTR):
            found[key[len(_XATTR) :]] = value
        elif key.startswith(_BSD_XATTR):
            try:
                found[unquote_to_bytes(key[len(_BSD_XATTR) :])] = base64.b64decode(value)
            except binascii.Error:
                raise bad("an extended attribute is damaged") from None
    return found


def _numbers(text: bytes) -> list[bytes]:
    return text.split(b",") if text else []
