"""The terminal we run in: its size, raw mode, and the signals it sends."""

from __future__ import annotations

import os
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager


def is_terminal(*fds: int) -> bool:
    return all(os.isatty(fd) for fd in fds)


def size() -> tuple[int, int]:
    """Return (columns, rows); (0, 0) without a terminal."""
    for fd in (1, 0, 2):
        try:
            found = os.get_terminal_size(fd)
            return found.columns, found.lines
        except OSError:
            continue
    return 0, 0


@contextmanager
def raw() -> Iterator[None]:
    """Pass every key on as it is; the terminal is put back whatever happens."""
    if not is_terminal(0):
        yield
        return
    before = termios.tcgetattr(0)
    tty.setraw(0)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def write_all(fd: int, data: bytes) -> None:
    """Write everything, also to a pipe that takes it in pieces."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def warn(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
