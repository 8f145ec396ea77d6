"""Folders made for one archive: files of ours beside the roots of instances, as the guests see them.

Made of mounts that have no place: nothing of a guest can be met by others meanwhile, and nothing is left
when this process dies. Roots show the ids of the guest, unshifted.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from services.runtime.domain.idmaps import PRIVILEGED
from services.runtime.kernel import mountapi

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Root:
    """The layers of an instance's root. shift: what is added to each id in *lower*."""

    upper: Path
    lower: Path | None
    shift: int = 0


def open_tree(files: Mapping[str, bytes], roots: Mapping[str, Root]) -> int:
    """Return the descriptor of a new folder that holds *files* and *roots* by path. Blocks shortly.

    Paths are ours: relative, without "..".
    """
    top = mountapi.detached("tmpfs")
    try:
        for path, content in files.items():
            folder, name = _parent(top, path)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with os.fdopen(os.open(name, flags, 0o644, dir_fd=folder), "wb") as file:
                os.close(folder)
                file.write(content)
        for path, root in roots.items():
            _attach(top, path, root)
    except BaseException:
        os.close(top)
        raise
    return top


def _attach(top: int, path: str, root: Root) -> None:
    with mountapi.descriptors() as fds:
        folder, name = _parent(top, path)
        fds.append(folder)
        os.mkdir(name, 0o755, dir_fd=folder)
        fds.append(os.open(name, _FOLDER, dir_fd=folder))
        place = fds[-1]
        # An overlay without an upper layer wants two others; an empty folder is as good as any.
        fds.append(os.open(root.upper, _FOLDER))
        layers = [fds[-1]]
        fds.append(_lower(root) if root.lower else mountapi.detached("tmpfs"))
        view = mountapi.detached("overlay", [*layers, fds[-1]], read_only=True)
        fds.append(view)
        mountapi.attach(view, place)


def _lower(root: Root) -> int:
    assert root.lower
    if not root.shift:
        return os.open(root.lower, _FOLDER)
    userns = mountapi.user_namespace(PRIVILEGED, root.shift)
    try:
        return mountapi.shifted(root.lower, userns)
    finally:
        os.close(userns)


def _parent(top: int, path: str) -> tuple[int, str]:
    """Return the folder of *path*, made as need be, and its name there."""
    *parents, name = path.split("/")
    folder = os.dup(top)
    for part in parents:
        with contextlib.suppress(FileExistsError):
            os.mkdir(part, 0o755, dir_fd=folder)
        try:
            inner = os.open(part, _FOLDER, dir_fd=folder)
        finally:
            os.close(folder)
        folder = inner
    return folder, name
