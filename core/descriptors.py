"""Descriptors read and written from the event loop: in big pieces, and no faster than the other side."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os

_PIECE = 1 << 18
_PIPE_SIZE = 1 << 20
# How long what a command leaves running may be silent, and may write, until its output is taken as ended.
_QUIET_S, _LONGEST_S = 2.0, 10.0


def big_pipe() -> tuple[int, int]:
    """Return a pipe (read, write) that holds 1 MiB, or what the host allows."""
    read, write = os.pipe2(os.O_CLOEXEC)
    with contextlib.suppress(OSError):
        fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
    return read, write


class Reader:
    """The output of a process. After finish() it ends with the descriptor, or when that stays silent.

    A shell may end before what it writes through (`exec > >(tee log)`); a daemon that it started keeps
    the descriptor for ever. The first is waited for, the second for as long as *quiet_s* says.
    """

    def __init__(self, fd: int, *, terminal: bool = False, quiet_s: float = _QUIET_S) -> None:
        self.fd = fd
        self._terminal = terminal
        self._held = b""
        self._finishing = asyncio.Event()
        self._closed = asyncio.Event()
        self._quiet_s = quiet_s
        self._until = 0.0
        os.set_blocking(fd, False)

    def finish(self) -> None:
        """The process is gone, though what it left running may write on for a while."""
        if not self._finishing.is_set():
            self._until = asyncio.get_running_loop().time() + _LONGEST_S
        self._finishing.set()

    def close(self) -> None:
        """Forget the descriptor, which its owner is about to close: its number may be another's at once."""
        if self.fd >= 0:
            asyncio.get_running_loop().remove_reader(self.fd)
            self.fd = -1
        self._finishing.set()
        self._closed.set()

    async def read(self) -> bytes:
        """Return the next bytes; none at the end.

        liblxc makes the outer terminal write "\\r\\n" for every "\\n" of the inner one; that is undone.
        """
        data = await self._next()
        if not self._terminal:
            return data
        while data:
            data = self._held + data
            self._held = data[-1:] if data.endswith(b"\r") else b""
            if out := data[: len(data) - len(self._held)].replace(b"\r\n", b"\n"):
                return out
            data = await self._next()
        held, self._held = self._held, b""
        return held

    async def _next(self) -> bytes:
        while self.fd >= 0:
            try:
                return os.read(self.fd, _PIECE)
            except BlockingIOError:
                if not await self._goes_on(self.fd):
                    return b""
            except OSError as exc:
                if exc.errno == errno.EIO:  # a terminal whose other side is closed
                    return b""
                raise
        return b""

    async def _goes_on(self, fd: int) -> bool:
        """Wait until there is more, or the end. False: it stays silent, or has gone on for too long."""
        if not self._finishing.is_set():
            return await self._readable(fd, self._finishing, None)
        left = min(self._quiet_s, self._until - asyncio.get_running_loop().time())
        return left > 0 and await self._readable(fd, self._closed, left)

    async def _readable(self, fd: int, other: asyncio.Event, timeout_s: float | None) -> bool:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_reader(fd, ready.set)
        waits = [asyncio.ensure_future(event.wait()) for event in (ready, other)]
        try:
            done, _ = await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if self.fd == fd:
                loop.remove_reader(fd)
            for wait in waits:
                wait.cancel()
        return bool(done)


async def readable(fd: int) -> None:
    """Wait until there is something to read, or the end."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(fd, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(fd)


async def write_all(fd: int, data: bytes) -> bool:
    """Write *data* to a non-blocking descriptor; say whether the other side still took it."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            await writable(fd)
        except OSError:
            return False
    return True


async def writable(fd: int) -> None:
    """Wait until something can be written, or nobody reads any more."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_writer(fd, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(fd)


class Writer:
    """The writing end of a pipe, which is its to close."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        os.set_blocking(fd, False)

    async def write(self, data: bytes) -> bool:
        """Write all of *data*; say whether the other side still took it."""
        return self._fd >= 0 and await write_all(self._fd, data)

    def duplicate(self) -> int:
        """Return another descriptor of the pipe, the caller's to close."""
        return os.dup(self._fd)

    def close(self) -> None:
        """Repeatable. Not while a write waits, unless its task is cancelled."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
