"""Work inside the network namespace of a guest, in a thread that ends with it."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from core.errors import WrongState
from core.libc import libc, or_raise
from core.logs import get_logger
from services.runtime.kernel.mountapi import is_mount, unmount

log = get_logger(__name__)

_CLONE_NEWNET = 0x40000000
# Source: netdevice(7).
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_MS_BIND = 4096
_PROGRAM_S = 20


def set_up(pid: int, names: Sequence[str]) -> None:
    """Set interfaces of the guest with process *pid* up. Blocks shortly. Raises: OSError."""
    # A namespace belongs to a thread; this one is not used for anything else, so nothing is to be restored.
    with ThreadPoolExecutor(1) as alone:
        alone.submit(_set_up, pid, names).result()


def _set_up(pid: int, names: Sequence[str]) -> None:
    fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        or_raise(libc.setns(fd, _CLONE_NEWNET))
    finally:
        os.close(fd)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        for name in names:
            request = struct.pack("16sH14x", name.encode(), 0)
            (flags,) = struct.unpack_from("H", fcntl.ioctl(sock, _SIOCGIFFLAGS, request), 16)
            fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sH14x", name.encode(), flags | _IFF_UP))


def keep(path: Path, pid: int) -> None:
    """Mount the network namespace of *pid* at *path*, so that it stays until then. Raises: WrongState."""
    if path.exists() and is_mount(path):
        return
    path.touch(mode=0o600)
    if libc.mount(f"/proc/{pid}/ns/net".encode(), bytes(path), None, _MS_BIND, None):
        raise WrongState("NETWORK_NOT_KEPT", f"The guest's network cannot be kept: {_error()}")


def give_back(path: Path, given: Mapping[str, str]) -> None:
    """Take *given* (inside name to host name) out of the namespace at *path*, and let it go."""
    if not path.exists():
        return
    if is_mount(path):
        for name, parent in given.items():
            take_out(path, name, parent)
        unmount(path)
    path.unlink(missing_ok=True)


def take_out(namespace: Path, name: str, parent: str) -> None:
    """Remove an interface from a namespace, or move it to ours as *parent*, if it is there.

    By the program: a namespace is entered by a thread, and no netlink library is loaded here.
    """
    enter = ["nsenter", f"--net={namespace}", "ip", "link"]
    if not parent:
        _run([*enter, "delete", "dev", name])
        return
    _run([*enter, "set", "dev", name, "down"])
    _run([*enter, "set", "dev", name, "netns", str(os.getpid()), "name", parent])


def give_addresses(pid: int, name: str, addresses: Sequence[str], gateways: Mapping[str, str]) -> None:
    """Set addresses, with prefix, and routers of an interface that is up. What is there already stays."""
    enter = ["nsenter", f"--net=/proc/{pid}/ns/net", "ip"]
    for address in addresses:
        _run([*enter, "address", "add", address, "dev", name])
    for router in gateways.values():
        _run([*enter, "route", "add", "default", "via", router, "dev", name])


def _run(argv: list[str]) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=_PROGRAM_S, check=False)
    if done.returncode:  # most often it is not there, since the engine was faster
        log.info("interface_not_changed", command=argv[-3:], error=done.stderr.strip()[:200])


def _error() -> str:
    return os.strerror(ctypes.get_errno())
