"""The inits of applications: held from before they begin, so that even a short one's end is known.

What is held is a descriptor. Who takes over after this process died holds none, and opens one of what runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import stat
from collections.abc import Callable
from pathlib import Path

from services.runtime.kernel.endings import exit_code, wait_status
from services.runtime.ports import EnginePlan

# Device numbers of terminals of a devpts. Source: Documentation/admin-guide/devices.txt, "136-143 char".
_LOOKS, _PAUSE_S = 300, 0.003
_NAME = ".init"
_IGNORED = 1 << (signal.SIGTTIN - 1) | 1 << (signal.SIGTTOU - 1)
_TERMINALS = range(136, 144)


class Inits:
    def __init__(self) -> None:
        self._held: dict[str, int] = {}

    def hold(self, plan: EnginePlan, pid: int) -> None:
        """Hold init *pid*, which has not begun, and give its user the console that is its output."""
        self.let_go(plan.id)
        if (fd := opened(pid)) >= 0:
            self._held[plan.id] = fd
        if plan.application and (plan.application.uid or plan.application.gid):
            owner = plan.idmap.owner(plan.application.uid, plan.application.gid)
            with contextlib.suppress(OSError):
                _own(Path(f"/proc/{pid}/root/dev/pts/0"), owner)

    def is_held(self, id: str) -> bool:
        return id in self._held

    def copy(self, id: str, pid: int) -> int:
        """Return a descriptor of an instance's init, that its caller closes; -1 where there is none."""
        return os.dup(self._held[id]) if id in self._held else opened(pid)

    def code(self, id: str) -> int | None:
        """Return what a held init left with; None while it runs or where that is not told."""
        return exit_code(wait_status(self._held[id])) if id in self._held else None

    def let_go(self, id: str) -> None:
        if (fd := self._held.pop(id, -1)) >= 0:
            os.close(fd)


async def listens(pid: int) -> bool:
    """Wait until init *pid* passes signals on; say whether it does.

    One that comes before is lost: the init of a namespace is sent none that it does not expect.
    """
    return await _until(lambda: _has_set_out(pid))


async def began(pid: int) -> bool:
    """Wait until init *pid* has started the application or ended; say whether it has."""
    return await _until(lambda: not pid or not _status(pid) or _has_child(pid))


async def _until(is_so: Callable[[], bool]) -> bool:
    for _ in range(_LOOKS):
        if await asyncio.to_thread(is_so):
            return True
        await asyncio.sleep(_PAUSE_S)
    return False


def _has_set_out(pid: int) -> bool:
    """Say whether tini has said which signals it takes: then it ignores those of background terminals."""
    found = re.search(r"^SigIgn:\s*([0-9a-f]+)", _status(pid), re.MULTILINE)
    return found is not None and int(found[1], 16) & _IGNORED == _IGNORED


def _has_child(pid: int) -> bool:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return any(Path(f"/proc/{child}/comm").read_text().strip() != _NAME for child in children)
    except OSError:
        return False


def _status(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/status").read_text()
    return ""


def opened(pid: int) -> int:
    """Return a descriptor of process *pid*, -1 when there is none."""
    with contextlib.suppress(OSError):
        return os.pidfd_open(pid) if pid else -1
    return -1


def _own(path: Path, owner: tuple[int, int]) -> None:
    """Give away a terminal and nothing else. Only the engine has written below this path so far."""
    place = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(place)
        if stat.S_ISCHR(found.st_mode) and os.major(found.st_rdev) in _TERMINALS:
            os.chown(f"/proc/self/fd/{place}", *owner)
    finally:
        os.close(place)
