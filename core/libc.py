"""Calls of the C library for what Python has no function for, with its errors as Python tells them."""

from __future__ import annotations

import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)


def or_raise(result: int, path: str | None = None) -> int:
    """Return what a call of `libc` returned just now. Raises: OSError, naming *path*, if it says -1."""
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), path)
    return result


def syscall(number: int, *args: object, path: str | None = None) -> int:
    """Make a system call that the library has no function for. Raises: OSError, naming *path*."""
    return or_raise(int(libc.syscall(ctypes.c_long(number), *args)), path)
