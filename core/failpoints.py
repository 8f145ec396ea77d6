"""Named places where a test may end this process or fail a step, to prove that all is mended.

Off unless the process was started with `PODIUM_FAILPOINTS=1`; no request can switch it on. A test then
arms a point by a file `<state>/run/failpoints/NAME` that says "die" or "fail". Only files of root count.
A point is hit once: its file is removed before anything happens, so a restart gets past it.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from core.errors import WrongState

DIE, FAIL = "die", "fail"
_ENABLED = os.environ.get("PODIUM_FAILPOINTS") == "1"
_declared: dict[str, None] = {}


def folder(state_dir: Path) -> Path:
    return state_dir / "run" / "failpoints"


def declared_file(state_dir: Path, service: str) -> Path:
    """Return where a service lists its points, in the order of its steps: no test can forget one."""
    return state_dir / "run" / f"{service}.failpoints"


def failpoint(name: str) -> None:
    """Die or fail here if a test armed *name*. Raises: WrongState FAILPOINT."""
    if not _ENABLED:
        return
    match _take(folder(_state_dir()) / name):
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "fail":
            raise WrongState("FAILPOINT", f"The test made {name} fail", about=name)


def declare(*names: str) -> None:
    """Note that this process has the points *names*."""
    _declared.update(dict.fromkeys(names))


def publish(service: str) -> None:
    """Write down what was declared, for the tests."""
    if _ENABLED:
        declared_file(_state_dir(), service).write_text("\n".join(_declared) + "\n")


def _state_dir() -> Path:
    return Path(os.environ["PODIUM_DIR"])


def _take(path: Path) -> str:
    """Return what the file of a point says, and remove it; empty when the point is not armed."""
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(fd) as file:
            if os.fstat(fd).st_uid == 0:
                path.unlink()
                return file.read(16).strip()
    return ""
