"""What drivers share whose volumes are folders: where they lie, and how a copy appears in one moment."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from core.errors import WrongState
from core.libc import libc, or_raise
from services.runtime.ports import PoolSpace, VolumeKind
from services.runtime.storage.tree import copy_tree, remove_tree

_AT_FDCWD, _EXCHANGE = -100, 2
# No id begins like this. What has such a name is not whole yet, or not needed any more.
_UNFINISHED = ".new-"
_TOOL_S = 120


def volume_folder(pool: Path, id: str, kind: VolumeKind) -> Path:
    return pool / kind / id


def unfinished(volume: Path) -> Path:
    """Return where the content of *volume* is put together."""
    return volume.with_name(_UNFINISHED + volume.name)


def volumes_in(pool: Path, kind: VolumeKind) -> list[str]:
    folder = pool / kind
    found = (path.name for path in folder.iterdir()) if folder.exists() else ()
    return sorted(name for name in found if not name.startswith(_UNFINISHED))


def ensure_kinds(pool: Path) -> None:
    """Make the folder of each kind. They are nobody's but root's: volumes hold setuid files of strangers."""
    for kind in VolumeKind:
        (pool / kind).mkdir(mode=0o700, exist_ok=True)
        (pool / kind).chmod(0o700)


def left_over(path: Path) -> WrongState:
    """Return the refusal to make a pool where one lies that nothing is recorded of."""
    return WrongState(
        "POOL_LEFT",
        f"{path} holds a pool that nothing is recorded of; podium admin recover brings it back, or remove it",
        about=str(path),
    )


def forget_kinds(pool: Path) -> None:
    """Remove the folders of the kinds where they are empty, from a folder that may be somebody's own."""
    for kind in VolumeKind:
        with contextlib.suppress(OSError):
            (pool / kind).rmdir()


def is_mounted(target: Path) -> bool:
    """Whether something is mounted there, also a folder of the same file system."""
    # os.path.ismount tells by device and inode, which does not see those.
    points = (line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return str(target).replace("\\", "\\134").replace(" ", "\\040") in points


def mount(source: Path, target: Path, kind: str, options: str = "") -> None:
    """Mount a pool, unless it is. Its flags hold for this mount, not for the overlays of guests above it.

    kind: "loop", "bind" or "" for a block device. Raises: WrongState.
    """
    target.mkdir(mode=0o700, exist_ok=True)
    if not is_mounted(target):
        words = ",".join(filter(None, (kind, options, "nosuid,nodev")))
        run(["mount", "-o", words, str(source), str(target)])


def unmount(target: Path) -> None:
    """Unmount a pool and remove the folder it was mounted on, never more than that. Repeatable."""
    if is_mounted(target):
        run(["umount", str(target)])
    with contextlib.suppress(FileNotFoundError):
        target.rmdir()


def run(argv: list[str], *, timeout_s: int = _TOOL_S) -> str:
    """Run a tool of the host. Raises: WrongState with its own words."""
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=timeout_s, stdin=subprocess.DEVNULL, check=False
        )
    except subprocess.TimeoutExpired as exc:
        raise WrongState("STORAGE_FAILED", f"{argv[0]} did not end in {timeout_s} s", about=argv[0]) from exc
    if done.returncode:
        raise WrongState("STORAGE_FAILED", f"{argv[0]} failed: {done.stderr.strip()[:300]}", about=argv[0])
    return done.stdout


def remove_unfinished(pool: Path, remove: Callable[[Path], None]) -> None:
    for kind in VolumeKind:
        for left in (pool / kind).glob(f"{_UNFINISHED}*"):
            remove(left)


def make_volume(folder: Path, kind: VolumeKind = VolumeKind.CONTAINERS) -> Path:
    """Make a volume as its kind wants it. Its content belongs to the guest."""
    mode = 0o700 if kind is VolumeKind.CONTAINERS else 0o711
    folder.mkdir(mode=mode, exist_ok=True)
    return with_layers(folder, kind)


def with_layers(folder: Path, kind: VolumeKind) -> Path:
    """Give the volume of an instance the layers of an overlay, where they are missing."""
    if kind is VolumeKind.CONTAINERS:
        for name in ("upper", "work"):
            (folder / name).mkdir(mode=0o755, exist_ok=True)
    return folder


def bring_up(volume: Path, source: Path, kind: VolumeKind) -> None:
    """Make *volume* hold what *source* holds, by what differs."""
    copy_tree(source, volume)
    forget_work(volume, kind)


def forget_work(folder: Path, kind: VolumeKind) -> None:
    """Empty what an overlay was in the middle of: a copy is mounted anew, and begins without."""
    if kind is VolumeKind.CONTAINERS:
        _empty(folder / "work")
        with_layers(folder, kind)


def _empty(work: Path) -> None:
    """Remove the folder; mostly there is only what every overlay makes, and no program is needed."""
    try:
        with contextlib.suppress(OSError):
            (work / "work").rmdir()
        work.rmdir()
    except OSError:
        remove_tree(work)


def put_in_place(made: Path, volume: Path, remove: Callable[[Path], None]) -> None:
    """Let *volume* be what lies in *made*, in one moment, and remove what it was."""
    if not volume.exists():
        made.rename(volume)
        return
    _exchange(made, volume)
    remove(made)


def _exchange(one: Path, other: Path) -> None:
    names = [ctypes.c_char_p(os.fsencode(path)) for path in (one, other)]
    here = ctypes.c_int(_AT_FDCWD)
    or_raise(libc.renameat2(here, names[0], here, names[1], ctypes.c_uint(_EXCHANGE)), str(other))


def space_of(folder: Path) -> PoolSpace:
    found = os.statvfs(folder)
    return PoolSpace(
        used=(found.f_blocks - found.f_bfree) * found.f_frsize,
        total=found.f_blocks * found.f_frsize,
        inodes_used=found.f_files - found.f_ffree,
        inodes_total=found.f_files,
    )
