"""Programs that this service starts, and processes of which it must know the end.

They are started by vfork and waited for by pidfd: the event loop's own way forks this whole process,
which takes 2.4 ms here against 0.15.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Sequence
from typing import IO

from core.descriptors import readable
from services.runtime.domain.idmaps import IdMap

_File = int | IO[bytes] | None


class Child:
    """A program of ours. Its end is noticed by wait() only, which one task may call."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        stdin: _File = subprocess.DEVNULL,
        stdout: _File = subprocess.DEVNULL,
        stderr: _File = subprocess.DEVNULL,
        cwd: str = "/",
        new_session: bool = True,
        program: str | None = None,
        env: dict[str, str] | None = None,
    ) -> None:
        """Start *argv*; *program* is what to execute if not the first of it. Raises: OSError.

        *env*: its environment, None for ours.
        """
        self._process = subprocess.Popen(
            argv,
            executable=program,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            cwd=cwd,
            env=env,
            start_new_session=new_session,
        )
        self.pid = self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.returncode is None

    async def wait(self) -> int:
        """Return the exit status; -n when signal n ended it."""
        await gone(self.pid)
        return self._process.wait()

    def kill(self) -> None:
        if self.is_running:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()


async def gone(pid: int) -> None:
    """Return when process *pid* has ended, whoever its parent is."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        await readable(fd)
    finally:
        os.close(fd)


def open_root(pid: int, id: str, idmap: IdMap) -> int:
    """Return a descriptor of the root of process *pid*; else as open_guest."""
    process = open_guest(pid, id, idmap)
    try:
        return os.open("root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=process)
    finally:
        os.close(process)


def open_guest(pid: int, id: str, idmap: IdMap) -> int:
    """Return a descriptor of /proc/PID, which must be of the guest *id* with that map.

    Numbers of processes come again: without the look, a guest that ended this moment could lend its
    place to another guest or, as root of everything, to the host. Raises: OSError, ProcessLookupError.
    """
    process = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if not _is_guest(process, id, idmap):
            raise ProcessLookupError(f"{pid} is another process now")
    except OSError:
        os.close(process)
        raise
    return process


def _is_guest(process: int, id: str, idmap: IdMap) -> bool:
    """Look whether *process*, a folder of /proc, is of that guest. A privileged one is told by its cgroup."""
    if idmap.is_privileged:
        with open(os.open("cgroup", os.O_RDONLY | os.O_CLOEXEC, dir_fd=process)) as file:
            return f":/podium/{id}" in file.read(1 << 16)
    with open(os.open("uid_map", os.O_RDONLY | os.O_CLOEXEC, dir_fd=process)) as file:
        first = file.readline().split()
    return first[:2] == ["0", str(idmap.root[0])]
