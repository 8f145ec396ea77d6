"""Terminals of commands: their size, their owner, and when the other side is ready for input."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import stat
import struct
import termios
import time
from collections.abc import Callable

from core.libc import syscall

_PIDFD_GETFD = 438  # of the generic table; source: pidfd_getfd(2)
_TIOCGPTPEER = 0x5441
_SLAVES = range(136, 144)  # majors; source: Documentation/admin-guide/devices.txt
_POLL_S, _PATIENCE_S = 0.0002, 2.0


def resize(fd: int, width: int, height: int) -> None:
    """Set the size of the terminal behind *fd*; programs on it get SIGWINCH."""
    if 0 < width < 65536 and 0 < height < 65536:
        fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))


async def until_raw(fd: int, is_running: Callable[[], bool]) -> None:
    """Return when the program on the other side of terminal *fd* has made it raw, or has ended.

    liblxc's programs do so with TCSAFLUSH, which throws away what was typed before.
    """
    # Polled: nothing tells of a change of terminal attributes. It takes some 5 ms, once per terminal.
    while is_running() and termios.tcgetattr(fd)[3] & termios.ICANON:  # noqa: ASYNC110
        await asyncio.sleep(0.002)


def own_terminal(pid: int, uid: int, is_running: Callable[[], bool]) -> bool:
    """Give the terminal that *pid*, a program of liblxc, makes inside to *uid* of the host; say if it was.

    liblxc opens it as root of the host, who is nobody inside, and its own chown there fails: then not even
    root could open its terminal by name. It is looked for until it is there, which takes 1 ms; blocks.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while is_running() and time.monotonic() < deadline:
        for number in _masters(pid):
            with contextlib.suppress(OSError):
                if _own(pid, number, uid):
                    return True
        time.sleep(_POLL_S)
    return False


def _masters(pid: int) -> list[int]:
    """The numbers of the descriptors by which *pid* holds the master of a terminal."""
    found = []
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{pid}/fd/{name}").endswith("/ptmx"):
                    found.append(int(name))
    return found


def _own(pid: int, number: int, uid: int) -> bool:
    """Raises: OSError."""
    with contextlib.ExitStack() as held:
        process = _held(held, os.pidfd_open(pid))
        master = _held(held, _descriptor(process, number))
        flags = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
        slave = _held(held, fcntl.ioctl(master, _TIOCGPTPEER, flags))
        about = os.fstat(slave)
        if not stat.S_ISCHR(about.st_mode) or os.major(about.st_rdev) not in _SLAVES:
            return False
        os.fchown(slave, uid, -1)  # its group is tty, by the mount
        return True


def _held(held: contextlib.ExitStack, fd: int) -> int:
    held.callback(os.close, fd)
    return fd


def _descriptor(process: int, number: int) -> int:
    """Return a copy of another process's descriptor. Raises: OSError."""
    return syscall(_PIDFD_GETFD, process, number, 0)
