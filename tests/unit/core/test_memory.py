"""What may be given back to the kernel, told from what exists in memory only."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import weakref

import pytest

from core import memory
from core.memory import tidy, untouched

_SMAPS = """\
55e0-55f0 r--p 00000000 08:01 1   /usr/bin/python3
Rss:                 8 kB
Anonymous:           0 kB
7000-7a00 r-xp 00000000 08:01 2   /usr/lib/libc.so.6
Anonymous:           0 kB
7a00-7b00 r--p 00000000 08:01 2   /usr/lib/libc.so.6
Anonymous:           4 kB
7b00-7c00 rw-p 00000000 08:01 2   /usr/lib/libc.so.6
Anonymous:           0 kB
7c00-7d00 r--p 00000000 00:00 0
Anonymous:           0 kB
7d00-7e00 r-xp 00000000 00:00 0   [vdso]
Anonymous:           0 kB
7e00-7f00 r--s 00000000 00:00 0   /dev/shm/x
Anonymous:           0 kB
"""


def test_only_what_is_as_in_its_file_is_given_back() -> None:
    """Relocated, writable, anonymous and shared pages exist nowhere else, or are another's business."""
    assert list(untouched(_SMAPS.splitlines())) == [(0x55E0, 0x10), (0x7000, 0xA00)]


def test_a_process_that_gave_back_its_pages_goes_on() -> None:
    """A wrong page would crash it, so another process tries."""
    program = (
        "import asyncio, core.memory as m\n"
        "import grpc, json\n"
        "m._TRIM_EVERY_S = m._FIRST_DROP_S = m._DROP_EVERY_S = 0.02\n"
        "loop = asyncio.new_event_loop()\n"
        "m.tidy(loop)\n"
        "loop.run_until_complete(asyncio.sleep(0.3))\n"
        "loop.run_until_complete(grpc.aio.insecure_channel('unix:/nowhere').close())\n"
        "print(json.dumps({'is': 'alive'}))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, '{"is": "alive"}\n'), done.stderr


async def test_tidying_ends_with_its_loop() -> None:
    tidy(asyncio.get_running_loop())


async def test_what_hangs_on_cycles_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large requests that were refused hung on a few objects each, which Python did not collect for hours."""

    class Node:
        def __init__(self) -> None:
            self.itself = self
            self.much = bytearray(48 << 20)
            self.much[:: 1 << 12] = b"x" * (48 << 8)

    monkeypatch.setattr(memory, "_TRIM_EVERY_S", 0.05)
    monkeypatch.setattr(memory, "_drop", lambda loop, libc: None)
    gc.disable()
    try:
        memory.tidy(asyncio.get_running_loop())
        there = weakref.ref(Node())
        async with asyncio.timeout(5):
            while there() is not None:
                await asyncio.sleep(0.01)
    finally:
        gc.enable()
