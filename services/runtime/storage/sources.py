"""What pools are made on, as the drivers with disks of their own look at it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from core.errors import Invalid, WrongState

GIB = 1 << 30


def default_size(folder: Path) -> int:
    """Return the bytes of a pool's file where nobody said: a fifth of what is free, 5 to 30 GiB."""
    free = shutil.disk_usage(folder).free
    return min(max(free // 5, 5 * GIB), 30 * GIB) // GIB * GIB


def make_file(path: Path, size: int) -> None:
    """Make a file of *size* bytes of holes that only root can read. Raises: OSError."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, size)
    finally:
        os.close(fd)


def signature(device: Path) -> str:
    """Return the type of what a device holds; empty when it is blank. Source: blkid(8), exit status 2."""
    done = subprocess.run(
        ["blkid", "-p", "-o", "value", "-s", "TYPE", "-s", "PTTYPE", str(device)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if done.returncode not in (0, 2):
        raise WrongState("STORAGE_FAILED", f"blkid could not read {device}: {done.stderr.strip()[:200]}")
    return done.stdout.strip().replace("\n", ", ")


def used(source: Path, found: str) -> Invalid:
    """Return the refusal of a device that is not blank."""
    return Invalid("SOURCE_USED", f"{source} holds {found}; wipe it first if that may go", about=str(source))
