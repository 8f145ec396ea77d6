"""Write the tables of a squashfs whose data lies before them, uncompressed and where it happens to be.

The blocks of a file may begin at any byte of a squashfs. So the bytes of a tarball, as they are, are
its data, and only what describes them has to be written: see layer.py. Pure but for its target.

Source: the kernel's fs/squashfs/squashfs_fs.h, and its reading of tables in super.c, id.c, xattr_id.c.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from services.image.formats import scanner
from services.image.formats.tarheaders import bad
from services.image.formats.tree import Folder, Node, Tree

BLOCK_SIZE = 1 << 17
DATA_AT = 4096
_BLOCK_LOG = 17
RAW = 1 << 24
"""Of the size of a block: it is not compressed."""
_META, _META_RAW = 8192, 0x8000
_MAGIC = 0x73717368
_NONE32, _NONE64 = 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF
_ZSTD = 6
# Inodes, data, fragments, xattrs and ids are not compressed; there are no fragments.
_FLAGS, _NO_XATTRS = 0x0001 | 0x0002 | 0x0008 | 0x0010 | 0x0100 | 0x0800, 0x0200
_TYPES = {
    scanner.FOLDER: 1,
    scanner.FILE: 2,
    scanner.SYMLINK: 3,
    scanner.BLOCK_DEVICE: 4,
    scanner.CHARACTER: 5,
    scanner.FIFO: 6,
}
_EXTENDED = 7
_PREFIXES = ((b"user.", 0), (b"trusted.", 1), (b"security.", 2))
_MOST_IN_RUN = 256
_ACL = b"system.posix_acl_"
_FOOTER = struct.Struct("<8sQ")
_FOOTER_MAGIC = b"PodNoACL"

_head = struct.Struct("<HHHHII").pack
_small_file = struct.Struct("<IIII").pack
_large_file = struct.Struct("<QQQIIII").pack
_small_folder = struct.Struct("<IIHHI").pack
_large_folder = struct.Struct("<IIIIHHI").pack
_run = struct.Struct("<III").pack
_entry = struct.Struct("<HhHH").pack
_two = struct.Struct("<II").pack


class _Table:
    """Blocks of metadata, written raw: so where a byte lies is known from how many come before it."""

    def __init__(self) -> None:
        self.bytes = bytearray()

    def place(self, at: int = -1) -> int:
        """Return how others refer to a byte, by default the next one."""
        block, offset = divmod(len(self.bytes) if at < 0 else at, _META)
        return block * (_META + 2) << 16 | offset

    def blocks(self) -> Iterable[bytes]:
        for at in range(0, len(self.bytes), _META):
            piece = self.bytes[at : at + _META]
            yield struct.pack("<H", len(piece) | _META_RAW) + piece


class _Xattrs:
    """Sets of extended attributes, each written once."""

    def __init__(self) -> None:
        self._ids: dict[tuple[tuple[bytes, bytes], ...], int] = {}
        self.pairs = _Table()
        self.sets = _Table()

    def __len__(self) -> int:
        return len(self._ids)

    def id_of(self, xattrs: tuple[tuple[bytes, bytes], ...]) -> int:
        known = [(kind, name, value) for name, value in xattrs for kind, name in _kinds(name)]
        if not known:
            return _NONE32
        if xattrs not in self._ids:
            self._ids[xattrs] = len(self._ids)
            place, before = self.pairs.place(), len(self.pairs.bytes)
            for kind, name, value in known:
                self.pairs.bytes += struct.pack("<HH", kind, len(name)) + name
                self.pairs.bytes += struct.pack("<I", len(value)) + value
            self.sets.bytes += struct.pack("<QII", place, len(known), len(self.pairs.bytes) - before)
        return self._ids[xattrs]


def _kinds(name: bytes) -> Iterable[tuple[int, bytes]]:
    """Yield kind and rest of a name that a squashfs can hold; ACLs it cannot.

    What overlays write for themselves is left out: it would redirect what is looked up in the image.
    """
    if name.startswith(b"trusted.overlay."):
        return
    for prefix, kind in _PREFIXES:
        if name.startswith(prefix) and len(name) > len(prefix):
            yield kind, name[len(prefix) :]


class SquashWriter:
    """Use once. block_sizes: those of sparse files, by number; all others follow from their size."""

    def __init__(self, tree: Tree, block_sizes: dict[int, list[int]]) -> None:
        self._tree = tree
        self._block_sizes = block_sizes
        self._inodes, self._listings, self._xattrs = _Table(), _Table(), _Xattrs()
        self._acls = 0

    def write(self, target: BinaryIO, at: int) -> None:
        """Write all tables behind the data, which ends at *at*, and the superblock. Raises: Invalid."""
        for folder in self._tree.folders():
            self._folder(folder)
        target.seek(at)
        inodes, listings = at, at + _put(target, self._inodes)
        at = listings + _put(target, self._listings)
        owners = _Table()
        owners.bytes += struct.pack(f"<{len(self._tree.ids)}I", *self._tree.ids)
        ids = at + _put(target, owners)
        at = ids + _put_index(target, owners, at)
        xattrs, flags = _NONE64, _FLAGS | _NO_XATTRS
        if len(self._xattrs):
            sets = at + _put(target, self._xattrs.pairs)
            xattrs, flags = sets + _put(target, self._xattrs.sets), _FLAGS
            target.write(struct.pack("<QII", at, len(self._xattrs), 0))
            at = xattrs + 16 + _put_index(target, self._xattrs.sets, sets)
        target.write(bytes(-at % 4096))
        if self._acls:
            target.write(bytes(4096 - _FOOTER.size) + _FOOTER.pack(_FOOTER_MAGIC, self._acls))
        target.seek(0)
        tree = self._tree
        head = (_MAGIC, tree.count, 0, BLOCK_SIZE, 0, _ZSTD, _BLOCK_LOG, flags, len(tree.ids), 4, 0)
        places = (tree.root.place, at, ids, xattrs, inodes, listings, _NONE64, _NONE64)
        target.write(struct.pack("<IIIIIHHHHHH8Q", *head, *places))

    def _folder(self, folder: Folder) -> None:
        """Write the inodes of the files in it, its listing, and its own inode."""
        names = sorted(folder.children)
        for name in names:
            node = folder.children[name]
            if not node.place and not isinstance(node, Folder):
                self._file(node)
        begin, place = len(self._listings.bytes), self._listings.place()
        index = self._listing(folder, names)
        size = len(self._listings.bytes) - begin + 3
        links = 2 + sum(isinstance(node, Folder) for node in folder.children.values())
        up = folder.parent.number if folder.parent is not folder else self._tree.count + 1
        block, offset = place >> 16, place & 0xFFFF
        folder.place = self._inodes.place()
        if size <= 0xFFFF and not index and not folder.xattrs:
            self._inodes.bytes += self._head(folder, 1) + _small_folder(block, links, size, offset, up)
            return
        large = _large_folder(links, size, block, up, len(index), offset, self._xattrs.id_of(folder.xattrs))
        self._inodes.bytes += self._head(folder, 1 + _EXTENDED) + large + b"".join(index)

    def _listing(self, folder: Folder, names: list[bytes]) -> list[bytes]:
        """Write the entries; return an index of them for a folder that does not fit one block."""
        out, begin = self._listings.bytes, len(self._listings.bytes)
        index: list[bytes] = []
        last_block, at = begin // _META, 0
        while at < len(names):
            if len(out) // _META != last_block:
                last_block, name = len(out) // _META, names[at]
                where = self._listings.place() >> 16
                index.append(struct.pack("<III", len(out) - begin, where, len(name) - 1) + name)
            at += self._entries(folder, names, at)
        return index

    def _entries(self, folder: Folder, names: list[bytes], at: int) -> int:
        """Write a run of entries whose inodes begin in one block; return how many."""
        first = folder.children[names[at]]
        block, number, run = first.place >> 16, first.number, []
        for name in names[at : at + _MOST_IN_RUN]:
            node = folder.children[name]
            if node.place >> 16 != block or not -0x8000 <= node.number - number <= 0x7FFF:
                break
            kind = _TYPES[node.kind]
            run.append(_entry(node.place & 0xFFFF, node.number - number, kind, len(name) - 1) + name)
        self._listings.bytes += _run(len(run) - 1, block, number) + b"".join(run)
        return len(run)

    def _head(self, node: Node, kind: int) -> bytes:
        self._acls += any(name.startswith(_ACL) for name, _ in node.xattrs)
        return _head(kind, node.mode, node.uid, node.gid, node.modified, node.number)

    def _file(self, node: Node) -> None:
        node.place = self._inodes.place()
        xattrs = self._xattrs.id_of(node.xattrs) if node.xattrs else _NONE32
        kind = _TYPES[node.kind]
        if node.kind == scanner.FILE:
            self._regular(node, xattrs)
            return
        body = _body(node)
        if xattrs != _NONE32:
            kind, body = kind + _EXTENDED, body + struct.pack("<I", xattrs)
        self._inodes.bytes += self._head(node, kind) + body

    def _regular(self, node: Node, xattrs: int) -> None:
        sizes = self._block_sizes.get(node.number)
        blocks = _blocks(node.size) if sizes is None else struct.pack(f"<{len(sizes)}I", *sizes)
        at = node.at if node.size else 0
        if node.links == 1 and xattrs == _NONE32 and sizes is None and at + node.size <= _NONE32:
            self._inodes.bytes += self._head(node, 2) + _small_file(at, _NONE32, 0, node.size) + blocks
            return
        holes = 0 if sizes is None else sum(BLOCK_SIZE for size in sizes if not size)
        large = _large_file(at, node.size, min(holes, node.size), node.links, _NONE32, 0, xattrs)
        self._inodes.bytes += self._head(node, 2 + _EXTENDED) + large + blocks


def lost_acls(path: Path) -> int:
    """Return how many files have an ACL in the archive and none in the squashfs that was made of it."""
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) < _FOOTER.size:
            return 0
        file.seek(-_FOOTER.size, os.SEEK_END)
        magic, count = _FOOTER.unpack(file.read(_FOOTER.size))
    return int(count) if magic == _FOOTER_MAGIC else 0


def _body(node: Node) -> bytes:
    if node.kind == scanner.SYMLINK:
        return _two(node.links, len(node.target)) + node.target
    if node.kind == scanner.FIFO:
        return struct.pack("<I", node.links)
    major, minor = node.rdev
    if major >= 1 << 12 or minor >= 1 << 20:
        raise bad("it has a device with a number that no kernel has")
    return _two(node.links, minor & 0xFF | major << 8 | (minor & ~0xFF) << 12)


def _blocks(size: int) -> bytes:
    """Return the block list of a file whose bytes lie in one piece."""
    if size <= BLOCK_SIZE:
        return struct.pack("<I", size | RAW) if size else b""
    whole, rest = divmod(size, BLOCK_SIZE)
    return struct.pack("<I", BLOCK_SIZE | RAW) * whole + (struct.pack("<I", rest | RAW) if rest else b"")


def _put(target: BinaryIO, table: _Table) -> int:
    return sum(target.write(block) for block in table.blocks())


def _put_index(target: BinaryIO, table: _Table, at: int) -> int:
    """Write where the blocks of *table* lie, which begins at *at*."""
    count = -(-len(table.bytes) // _META)
    return target.write(struct.pack(f"<{count}Q", *(at + block * (_META + 2) for block in range(count))))
