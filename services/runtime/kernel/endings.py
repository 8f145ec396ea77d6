"""How a process ended that is no child of ours: the kernel tells who holds a pidfd (Linux 6.15).

Source: include/uapi/linux/pidfd.h, PIDFD_GET_INFO and PIDFD_INFO_EXIT.
"""

from __future__ import annotations

import fcntl
import os
import signal
import struct

_INFO = struct.Struct("=QQ11Ii")
_GET_INFO = 3 << 30 | _INFO.size << 16 | 0xFF << 8 | 11  # _IOWR(0xFF, 11, struct pidfd_info)
_EXIT = 1 << 3
# reboot(2) inside a pid namespace ends its init by one of these: power off and halt, or restart.
_BY_REBOOT = (signal.SIGINT, signal.SIGHUP)


def wait_status(pidfd: int) -> int | None:
    """Return the wait status of a process that has ended and was reaped; None where it is not told."""
    try:
        answer = fcntl.ioctl(pidfd, _GET_INFO, _INFO.pack(_EXIT, *(0,) * 13))
    except OSError:
        return None
    mask, *_, status = _INFO.unpack(answer)
    return int(status) if mask & _EXIT else None


def exit_code(status: int | None) -> int | None:
    """Return what a process left with, as shells tell it: 128 and more for a signal."""
    if status is None:
        return None
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def is_failure(status: int | None) -> bool | None:
    """Say whether an init that ended so failed: killed, crashed, or left with a code. None when not known."""
    if status is None:
        return None
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status) not in _BY_REBOOT
    return os.WEXITSTATUS(status) != 0
