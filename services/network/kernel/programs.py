"""Run a program of the host and find its processes."""

from __future__ import annotations

import asyncio
from pathlib import Path

_TIMEOUT_S = 20.0


async def run(argv: list[str]) -> tuple[int, str]:
    """Return exit code and output of a program. Raises: TimeoutError."""
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), _TIMEOUT_S)
    return process.returncode or 0, output.decode(errors="replace")


def cmdline(pid: int) -> list[str]:
    """Return the arguments of a process; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def has_ended(pid: int) -> bool:
    """Return whether a process is gone or a zombie: only then are its sockets closed.

    Its pid file and its command line vanish earlier, while a successor could not bind yet.
    """
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True
