"""The storage drivers of this host: those that work, and why the others do not."""

from __future__ import annotations

import shutil
from pathlib import Path

from services.runtime.ports import StorageDriver
from services.runtime.storage import btrfs, ceph, lvm, zfs
from services.runtime.storage.dir import DirDriver

# What each needs of the host: a tool, and a module of the kernel.
_OTHERS = {
    "cephfs": ("ceph", "ceph"),
    "cephobject": ("radosgw-admin", ""),
}


def available(state_dir: Path) -> tuple[dict[str, StorageDriver], dict[str, str]]:
    """Return drivers by name, and reasons by the name of each that cannot be used."""
    drivers: dict[str, StorageDriver] = {"dir": DirDriver(state_dir)}
    reasons = {name: _why_not(name, *needs) for name, needs in _OTHERS.items()}
    if why := btrfs.unavailable_because():
        reasons["btrfs"] = why
    else:
        drivers["btrfs"] = btrfs.BtrfsDriver(state_dir)
    if why := zfs.unavailable_because():
        reasons["zfs"] = why
    else:
        drivers["zfs"] = zfs.ZfsDriver(state_dir)
    if why := lvm.unavailable_because():
        reasons["lvm"] = why
    else:
        drivers["lvm"] = lvm.LvmDriver(state_dir)
    if why := ceph.unavailable_because():
        reasons["ceph"] = why
    else:
        drivers["ceph"] = ceph.CephDriver(state_dir)
    return drivers, reasons


def _why_not(name: str, tool: str, module: str) -> str:
    lacks = [] if shutil.which(tool) else [f'Required tool "{tool}" is missing']
    if module and not Path("/sys/module", module).exists():
        lacks.append(f'the kernel module "{module}" is not loaded')
    return "; ".join([*lacks, f"Podium has no {name} driver yet, use btrfs, zfs, lvm, ceph or dir"])
