"""Open paths that strangers chose, never outside a root: openat2(2) with RESOLVE_IN_ROOT.

Symbolic links are followed as the guest would see them; magic links (/proc/self/root ...) never.
"""

from __future__ import annotations

import ctypes
import os

from core.errors import Invalid

_libc = ctypes.CDLL(None, use_errno=True)
_OPENAT2 = 437
_IN_ROOT, _NO_MAGICLINKS = 0x10, 0x02
_MAX_PATH = 4096


class _How(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("flags", "mode", "resolve")]


def checked(path: str) -> str:
    """Return *path* if it can be one. Raises: Invalid."""
    if not path or "\0" in path or len(path.encode()) >= _MAX_PATH:
        raise Invalid("BAD_PATH", "The path is empty, too long or contains NUL", about=path[:64])
    return path


def open_beneath(root: int, path: str, flags: int, mode: int = 0) -> int:
    """Open *path* as if *root* (a folder's descriptor) were "/". Raises: OSError, Invalid."""
    how = _How(flags | os.O_CLOEXEC, mode, _IN_ROOT | _NO_MAGICLINKS)
    name = ctypes.c_char_p(os.fsencode(checked(path)))
    fd = int(
        _libc.syscall(
            ctypes.c_long(_OPENAT2),
            ctypes.c_int(root),
            name,
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
    )
    if fd < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), path)
    return fd


def parent_beneath(root: int, path: str) -> tuple[int, str]:
    """Open the folder that holds *path* and return it with the last component.

    The caller acts on the last component with dir_fd and O_NOFOLLOW, so it cannot be swapped.
    """
    parts = [part for part in checked(path).split("/") if part and part != "."]
    if not parts or parts[-1] == "..":
        raise Invalid("BAD_PATH", f"The path {path[:64]!r} names no entry", about=path[:64])
    folder = "/" + "/".join(parts[:-1])
    return open_beneath(root, folder, os.O_RDONLY | os.O_DIRECTORY), parts[-1]
