"""Command lines that enter a container with the confinement of its init."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def lxc_attach_argv(
    name: str, lxcpath: Path, user: int, group: int, environment: Mapping[str, str]
) -> list[str]:
    """Return the argv to put before a command. Nothing of this service's environment goes along."""
    argv = ["lxc-attach", "-q", "-n", name, "-P", str(lxcpath), "--clear-env"]
    for key, value in environment.items():
        argv += ["-v", f"{key}={value}"]
    if user or group:
        argv += ["-u", str(user), "-g", str(group)]
    return [*argv, "--"]


def lxc_console_argv(name: str, lxcpath: Path) -> list[str]:
    """Return the argv that relays the console; -e -1 leaves every byte to the user."""
    return ["lxc-console", "-q", "-n", name, "-P", str(lxcpath), "-t", "0", "-e", "-1"]
