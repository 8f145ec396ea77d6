"""An instance as exec, files and figures see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from core.errors import WrongState
from services.runtime.domain.idmaps import IdMap

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Target:
    """pid is that of its init as the host numbers it, 0 when stopped. config is after profiles."""

    id: str
    project: str
    name: str
    status: str
    pid: int = 0
    idmap: IdMap = field(default_factory=IdMap)
    config: Mapping[str, str] = field(default_factory=dict)
    folder: Path = Path()

    @property
    def logs(self) -> Path:
        return self.folder / "logs"


def refuse_unless_running(target: Target) -> None:
    """Raises: WrongState in the words clients know."""
    if target.status == "frozen":
        raise WrongState("FROZEN", "Instance is frozen", about=target.name)
    if target.status != "running" or not target.pid:
        raise WrongState("NOT_RUNNING", "Instance is not running", about=target.name)


def environment_of(asked: Mapping[str, str], config: Mapping[str, str], user: int) -> dict[str, str]:
    """Return what a command sees: what was asked for, then environment.* keys, then defaults."""
    prefix = "environment."
    own = {key.removeprefix(prefix): value for key, value in config.items() if key.startswith(prefix)}
    defaults = {"PATH": _PATH, "LANG": "C.UTF-8"}
    if user == 0:
        defaults |= {"HOME": "/root", "USER": "root"}
    return {**defaults, **own, **asked}
