"""Layers of files laid upon each other, in memory: whiteouts, links and replaced folders. Pure.

Nothing is unpacked: a file is a place in the archive it came in. Links are followed within the tree only, so
nothing a layer says leads out of it; what could not be meant is refused.

Source: the OCI image specification, "Image Layer Filesystem Changeset"; where it leaves the order open, what
containerd does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from core.errors import Invalid

FILE, FOLDER, SYMLINK, HARDLINK, FIFO, DEVICE = "file", "folder", "symlink", "hardlink", "fifo", "device"
MOST_NODES = 1_000_000
_MOST_HOPS = 40
_MOST_PATH = 4096
_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"


def _bad(why: str) -> Invalid:
    return Invalid("BAD_LAYER", f"A layer of the image is refused: {why}")


@dataclass(slots=True)
class Node:
    """What one entry of an archive describes. place: where the bytes of a file are, for who reads them.

    is_shared: it has more than one name, or had.
    """

    kind: str
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    link: str = ""
    size: int = 0
    place: object = None
    xattrs: dict[str, bytes] | None = None
    children: dict[str, Node] | None = None
    is_shared: bool = False


@dataclass(slots=True)
class Entry:
    path: str
    node: Node


@dataclass
class Tree:
    """Lay layers upon it, lowest first; then read entries()."""

    most: int = MOST_NODES
    root: Node = field(default_factory=lambda: Node(FOLDER, children={}))
    made: int = 0

    def lay(self, layer: Iterable[Entry]) -> None:
        """Raises: Invalid."""
        entries = list(layer)
        for entry in entries:
            if (name := entry.path.rstrip("/").rpartition("/")[2]).startswith(_WHITEOUT):
                self._white_out(entry.path, name)
        for entry in entries:
            if not entry.path.rstrip("/").rpartition("/")[2].startswith(_WHITEOUT):
                self._put(entry)

    def find(self, path: str) -> Node | None:
        """Return what a path leads to, links followed; None for nothing."""
        return self._walk(path.split("/"), make=False)

    def ensure_folder(self, path: str, mode: int = 0o755) -> None:
        """Make a folder where there is nothing; what is there stays."""
        if self.find(path) is None and (made := self._walk(path.split("/"), make=True)):
            made.mode = mode

    def entries(self) -> Iterator[tuple[str, Node, str]]:
        """Yield (path, node, path of the same file that came before or "") in an order that never changes.

        Folders come before what is in them; the root itself is "".
        """
        seen: dict[int, str] = {}
        todo = [("", self.root)]
        while todo:
            path, node = todo.pop()
            if len(path) > _MOST_PATH:
                raise _bad(f"it has a path of more than {_MOST_PATH} letters")
            if node.children is not None:
                yield path, node, ""
                prefix = f"{path}/" if path else ""
                todo += [(prefix + name, node.children[name]) for name in sorted(node.children, reverse=True)]
                continue
            yield path, node, seen.get(id(node), "")
            if node.is_shared:
                seen.setdefault(id(node), path)

    def _white_out(self, path: str, name: str) -> None:
        parts = path.strip("/").split("/")[:-1]
        folder = self._walk(parts, make=False)
        if name == _OPAQUE:
            if folder and folder.children:
                folder.children.clear()
            return
        hidden = name.removeprefix(_WHITEOUT)
        if hidden.startswith(_WHITEOUT):
            return  # notes that aufs left for itself
        if hidden in ("", ".", ".."):
            raise _bad(f"it takes away {hidden!r}, which is no file")
        if folder and folder.children:
            folder.children.pop(hidden, None)

    def _put(self, entry: Entry) -> None:
        node = entry.node
        folder, name = self._split(entry.path, make=True)
        if not name:
            self._take_attributes(self.root, node, entry.path)
            return
        assert folder and folder.children is not None and self.root.children is not None
        there = folder.children.get(name)
        if node.kind == FOLDER and there and there.children is not None:
            self._take_attributes(there, node, entry.path)
            return
        if node.kind == HARDLINK:
            node = self._target(node.link, entry.path)
        elif node.kind == DEVICE:
            if folder is self.root.children.get("dev"):
                return  # instances get a /dev of their own
            raise _bad(f"it has the device {_shown(entry.path)}")
        self._count()
        folder.children[name] = node

    def _take_attributes(self, old: Node, new: Node, path: str) -> None:
        if new.kind != FOLDER:
            raise _bad(f"{_shown(path)} is the root, and no folder")
        old.mode, old.uid, old.gid, old.mtime, old.xattrs = new.mode, new.uid, new.gid, new.mtime, new.xattrs

    def _target(self, link: str, path: str) -> Node:
        folder, name = self._split(link, make=False)
        node = folder.children.get(name) if folder and folder.children else None
        if node is None or node.children is not None:
            raise _bad(f"{_shown(path)} is a hard link to {_shown(link)}, which is no file of the image")
        node.is_shared = True
        return node

    def _split(self, path: str, *, make: bool) -> tuple[Node | None, str]:
        """Return the folder that *path* lies in, links followed, and its name there; "" for the root."""
        parts = [part for part in path.split("/") if part not in ("", ".")]
        if not parts:
            return self.root, ""
        if ".." in parts:
            raise _bad(f"it has the entry {_shown(path)}, which leads out of it")
        return self._walk(parts[:-1], make=make), parts[-1]

    def _walk(self, parts: list[str], *, make: bool) -> Node | None:
        """Return what *parts* lead to, links followed as a guest would; None where there is nothing.

        *make* what is missing: then it is a folder. Raises: Invalid.
        """
        todo, trail, hops = parts[::-1], [self.root], 0
        while todo:
            part = todo.pop()
            if part in ("", "."):
                continue
            if part == "..":
                del trail[max(1, len(trail) - 1) :]
                continue
            folder = trail[-1].children
            assert folder is not None
            if part not in folder:
                if not make:
                    return None
                self._count()
                folder[part] = Node(FOLDER, children={})
            node = folder[part]
            if node.kind == SYMLINK:
                hops += 1
                if hops > _MOST_HOPS:
                    raise _bad(f"{_shown('/'.join(parts))} leads in circles")
                trail = [self.root] if node.link.startswith("/") else trail
                todo += node.link.split("/")[::-1]
            elif node.children is None:
                if make:
                    raise _bad(f"{_shown('/'.join(parts))} lies below what is no folder")
                return None if todo else node
            else:
                trail.append(node)
        return trail[-1]

    def _count(self) -> None:
        self.made += 1
        if self.made > self.most:
            raise _bad(f"it has more than {self.most} entries")


def _shown(path: str) -> str:
    return repr(path.encode("utf-8", "replace").decode()[:80])
