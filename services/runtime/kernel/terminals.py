"""Terminals of commands: their size, and when the program on the other side is ready for input."""

from __future__ import annotations

import asyncio
import fcntl
import struct
import termios
from collections.abc import Callable


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
