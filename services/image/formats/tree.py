"""The files of an archive as a tree, as unpacking it in order would leave them. Pure.

Nothing is followed: an entry below a link or a file is refused, and a hard link is another name
for an entry that came before.
"""

from __future__ import annotations

from collections.abc import Iterator

from services.image.formats import scanner
from services.image.formats.scanner import Member
from services.image.formats.tarheaders import Segments, bad

_U32 = 0xFFFFFFFF
_MOST_IDS = 0xFFFF
# Folders that no entry made: a name may be 4 KiB long, and each part of it is a folder in memory.
_SPARE_FOLDERS, _FOLDERS_EACH = 10_000, 4


class Node:
    """A file of whichever kind but a folder. at, size: where the bytes lie; target: of a symbolic link.

    number: of the inode, 1 for the first; links: how many names it has; place: filled by who writes it.
    """

    __slots__ = (
        "at", "gid", "kind", "links", "mode", "modified", "number", "place", "rdev", "size", "sparse",
        "stored", "target", "uid", "xattrs",
    )  # fmt: skip

    def __init__(self, number: int) -> None:
        self.number = number
        self.kind = scanner.FOLDER
        self.links = 1
        self.mode, self.uid, self.gid, self.modified = 0o755, 0, 0, 0
        self.at = self.size = self.stored = self.place = 0
        self.target = b""
        self.rdev = 0, 0
        self.sparse: Segments | None = None
        self.xattrs: tuple[tuple[bytes, bytes], ...] = ()


class Folder(Node):
    """parent: the folder it lies in, itself for the root."""

    __slots__ = ("children", "depth", "parent")

    def __init__(self, number: int, parent: Folder | None) -> None:
        super().__init__(number)
        self.parent = parent or self
        self.depth: int = parent.depth + 1 if parent else 0
        self.children: dict[bytes, Node] = {}


class Tree:
    """Fill with add()."""

    def __init__(self) -> None:
        self._added = self._made_folders = 0
        self.root = Folder(1, None)
        self.count = 1
        self._ids: dict[int, int] = {}
        # By path, since most entries lie in the folder of the one before.
        self._folders: dict[bytes, Folder] = {b"": self.root}

        self.id_index(0)  # of folders that no entry made

    @property
    def ids(self) -> list[int]:
        """Users and groups, in the order of the indexes that nodes hold."""
        return list(self._ids)

    def id_index(self, id: int) -> int:
        """Raises: Invalid."""
        index = self._ids.setdefault(id, len(self._ids))
        if index >= _MOST_IDS or not 0 <= id <= _U32:
            raise bad("it has more owners than a file system holds")
        return index

    def add(self, member: Member) -> Node:
        """Return what the entry names. Raises: Invalid."""
        path = _clean(member.path)
        self._added += 1
        if member.kind == scanner.FOLDER:
            folder = self._folder(path)
            _own(folder, member, self)
            return folder
        above, _, name = path.rpartition(b"/")
        if not name:
            raise bad("its top is no folder")
        folder = self._folders.get(above) or self._folder(above)
        there = folder.children.get(name)
        if isinstance(there, Folder):
            self._remove_empty(there, path)
        if member.kind == scanner.LINK:
            folder.children[name] = node = self._linked(member, folder.children.pop(name, None))
            return node
        if there is not None:
            there.links -= 1
        self.count += 1
        folder.children[name] = node = Node(self.count)
        _own(node, member, self)
        return node

    def find(self, path: bytes) -> Node | None:
        """Return what lies there, if anything."""
        above, _, name = path.rpartition(b"/")
        if not name:
            return self.root
        folder = self._folders.get(above)
        return folder.children.get(name) if folder else None

    def folders(self) -> Iterator[Folder]:
        """Yield all folders, each after those within it."""
        yield from sorted(self._folders.values(), key=lambda folder: -folder.depth)

    def _linked(self, member: Member, before: Node | None) -> Node:
        node = self.find(_clean(member.link)) or before
        if node is None or isinstance(node, Folder):
            raise bad(f"it has the link {member.path[:80]!r} to what is not in it")
        if node is not before:
            node.links += 1
        if before and node is not before:
            before.links -= 1
        return node

    def _folder(self, path: bytes) -> Folder:
        """Return a folder, made with those above it where they are not there yet."""
        if path in self._folders:
            return self._folders[path]
        missing = path.split(b"/")
        folder, at = self.root, b""
        for name in missing:
            at = at + b"/" + name if at else name
            folder = self._folders.get(at) or self._made(folder, name, at)
        return folder

    def _made(self, parent: Folder, name: bytes, path: bytes) -> Folder:
        if (there := parent.children.get(name)) is not None and there.kind in (scanner.SYMLINK, scanner.FILE):
            raise bad(f"it has entries below {path[:80].decode('utf-8', 'replace')!r}, which is no folder")
        self.count += 1
        self._made_folders += 1
        if self._made_folders > _SPARE_FOLDERS + _FOLDERS_EACH * self._added:
            raise bad("its names have more folders in them than it has entries")
        parent.children[name] = self._folders[path] = folder = Folder(self.count, parent)
        return folder

    def _remove_empty(self, folder: Folder, path: bytes) -> None:
        if folder.children:
            raise bad(f"it has {path[:80].decode('utf-8', 'replace')!r} both as a folder and as a file")
        del self._folders[path]


def _clean(path: bytes) -> bytes:
    """Return the path without ".", and without "/" at its end."""
    if path.endswith(b"/") or b"//" in path or b"/." in path or path.startswith(b"."):
        return b"/".join(part for part in path.split(b"/") if part not in (b"", b"."))
    return path


def _own(node: Node, member: Member, tree: Tree) -> None:
    node.kind = member.kind
    node.mode, node.modified = member.mode, min(member.modified, _U32)
    node.uid, node.gid = tree.id_index(member.uid), tree.id_index(member.gid)
    node.at, node.size, node.stored = member.at, member.size, member.stored
    node.target, node.rdev, node.sparse = member.link, member.rdev, member.sparse
    node.xattrs = tuple(sorted(member.xattrs.items()))
