"""Instances that are for one program: what an image says of it, as keys, and back. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

from core.applications import signal_number
from core.configkeys.instance import INSTANCE
from core.errors import Invalid

_KEYS = "oci."
_ENTRYPOINT, _VARIABLE = f"{_KEYS}entrypoint", "environment."


@dataclass(frozen=True)
class Application:
    """A program and how it is run; environment only as an image names it."""

    command: tuple[str, ...]
    cwd: str = "/"
    uid: int = 0
    gid: int = 0
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_signal: str = "SIGTERM"

    @property
    def stop_number(self) -> int:
        return signal_number(self.stop_signal)


def keys_of(application: Application) -> dict[str, str]:
    """Return the keys of an instance that is to run what an image says."""
    found = {
        "oci.cwd": application.cwd,
        "oci.uid": str(application.uid),
        "oci.gid": str(application.gid),
        "oci.stop_signal": application.stop_signal,
        # A key without a value is one that is not there.
        **{f"{_VARIABLE}{name}": value for name, value in application.environment.items() if value},
    }
    return {_ENTRYPOINT: shlex.join(application.command), **found} if application.command else found


def replaced(config: Mapping[str, str], application: Application | None) -> dict[str, str]:
    """Return keys whose program is that of another image; of the environment what was set before wins."""
    kept = {key: value for key, value in config.items() if not key.startswith(_KEYS)}
    if application is None:
        return kept
    said = keys_of(application)
    return {**said, **kept}


def of(config: Mapping[str, str]) -> Application | None:
    """Return the program of an expanded configuration; None for a whole system."""
    if not config.get(_ENTRYPOINT):
        return None
    cwd, uid, gid, stop = (
        INSTANCE.get(config, f"oci.{name}") for name in ("cwd", "uid", "gid", "stop_signal")
    )
    return Application(tuple(shlex.split(config[_ENTRYPOINT])), cwd, int(uid), int(gid), stop_signal=stop)


def need_command(config: Mapping[str, str]) -> None:
    """Raises: Invalid where an image of a program names none, nor does anything else."""
    if not config.get(_ENTRYPOINT):
        raise Invalid(
            "NO_COMMAND", f"The image names no command; give one as {_ENTRYPOINT}", about=_ENTRYPOINT
        )
