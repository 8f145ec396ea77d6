"""The process of one session: become root of the guest and nothing more, then serve until the end.

Descriptor 0 is a socket, from which the guest's root comes first. With the argument "mapped" the process
makes a user namespace, says "u" and waits until its ids are mapped.
"""

from __future__ import annotations

import ctypes
import os
import resource
import socket
import sys
from collections.abc import Iterator

from services.runtime.sftp.server import Server
from services.runtime.sftp.wire import MOST_PACKET, BadPacket

_NEW_USER = 0x10000000
_MEMORY = 256 << 20
_FILES = 256
_PIECE = 256 << 10


def main() -> None:
    line = socket.socket(fileno=0)
    _, descriptors, _, _ = socket.recv_fds(line, 1, 1)
    if "mapped" in sys.argv[1:]:
        _map_ids(line)
    own = os.open("/proc/self/fd", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    _enter_root(*descriptors)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_FILES, _FILES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _serve(line, own)


def _map_ids(line: socket.socket) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_USER):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    line.sendall(b"u")
    if line.recv(1) != b"g":
        raise SystemExit(1)


def _enter_root(root: int) -> None:
    os.fchdir(root)
    os.close(root)
    os.chroot(".")
    # Whatever would be loaded from here on lies in the guest's root, also the encoding that a source
    # file in a traceback names: nothing is.
    sys.meta_path.clear()
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    os.umask(0o022)


def _serve(line: socket.socket, own: int) -> None:
    """Answer all that has come before answers are sent: clients ask for many pieces of a file at once."""
    server, waiting = Server(own), bytearray()
    while data := line.recv(_PIECE):
        waiting += data
        try:
            for answers in _answered(server, waiting):
                line.sendall(answers)
        except BadPacket:
            return


def _answered(server: Server, waiting: bytearray) -> Iterator[bytes]:
    """Take whole packets from *waiting* and yield the answers, in pieces of a good size."""
    answers, at = bytearray(), 0
    while (size := _size_at(waiting, at)) is not None:
        answers += server.answer(bytes(waiting[at + 4 : at + 4 + size]))
        at += 4 + size
        if len(answers) >= _PIECE:
            yield bytes(answers)
            answers.clear()
    del waiting[:at]
    if answers:
        yield bytes(answers)


def _size_at(waiting: bytearray, at: int) -> int | None:
    """Return the size of the packet that begins *at*, if it is there as a whole. Raises: BadPacket."""
    if len(waiting) < at + 4:
        return None
    size = int.from_bytes(waiting[at : at + 4], "big")
    if not 0 < size <= MOST_PACKET:
        raise BadPacket("the packet is too large")
    return size if len(waiting) >= at + 4 + size else None
