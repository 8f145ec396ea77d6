"""Programs in sealed memory.

A program of liblxc that does not run from sealed memory copies itself there and starts again, so that
no guest can write to it through /proc (CVE-2019-5736; source: liblxc, rexec.c). That costs 1.5 ms a
start. With a sealed copy made once the protection is the same, and each start is the only one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


@dataclass(frozen=True)
class _Copy:
    fd: int
    of: tuple[int, int, int]


class SealedPrograms:
    """Copies of programs, made at their first use and again when they were upgraded."""

    def __init__(self) -> None:
        self._copies: dict[str, _Copy] = {}

    def path(self, name: str) -> str:
        """Return what to execute for program *name*; that name itself when it cannot be copied."""
        try:
            found = os.stat(where := shutil.which(name) or name)
            version = (found.st_ino, found.st_size, found.st_mtime_ns)
            copy = self._copies.get(name)
            if copy is None or copy.of != version:
                if copy:
                    os.close(copy.fd)
                copy = self._copies[name] = _Copy(_sealed(Path(where)), version)
        except OSError:
            return name
        return f"/proc/{os.getpid()}/fd/{copy.fd}"

    def close(self) -> None:
        for copy in self._copies.values():
            with contextlib.suppress(OSError):
                os.close(copy.fd)
        self._copies.clear()


def _sealed(program: Path) -> int:
    fd = os.memfd_create(program.name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.write(fd, program.read_bytes())
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except OSError:
        os.close(fd)
        raise
    return fd
