"""Ask instances whether they are well: by a command inside, a connection, or the first line of an answer.

What a guest answers is cut short and only matched, never parsed: this process is root.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from pathlib import Path

from services.runtime.kernel.processes import Child

_GOOD = re.compile(rb"HTTP/1\.[01] [23][0-9][0-9][ \r\n]")
_LINE = 64


class HostProbes:
    """Implements ports.Probes."""

    async def run(self, argv: list[str], program: str, timeout_s: float) -> bool:
        child = Child(argv, program=program or None)
        try:
            return await asyncio.wait_for(child.wait(), timeout_s) == 0
        except TimeoutError:
            _kill_tree(child.pid)
            await child.wait()
            return False

    async def connects(self, address: str, port: int, timeout_s: float) -> bool:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(timeout_s):
                _, writer = await asyncio.open_connection(address, port)
            writer.close()
            return True
        return False

    async def answers(self, address: str, port: int, path: str, timeout_s: float) -> bool:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(timeout_s):
                return await _get(address, port, path)
        return False


def _kill_tree(pid: int) -> None:
    """Kill a process and what it started: what was entered into a guest outlives who brought it there."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):
            found += [
                int(child) for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
            ]
    for victim in reversed(found):
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)


async def _get(address: str, port: int, path: str) -> bool:
    reader, writer = await asyncio.open_connection(address, port, limit=_LINE)
    try:
        host = f"[{address}]" if ":" in address else address
        writer.write(f"GET {path} HTTP/1.0\r\nHost: {host}:{port}\r\nUser-Agent: podium\r\n\r\n".encode())
        await writer.drain()
        line = b""
        while len(line) < _LINE and b"\n" not in line and (more := await reader.read(_LINE)):
            line += more
        return bool(_GOOD.match(line))
    finally:
        writer.close()
