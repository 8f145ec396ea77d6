"""Making files in file systems of guests, in which the host's root has no name."""

from __future__ import annotations

import contextlib
import ctypes
import errno
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")
_libc = ctypes.CDLL(None, use_errno=True)
_VERSION = 0x20080522


@contextlib.contextmanager
def acting_as(uid: int, gid: int) -> Iterator[None]:
    """Make files as the guest's root."""
    # Of this thread only, unlike os.seteuid.
    _libc.setfsgid(gid)
    _libc.setfsuid(uid)
    try:
        yield
    finally:
        _libc.setfsuid(0)
        _libc.setfsgid(0)


def made(make: Callable[[], T], root: tuple[int, int]) -> T:
    """Return make(), done as *root* (host uid and gid of the guest's) where the host's root cannot.

    So it is in a tmpfs that the guest mounted, as /run is. Raises: OSError.
    """
    try:
        return make()
    except OSError as exc:
        if exc.errno != errno.EOVERFLOW:
            raise
    with acting_as(*root):
        _keep_powers()
        return make()


def _keep_powers() -> None:
    """Take back, in this thread, the capabilities over files that went with the host's root.

    Source: capabilities(7), "Effect of user ID changes on capabilities"; capset(2).
    """
    head, sets = (ctypes.c_uint32 * 2)(_VERSION, 0), (ctypes.c_uint32 * 6)()
    if not _libc.capget(head, sets):
        sets[0], sets[3] = sets[1], sets[4]  # effective: all that is permitted
        _libc.capset(head, sets)
