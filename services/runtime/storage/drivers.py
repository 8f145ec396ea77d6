"""The storage drivers of this host: those that work, and why the others do not."""

from __future__ import annotations

import shutil
from pathlib import Path

from services.runtime.ports import StorageDriver
from services.runtime.storage import btrfs
from services.runtime.storage.dir import DirDriver

_OTHERS = {"zfs": "zpool", "lvm": "vgcreate", "ceph": "ceph"}


def available(state_dir: Path) -> tuple[dict[str, StorageDriver], dict[str, str]]:
    """Return drivers by name, and reasons by the name of each that cannot be used."""
    drivers: dict[str, StorageDriver] = {"dir": DirDriver(state_dir)}
    reasons = {name: _why_not(name, tool) for name, tool in _OTHERS.items()}
    if why := btrfs.unavailable_because():
        reasons["btrfs"] = why
    else:
        drivers["btrfs"] = btrfs.BtrfsDriver(state_dir)
    return drivers, reasons


def _why_not(name: str, tool: str) -> str:
    if not shutil.which(tool):
        return f"{tool} is not installed here, and Podium has no {name} driver yet"
    return f"Podium has no {name} driver yet"
