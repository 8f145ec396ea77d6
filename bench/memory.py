"""What the control plane and each running container cost in memory beside the guests' own processes."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path

from bench.client import Side
from bench.host import descendants, pss_kib, rss_kib
from bench.lifecycle import ensure_alias
from bench.listing import create
from bench.plan import PREFIX, Plan

SOME = 10


def start_some(side: Side, plan: Plan) -> None:
    ensure_alias(side, plan)
    for n in range(SOME):
        create(side, plan, f"{PREFIX}m{n}", start=True)
    time.sleep(5)


def footprint(side: Side, plan: Plan) -> dict[str, float]:
    daemons, stores = control_plane(side)
    beside = companions(side, {*daemons, *stores})
    return {
        "control_pss": sum(map(pss_kib, daemons)) / 1024,
        "control_rss": sum(map(rss_kib, daemons)) / 1024,
        "store_pss": sum(map(pss_kib, stores)) / 1024,
        "per_container": sum(map(pss_kib, beside)) / 1024 / len(side.names(f"{PREFIX}m")),
    }


def control_plane(side: Side) -> tuple[list[int], list[int]]:
    """Pids of the daemons that serve, and of the store they stand on."""
    noted = side.lxd_dir / "run" / "supervisor.json"
    if not noted.exists():
        return side.pids, []
    services = dict(json.loads(noted.read_text())["processes"])
    stores = [services.pop("etcd")] if "etcd" in services else []
    return list(services.values()), stores


def companions(side: Side, control: set[int]) -> list[int]:
    """Host processes that exist for running containers: monitors and the like.

    They name the side's directory in their command line, live in the host's pid namespace and
    are not the control plane; dnsmasq belongs to the network, not to a container.
    """
    return [pid for pid in _pids() if pid not in control and _is_companion(pid, side)]


def _is_companion(pid: int, side: Side) -> bool:
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        if pid in descendants(os.getpid()) or "dnsmasq" in words or str(side.lxd_dir) not in words:
            return False
        # A second pid after NSpid means that the process is a guest's own.
        status = Path(f"/proc/{pid}/status").read_text()
        return any(len(line.split()) == 2 for line in status.splitlines() if line.startswith("NSpid:"))
    return False


def _pids() -> list[int]:
    return [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit()]
