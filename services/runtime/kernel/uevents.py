"""Tell a guest of a device as the kernel would: udev inside then names it and runs its rules.

The kernel passes on what who rules a network namespace sends it, with a number and as its own word
(uevent_net_rcv_skb in linux/lib/kobject_uevent.c). udev believes root of its own user namespace only, so
the message carries the ids that the guest's root has here.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from core.libc import libc, or_raise

_CLONE_NEWNET = 0x40000000
# Source: linux/netlink.h, lib/kobject_uevent.c (UEVENT_SEND).
_KOBJECT_UEVENT, _SEND, _REQUEST_ACK, _ERROR = 15, 16, 0x5, 2
_HEADER = struct.Struct("=IHHII")
_ANSWER_S = 1.0
Properties = Mapping[str, str]


def describe(kind: str, major: int, minor: int, *, sys: Path = Path("/sys")) -> dict[str, str]:
    """Return what the kernel tells of a device ("c" or "b") besides what happened; nothing if it has none."""
    folder = sys / "dev" / ("char" if kind == "c" else "block") / f"{major}:{minor}"
    try:
        lines = (folder / "uevent").read_text().splitlines()
        place = folder.resolve(strict=True).relative_to(sys.resolve())
        subsystem = (folder / "subsystem").resolve(strict=True).name
    except (OSError, ValueError):
        return {}
    found = {"DEVPATH": f"/{place}", "SUBSYSTEM": subsystem}
    return found | dict(line.split("=", 1) for line in lines if "=" in line)


def message(action: str, properties: Properties) -> bytes:
    """Return the words of the kernel without the number, which it adds."""
    lines = [f"{action}@{properties['DEVPATH']}", f"ACTION={action}"]
    lines += [f"{key}={value}" for key, value in properties.items()]
    return b"".join(os.fsencode(line) + b"\0" for line in lines)


def send(guest: int, owner: tuple[int, int], action: str, properties: Properties) -> None:
    """Send "add" or "remove" into the guest that *guest* (its /proc folder) stands for.

    *owner*: ids of its root on this host. Blocks shortly. Raises: OSError.
    """
    with ThreadPoolExecutor(1) as alone:  # the namespace belongs to the thread, which ends with it
        alone.submit(_send, guest, owner, message(action, properties)).result()


def _send(guest: int, owner: tuple[int, int], body: bytes) -> None:
    namespace = os.open("ns/net", os.O_RDONLY | os.O_CLOEXEC, dir_fd=guest)
    try:
        or_raise(libc.setns(namespace, _CLONE_NEWNET))
    finally:
        os.close(namespace)
    who = struct.pack("iII", os.getpid(), *owner)
    data = _HEADER.pack(_HEADER.size + len(body), _SEND, _REQUEST_ACK, 1, 0) + body
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _KOBJECT_UEVENT) as sock:
        sock.settimeout(_ANSWER_S)
        sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, who)])
        answer = sock.recv(1 << 12)
    kind, error = _HEADER.unpack_from(answer)[1], struct.unpack_from("=i", answer, _HEADER.size)[0]
    if kind == _ERROR and error:
        raise OSError(-error, os.strerror(-error))
