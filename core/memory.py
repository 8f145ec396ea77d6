"""Memory that a process gives back now and then: what a busy time or its start needed, and nobody since."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

_TRIM_EVERY_S = 10.0
_FIRST_DROP_S = 5.0
_DROP_EVERY_S = 60.0
_MADV_DONTNEED = 4  # source: madvise(2)
_SMAPS, _STATM = Path("/proc/self/smaps"), Path("/proc/self/statm")
# A collection stops the process for as long as it takes to look at everything, some 20 ms.
_MUCH = 32 << 20


def tidy(loop: asyncio.AbstractEventLoop) -> None:
    """Tidy up for as long as *loop* runs."""
    libc = ctypes.CDLL(None)
    _trim(loop, libc, resident())
    loop.call_later(_FIRST_DROP_S, _drop, loop, libc)


def _trim(loop: asyncio.AbstractEventLoop, libc: ctypes.CDLL, before: int) -> None:
    """Python collects cycles by their number, whatever hangs on them, and glibc keeps holes for ever."""
    if has_grown := resident() > before + _MUCH:
        gc.collect()
    with contextlib.suppress(AttributeError):  # another libc
        libc.malloc_trim(0)
    loop.call_later(_TRIM_EVERY_S, _trim, loop, libc, resident() if has_grown else min(before, resident()))


def resident() -> int:
    """Return how many bytes of memory this process has."""
    return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _drop(loop: asyncio.AbstractEventLoop, libc: ctypes.CDLL) -> None:
    """Unmap pages of programs and libraries; what is used comes back, half never does."""
    with contextlib.suppress(OSError), _SMAPS.open() as smaps:
        for start, size in untouched(smaps):
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), _MADV_DONTNEED)
    loop.call_later(_DROP_EVERY_S, _drop, loop, libc)


def untouched(smaps: Iterable[str]) -> Iterator[tuple[int, int]]:
    """Yield (address, bytes) of mappings that are as in their file: read-only, and no page was ever changed.

    A library's relocated data is read-only too, but exists nowhere else: its pages count as anonymous.
    Source: proc_pid_smaps(5).
    """
    start = end = 0
    is_file = False
    for line in smaps:
        words = line.split()
        if not words[0].endswith(":"):
            start, end = (int(part, 16) for part in words[0].split("-"))
            is_file = words[1] in ("r-xp", "r--p") and len(words) > 5 and words[5].startswith("/")
        elif is_file and words[:2] == ["Anonymous:", "0"]:
            yield start, end - start
