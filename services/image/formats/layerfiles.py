"""Layers in files: what they hold, and one archive made of what is left of them.

The files have no name, so nothing is left whenever this ends. What is written has no order, owner or time
that does not come from the layers.
"""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from services.image.domain import oci
from services.image.domain.layers import (
    DEVICE,
    FIFO,
    FILE,
    FOLDER,
    HARDLINK,
    SYMLINK,
    Entry,
    Node,
    Tree,
)
from services.image.formats.tarheader import BLOCK, header
from services.image.formats.tarheaders import check_segments

_CHUNK = 1 << 20
_KINDS = {
    tarfile.REGTYPE: FILE,
    tarfile.AREGTYPE: FILE,
    tarfile.CONTTYPE: FILE,
    tarfile.GNUTYPE_SPARSE: FILE,
    tarfile.DIRTYPE: FOLDER,
    tarfile.SYMTYPE: SYMLINK,
    tarfile.LNKTYPE: HARDLINK,
    tarfile.FIFOTYPE: FIFO,
    tarfile.CHRTYPE: DEVICE,
    tarfile.BLKTYPE: DEVICE,
}
_TYPES = {FILE: b"0", FOLDER: b"5", SYMLINK: b"2", FIFO: b"6"}
_XATTR = "SCHILY.xattr."
# The others are the host's business: trusted.overlay.* would redirect what is looked up in the image.
_XATTRS = ("user.", "security.capability", "system.posix_acl_")
_MOST_ID = 2**32 - 2


@dataclass(slots=True)
class Place:
    """Where the bytes of a file are."""

    archive: tarfile.TarFile
    info: tarfile.TarInfo | None
    file: BinaryIO
    offset: int


class LayerFiles:
    """Files without a name, and the archives in them."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._open: list[Any] = []

    def __enter__(self) -> LayerFiles:
        return self

    def __exit__(self, *_: object) -> None:
        for opened in reversed(self._open):
            opened.close()

    def new(self) -> BinaryIO:
        self._open.append(file := tempfile.TemporaryFile(dir=self._folder))  # noqa: SIM115  closed by __exit__
        return cast(BinaryIO, file)

    def archive(self, file: BinaryIO) -> tarfile.TarFile | None:
        """Return the archive in a file; None where it holds no entry."""
        if not file.tell():
            return None
        file.seek(0)
        try:
            found = tarfile.open(fileobj=file, mode="r:", errors="surrogateescape")  # noqa: SIM115  closed by __exit__
        except tarfile.TarError as exc:
            raise oci.bad(f"a layer cannot be read: {exc}"[:200]) from None
        self._open.append(found)
        return found


def entries(archive: tarfile.TarFile | None) -> Iterator[Entry]:
    """Yield what a layer says, in its order. Raises: Invalid."""
    if archive is None:
        return
    file = archive.fileobj
    assert file
    try:
        while (info := archive.next()) is not None:
            cast(Any, archive).members.clear()  # it would keep them all
            yield Entry(info.name, _node(archive, info))
    except (tarfile.TarError, ValueError, OverflowError) as exc:
        raise oci.bad(f"a layer cannot be read: {exc}"[:200]) from None


def _node(archive: tarfile.TarFile, info: tarfile.TarInfo) -> Node:
    kind = _KINDS.get(info.type)
    if kind is None:
        raise oci.bad(f"a layer has an entry of the unknown type {info.type!r}")
    if not (0 <= info.uid <= _MOST_ID and 0 <= info.gid <= _MOST_ID):
        raise oci.bad("a layer has a file whose owner is no id")
    xattrs = {
        key.removeprefix(_XATTR): value.encode("utf-8", "surrogateescape")
        for key, value in info.pax_headers.items()
        if key.startswith(_XATTR) and key.removeprefix(_XATTR).startswith(_XATTRS)
    }
    node = Node(
        kind,
        info.mode & 0o7777,
        info.uid,
        info.gid,
        min(max(0, int(info.mtime)), 2**32 - 1),
        xattrs=xattrs or None,
        children={} if kind == FOLDER else None,
    )
    if kind in (SYMLINK, HARDLINK):
        node.link = info.linkname
    if kind == FILE:
        if info.issparse():
            segments = tuple(pair for pair in cast(Any, info).sparse if pair[1])
            check_segments(segments, stored=archive.offset - info.offset_data, real=info.size)
        node.size = info.size
        assert archive.fileobj
        node.place = Place(
            archive, info if info.issparse() else None, cast(BinaryIO, archive.fileobj), info.offset_data
        )
    return node


def content(node: Node, most: int) -> Iterator[bytes]:
    place, left = node.place, min(node.size, most)
    assert isinstance(place, Place)
    source: Any = place.file
    if place.info is not None:
        source = place.archive.extractfile(place.info)
    else:
        source.seek(place.offset)
    while left:
        data = source.read(min(left, _CHUNK))
        if not data:
            raise oci.bad("a layer ends in the middle of a file")
        left -= len(data)
        yield data


def archive(tree: Tree) -> Iterator[bytes]:
    for path, node, same in tree.entries():
        shared: dict[str, Any] = {"mode": node.mode, "uid": node.uid, "gid": node.gid, "mtime": node.mtime}
        name = f"{path}/" if node.kind == FOLDER else path
        if same:
            yield header(name, b"1", link=same, **shared)
            continue
        size = node.size if node.kind == FILE else 0
        kind = _TYPES[node.kind]
        yield header(name if path else "./", kind, size=size, link=node.link, xattrs=node.xattrs, **shared)
        if size:
            yield from content(node, size)
            yield bytes(-size % BLOCK)
    yield bytes(2 * BLOCK)
