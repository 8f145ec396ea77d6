"""Keep an lxcfs for the containers of this member: /proc inside then tells of their limits, not of the host.

Running containers have its files mounted, and its end would break their /proc: so it is no process of the
supervisor's, outlives `make down` as they do, and is found again by its pid file. Only `make purge` ends it.
Where the host runs one of its own, that is used.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path

from core.settings import Settings

HOST = Path("/var/lib/lxcfs")
_READY_S = 5.0
_END_S = 5.0


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


def stop(settings: Settings) -> None:
    """End the one of this member. Repeatable."""
    folder = settings.state_dir / "lxcfs"
    with contextlib.suppress(OSError, ValueError):
        pid = int(_pid_file(settings).read_text())
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if words[0] == b"lxcfs" and str(folder).encode() in words:
            _end(pid)
    _unmount(folder)


def _end(pid: int) -> None:
    fd = os.pidfd_open(pid)
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
