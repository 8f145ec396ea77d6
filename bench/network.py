"""Cases about networks: made and deleted, and a NIC put into a running instance and taken out."""

from __future__ import annotations

import statistics
import time
from typing import Any

from bench.client import Side
from bench.lifecycle import warm_up
from bench.plan import PREFIX, Plan

_NAME, _DEVICE, _TIMES = f"{PREFIX}nic", "bench1", 3
# Names of interfaces are the host's, so each side has its own.
_NETWORKS = {"podium": "benchp0", "lxd": "benchl0"}
# LXD's own search for a free subnet fails on hosts whose routes it cannot read; each side gets a fixed one.
_ADDRESSES = {"podium": "10.179.16.1/24", "lxd": "10.179.17.1/24"}


def start_guest(side: Side, plan: Plan) -> None:
    """A running instance that is past its boot."""
    _clean(side)
    warm_up(side, plan)
    side.lxc("launch", plan.alias, _NAME)
    time.sleep(2.0)


def one_network(side: Side, plan: Plan) -> dict[str, float]:
    """Medians of a few of each: one alone is shorter than the noise of the machine."""
    try:
        rounds = [_one(side, _NETWORKS[side.name]) for _ in range(_TIMES)]
    except BaseException:
        _clean(side)
        raise
    return {key: statistics.median(found[key] for found in rounds) * 1000 for key in rounds[0]}


def _clean(side: Side) -> None:
    side.try_lxc("config", "device", "remove", _NAME, _DEVICE)
    side.try_lxc("network", "delete", _NETWORKS[side.name])


def _one(side: Side, network: str) -> dict[str, float]:
    config = (f"ipv4.address={_ADDRESSES[side.name]}", "ipv6.address=none")
    create = side.timed("network", "create", network, *config)
    nic = (_DEVICE, "nic", f"network={network}", f"name={_DEVICE}")
    attach = side.timed("config", "device", "add", _NAME, *nic)
    side.lxc("exec", _NAME, "--", "test", "-e", f"/sys/class/net/{_DEVICE}")
    detach = side.timed("config", "device", "remove", _NAME, _DEVICE)
    alone = _by_api(side, network)
    delete = side.timed("network", "delete", network)
    return {
        "network_create": create,
        "attach": attach,
        "attach_api": alone,
        "detach": detach,
        "network_delete": delete,
    }


def _by_api(side: Side, network: str) -> float:
    """Seconds that an attach takes without the client, whose own time is the same on both sides."""
    path = f"/1.0/instances/{_NAME}"
    before = side.request("GET", path)["metadata"]
    nic = {"type": "nic", "network": network, "name": _DEVICE}
    begun = time.perf_counter()
    _change(side, path, {**before, "devices": {**before["devices"], _DEVICE: nic}})
    took = time.perf_counter() - begun
    side.lxc("exec", _NAME, "--", "test", "-e", f"/sys/class/net/{_DEVICE}")
    side.lxc("config", "device", "remove", _NAME, _DEVICE)
    return took


def _change(side: Side, path: str, body: dict[str, Any]) -> None:
    asked = side.request("PUT", path, body)
    ended = side.request("GET", f"{asked['operation']}/wait")["metadata"]
    if ended["status"] != "Success":
        raise RuntimeError(f"{side.name}: {path}: {ended['err']}")
