"""Keep an lxcfs for the containers of this member: /proc inside then tells of their limits, not of the host.

Running containers have its files mounted, so it outlives the supervisor and `make down` as they do, and is
found again by its pid file. Only `make purge` ends it. The supervisor starts another one when it died; the
runtime service takes the dead one's files out of the containers, and puts the new one's in. Where the
host runs one of its own, that is used.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path

from core.descriptors import readable
from core.settings import Settings

HOST = Path("/var/lib/lxcfs")
_READY_S = 5.0
_END_S = 5.0
_LOOK_S = 5.0


def ensure(settings: Settings) -> bool:
    """Start it where none serves; return whether it did. Without one guests see the host's figures."""
    folder = settings.state_dir / "lxcfs"
    if serves(HOST) or serves(folder) or not shutil.which("lxcfs"):
        return False
    _unmount(folder)  # what a dead one left: nothing there can be opened
    folder.mkdir(mode=0o755, exist_ok=True)
    argv = [
        "lxcfs",
        "-f",
        "-l",
        "--enable-cfs",
        "--enable-pidfd",
        f"--pidfile={_pid_file(settings)}",
        str(folder),
    ]
    with (settings.state_dir / "logs" / "lxcfs.log").open("ab") as log:
        subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/"
        )
    end = time.monotonic() + _READY_S
    while not serves(folder):
        if time.monotonic() > end:
            print(f"warning: lxcfs did not start; see {settings.state_dir}/logs/lxcfs.log")
            return False
        time.sleep(0.02)
    return True


def serves(folder: Path) -> bool:
    """Say whether an lxcfs answers there."""
    try:
        return bool((folder / "proc" / "meminfo").read_text())
    except OSError:
        return False


async def begin(settings: Settings) -> None:
    """Start it where none serves; a member without one runs all the same."""
    try:
        await asyncio.to_thread(ensure, settings)
    except OSError as exc:
        print(f"lxcfs was not started: {exc}", flush=True)


async def keep(settings: Settings, *, pause_s: float) -> None:
    """Start it, and another one whenever it has died. Does not return."""
    while True:
        await begin(settings)
        fd = _open(settings)
        if fd < 0:
            await asyncio.sleep(_LOOK_S)  # the host has its own, or has no such program
            continue
        try:
            await readable(fd)  # it has ended
        finally:
            os.close(fd)
        await asyncio.sleep(pause_s)


def stop(settings: Settings) -> None:
    """End the one of this member. Repeatable."""
    fd = _open(settings)
    if fd >= 0:
        _end(fd)
    _unmount(settings.state_dir / "lxcfs")


def _open(settings: Settings) -> int:
    """Return a descriptor of this member's process; -1 where none runs. Numbers come again."""
    fd = -1
    with contextlib.suppress(OSError, ValueError):
        pid = int(_pid_file(settings).read_text())
        fd = os.pidfd_open(pid)
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if words[0] == b"lxcfs" and str(settings.state_dir / "lxcfs").encode() in words:
            return fd
    if fd >= 0:
        os.close(fd)
    return -1


def _end(fd: int) -> None:
    try:
        for number in (signal.SIGTERM, signal.SIGKILL):
            signal.pidfd_send_signal(fd, number)
            if select.select([fd], [], [], _END_S)[0]:
                return
    finally:
        os.close(fd)


def _unmount(folder: Path) -> None:
    if any(line.split()[1] == str(folder) for line in Path("/proc/self/mounts").read_text().splitlines()):
        subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False)


def _pid_file(settings: Settings) -> Path:
    return settings.state_dir / "lxcfs.pid"
