"""One after the other: who brings a member up or takes it away has its folder to himself."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

# In the folder itself: each member has its own, and purge leaves none behind.
_SET_UP, _SUPERVISOR = "set-up.lock", "supervisor.lock"


@contextlib.contextmanager
def turn(state: Path) -> Iterator[bool]:
    """Wait for our turn at the folder *state*; say whether it is (still) there by then."""
    fd = _own(state, _SET_UP)
    try:
        yield fd is not None
    finally:
        if fd is not None:
            os.close(fd)


def supervise(state: Path) -> int | None:
    """Return a descriptor that is the place of the one supervisor while it is open; None if it is taken."""
    fd = _open(state / _SUPERVISOR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def _own(state: Path, name: str) -> int | None:
    while state.is_dir():
        fd = _open(state / name)
        fcntl.flock(fd, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if (state / name).stat().st_ino == os.fstat(fd).st_ino:
                return fd
        os.close(fd)  # whoever had it took the folder away
    return None


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
