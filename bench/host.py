"""Small reads and undoable changes of the host that the benchmark needs: sysctls, mounts, processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")


@contextlib.contextmanager
def raised(setting: Path, at_least: int) -> Iterator[None]:
    """Hold a number under /proc/sys at *at_least* or above, then put the old value back."""
    before = setting.read_text()
    if int(before) >= at_least:
        yield
        return
    setting.write_text(str(at_least))
    try:
        yield
    finally:
        setting.write_text(before)


def run(*argv: str, timeout_s: float = 60, env: dict[str, str] | None = None, stdin: str = "") -> str:
    """Run a program to its end and return what it printed; raises if it fails."""
    done = subprocess.run(argv, env=env, input=stdin, capture_output=True, text=True, timeout=timeout_s)
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(argv)} answered {done.returncode}: {done.stderr.strip() or done.stdout.strip()}"
        )
    return done.stdout


def attempt(*argv: str, timeout_s: float = 60) -> None:
    """Run a program whose failure does not matter (cleaning what may be gone already)."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        subprocess.run(argv, capture_output=True, timeout=timeout_s)


def wait_until(claim: Callable[[], bool], *, timeout_s: float, what: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not claim():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not happen within {timeout_s:.0f} s")
        time.sleep(0.05)


def mounts_under(folder: Path) -> list[str]:
    """Mount points at or below *folder*, deepest first, as this mount namespace sees them."""
    points = [line.split()[4].replace("\\040", " ") for line in _mountinfo()]
    own = [p for p in points if p == str(folder) or p.startswith(f"{folder}/")]
    return list(reversed(own))


def _mountinfo() -> list[str]:
    return Path("/proc/self/mountinfo").read_text().splitlines()


def unmount_all(folder: Path) -> None:
    for point in mounts_under(folder):
        attempt("umount", "-l", point)


def is_alive(pid: int) -> bool:
    """Whether *pid* runs; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def end(pid: int, *, grace_s: float = 5) -> None:
    """Ask a process to end, then make it end."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        if not is_alive(pid):
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, sign)
        with contextlib.suppress(TimeoutError):
            wait_until(lambda: not is_alive(pid), timeout_s=grace_s, what=f"end of {pid}")


def pid_in(file: Path) -> int:
    """The pid in a pid file (plain, or LXD's YAML), 0 if there is none."""
    with contextlib.suppress(OSError, ValueError):
        for word in file.read_text().replace(":", " ").split():
            if word.isdigit():
                return int(word)
    return 0


def descendants(pid: int) -> list[int]:
    """*pid* and all processes below it."""
    found = [pid]
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += descendants(int(child))
    return found


def pss_kib(pid: int) -> int:
    """Proportional memory of one process in KiB; 0 if it is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0


def rss_kib(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
    return 0
