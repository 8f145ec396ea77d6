"""`make purge`: remove every trace of a member: containers, mounts, bridges, nft tables, cgroups, state.

Works from what lies on the host, not from etcd, so it also cleans up after a broken member.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

from core.settings import Settings
from deploy import lxcfs
from deploy.command import remove_command
from deploy.down import stop
from deploy.supervisor import running
from deploy.turns import turn
from services.network.domain.forwards import table_of
from services.network.domain.overlay import device_of
from services.network.domain.render import TABLE_FAMILIES, table_name
from services.runtime.kernel.cgroups import LinuxCgroups

# What deploy.host.ensure_folders makes; together they tell Podium's folder from any other.
_LAYOUT = ("run", "etcd", "images", "networks", "logs")
# What a purge that was cut short has left: whatever is missing by then, the folder is Podium's.
_BEGUN = "purge.begun"
_PAUSE_S = 0.1


def _run(*argv: str) -> None:
    subprocess.run(argv, capture_output=True, check=False, timeout=60)


def kill_children(sessions: set[int]) -> None:
    """Kill what the services had begun and left behind: each has a session of its own, and its number."""
    for _ in range(50):
        found = [pid for pid in _pids() if _session(pid) in sessions and _title(pid)]  # no zombies
        if not found:
            return
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_PAUSE_S)


def kill_guests(ids: list[str]) -> None:
    """Kill what still runs in the cgroups of containers: an init outlives a monitor that was killed."""
    cgroups = LinuxCgroups()
    for id in ids:
        cgroups.remove(id)


def kill_monitors(state: Path) -> None:
    """Kill the init of every container of this member; their monitors end by themselves."""
    marks = (f"[lxc monitor] {state}/instances", f"--pid-file={state}/networks/")
    for _ in range(100):
        found = [pid for pid in _pids() if any(mark in _title(pid) for mark in marks)]
        if not found:
            return
        for pid in found:
            children = _children(pid) if "monitor" in _title(pid) else []
            for victim in children or [pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
        time.sleep(_PAUSE_S)


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return 0


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _children(pid: int) -> list[int]:
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def unmount_below(state: Path) -> None:
    """Unmount the deepest first; loop devices go with their mounts."""
    for _ in range(50):
        lines = Path("/proc/self/mounts").read_text().splitlines()
        targets = [line.split()[1].encode().decode("unicode_escape") for line in lines]
        ours = sorted((t for t in targets if t.startswith(f"{state}/")), key=len, reverse=True)
        if not ours:
            return
        for target in ours:
            _run("umount", target)
        time.sleep(_PAUSE_S / 10)  # who was killed gives back what it had open a moment later


def remove_networks(state: Path) -> None:
    folder = state / "networks"
    for path in folder.iterdir() if folder.exists() else ():
        if path.is_file() and re.fullmatch(r"nic_[-_A-Za-z0-9.]{2,15}", path.name):
            _run("nft", "delete", "table", "bridge", table_name(path.name))
        if not path.is_dir() or not re.fullmatch(r"[-_A-Za-z0-9.]{2,15}", path.name):
            continue
        for device in (device_of(path.name), *_tunnels(path)):
            _run("ip", "link", "delete", device)
        _run("ip", "link", "delete", path.name)
        for family in TABLE_FAMILIES:
            _run("nft", "delete", "table", family, table_name(path.name))


def _tunnels(network: Path) -> list[str]:
    try:
        return [
            name for name in json.loads((network / "tunnels").read_text()) if name.startswith(network.name)
        ]
    except (OSError, ValueError):
        return []


def remove_forwards(state: Path) -> None:
    folder = state / "forwards"
    for path in folder.iterdir() if folder.exists() else ():
        _run("nft", "delete", "table", "inet", table_of(path.name))


def remove_shapers(state: Path) -> None:
    """Remove the devices that bound NICs; their alias begins with the folder of who made them."""
    done = subprocess.run(["ip", "-j", "link", "show", "type", "ifb"], capture_output=True, check=False)
    for link in json.loads(done.stdout or b"[]"):
        if link.get("ifalias", "").startswith(f"{state}/networks "):
            _run("ip", "link", "delete", link["ifname"])


def remove_cgroups(ids: list[str]) -> None:
    for parent in [*Path("/sys/fs/cgroup").glob("*/podium*"), *Path("/sys/fs/cgroup").glob("podium*")]:
        for id in ids:
            for path, _, _ in os.walk(parent / id, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(path)
        with contextlib.suppress(OSError):
            parent.rmdir()


def check_ours(state: Path) -> None:
    """Refuse a folder that set-up did not make: `/` and `/var` have a `run` as well."""
    if (state / _BEGUN).is_file():
        return
    missing = [name for name in _LAYOUT if not (state / name).is_dir()]
    if missing:
        raise SystemExit(
            f"{state} is not Podium's: it has no folder {missing[0]}; nothing was removed.\n"
            "Set PODIUM_DIR to the state folder, or remove what is left of it by hand."
        )


def purge(settings: Settings) -> None:
    """Remove every trace, or go on where a purge was cut short. Repeatable."""
    state = settings.state_dir
    if not state.exists() or not any(state.iterdir()):
        return
    check_ours(state)
    with turn(state) as is_there:
        if is_there:
            _end_all(settings)
            _take_back(state)
            _delete(state)


def _end_all(settings: Settings) -> None:
    state, services = settings.state_dir, set(running(settings))
    stop(settings)
    kill_children(services)
    kill_monitors(state)
    kill_guests(_ids(state))
    lxcfs.stop(settings)


def _take_back(state: Path) -> None:
    """Give the host back what is not in the folder. Raises: SystemExit."""
    remove_forwards(state)
    remove_networks(state)
    remove_shapers(state)
    unmount_below(state)
    remove_cgroups(_ids(state))
    left = [line for line in Path("/proc/self/mounts").read_text().splitlines() if f" {state}/" in line]
    if left:
        raise SystemExit(
            f"Something is still mounted below {state}; nothing was deleted:\n" + "\n".join(left)
        )


def _ids(state: Path) -> list[str]:
    instances = state / "instances"
    return [path.name for path in instances.iterdir()] if instances.exists() else []


def _delete(state: Path) -> None:
    """Delete the folder; what tells that it was begun goes last."""
    begun = state / _BEGUN
    begun.touch(mode=0o600)
    for path in state.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path != begun:
            path.unlink()
    begun.unlink()
    state.rmdir()


def main() -> int:
    settings = Settings.from_env()
    purge(settings)
    remove_command(settings)
    print(f"Nothing of Podium is left in {settings.state_dir}.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
