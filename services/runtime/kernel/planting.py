"""Write files into the mounted root of an instance that does not run, wherever its image wants them.

The paths are strangers', and so is all that lies on the way: folders are resolved beneath the root, links
lead nowhere else, and what is no plain file is left alone.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from core.errors import Invalid
from services.runtime.kernel.beneath import open_beneath

_ROOT = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_PLACE = os.O_RDONLY | os.O_DIRECTORY
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def present(root: Path, paths: list[str]) -> set[str]:
    """Return those of *paths* that something is at. Blocks."""
    top = os.open(root, _ROOT)
    try:
        return {path for path in paths if _is_there(top, path)}
    finally:
        os.close(top)


def plant(root: Path, files: dict[str, bytes], owner: tuple[int, int]) -> None:
    """Write *files* (path to content); new ones, and new folders, belong to *owner*, a host uid and gid.

    Repeatable. Blocks.

    Raises: Invalid for a place that cannot be one of a file, OSError.
    """
    top = os.open(root, _ROOT)
    try:
        for path, content in files.items():
            _write(top, path, content, owner)
    finally:
        os.close(top)


def _is_there(top: int, path: str) -> bool:
    try:
        os.close(open_beneath(top, path, os.O_PATH))
    except FileNotFoundError:
        return False
    except (OSError, Invalid):
        return True
    return True


def _write(top: int, path: str, content: bytes, owner: tuple[int, int]) -> None:
    *folders, name = [part for part in path.split("/") if part and part != "."]
    if ".." in folders or name == "..":
        raise Invalid("BAD_PATH", f"The path {path[:128]!r} leads out of its folder", about=path[:128])
    folder = _folder(top, folders, owner)
    try:
        fd = _open(top, folder, name, path, owner)
    finally:
        os.close(folder)
    with os.fdopen(fd, "wb") as file:
        file.write(content)


def _folder(top: int, parts: list[str], owner: tuple[int, int]) -> int:
    """Open a folder, with all that is missing of it made."""
    opened = open_beneath(top, "/", _PLACE)
    for depth, part in enumerate(parts, 1):
        path = "/".join(parts[:depth])
        try:
            inner = open_beneath(top, path, _PLACE)
        except FileNotFoundError:
            os.mkdir(part, 0o755, dir_fd=opened)
            os.chown(part, *owner, dir_fd=opened, follow_symlinks=False)
            inner = open_beneath(top, path, _PLACE)
        os.close(opened)
        opened = inner
    return opened


def _open(top: int, folder: int, name: str, path: str, owner: tuple[int, int]) -> int:
    try:
        fd = open_beneath(top, path, os.O_WRONLY)
    except FileNotFoundError:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)  # a link that leads to nothing
        fd = os.open(name, _NEW, 0o644, dir_fd=folder)
        os.fchown(fd, *owner)
        os.fchmod(fd, 0o644)  # whatever the umask
        return fd
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise Invalid("NOT_A_FILE", f"{path[:128]!r} is no regular file", about=path[:128])
    os.ftruncate(fd, 0)
    return fd
