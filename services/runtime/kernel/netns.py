"""Work inside the network namespace of a guest, in a thread that ends with it."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

_CLONE_NEWNET = 0x40000000
# Source: netdevice(7).
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_libc = ctypes.CDLL(None, use_errno=True)


def set_up(pid: int, names: Sequence[str]) -> None:
    """Set interfaces of the guest with process *pid* up. Blocks shortly. Raises: OSError."""
    # A namespace belongs to a thread; this one is not used for anything else, so nothing is to be restored.
    with ThreadPoolExecutor(1) as alone:
        alone.submit(_set_up, pid, names).result()


def _set_up(pid: int, names: Sequence[str]) -> None:
    fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(fd, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    finally:
        os.close(fd)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        for name in names:
            request = struct.pack("16sH14x", name.encode(), 0)
            (flags,) = struct.unpack_from("H", fcntl.ioctl(sock, _SIOCGIFFLAGS, request), 16)
            fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sH14x", name.encode(), flags | _IFF_UP))
