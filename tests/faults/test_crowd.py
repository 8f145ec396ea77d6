"""Many clients and many containers at once: none lost, none doubled, none slow, nothing left.

PODIUM_CROWD says how many containers (`make crowd-test`: 200); the usual run has a handful.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from bench.host import pss_kib
from bench.memory import companions, control_plane
from tests.faults import mesh
from tests.faults.harness import Victim, by_many, timed

_COUNT = int(os.environ.get("PODIUM_CROWD", "12"))
_MESH = 100
_ANSWER_S, _BOOT_S = 1.0, 180.0
_BESIDE_MIB = 3.0
_NAMES = [f"crowd-{number:03d}" for number in range(_COUNT)]


def test_a_crowd_comes_and_goes_whole(victim: Victim, no_leaks: None) -> None:
    """What sixteen clients ask for at once is what is there, with ids and addresses of its own."""
    by_many(_NAMES, lambda name: victim.side.lxc("launch", victim.image, name))

    _answers_at_once(victim)
    instances = _booted(victim)

    assert Counter(instance["name"] for instance in instances) == Counter(_NAMES)
    assert {instance["status"] for instance in instances} == {"Running"}
    assert all(map(_address, instances))
    _are_unique(instances, _address)
    _are_unique(instances, lambda instance: str(instance["config"]["volatile.last_state.idmap"]))
    _are_unique(instances, lambda instance: str(instance["state"]["pid"]))
    _see_each_other(victim, instances)
    daemons, stores = control_plane(victim.side)
    beside = companions(victim.side, {*daemons, *stores})
    assert sum(map(pss_kib, beside)) / 1024 / _COUNT < _BESIDE_MIB

    by_many(_NAMES, lambda name: victim.side.lxc("delete", "--force", name))

    assert victim.side.names("crowd-") == []


def _booted(victim: Victim) -> list[dict[str, Any]]:
    """Return all instances, once each has an address: of so many some boot for longer than a minute."""
    until = time.monotonic() + _BOOT_S
    while True:
        instances: list[dict[str, Any]] = victim.side.request("GET", "/1.0/instances?recursion=2")["metadata"]
        if all(map(_address, instances)) or time.monotonic() > until:
            return instances
        time.sleep(1.0)


def _address(instance: dict[str, Any]) -> str:
    found = (instance["state"]["network"] or {}).get("eth0", {}).get("addresses", ())
    return next((str(one["address"]) for one in found if one["family"] == "inet"), "")


def _are_unique(instances: list[dict[str, Any]], of: Callable[[dict[str, Any]], str]) -> None:
    twice = [value for value, count in Counter(map(of, instances)).items() if count > 1]
    assert not twice


def _see_each_other(victim: Victim, instances: list[dict[str, Any]]) -> None:
    """Every guest knows every other by its name and gets an answer from it."""
    addresses = {str(one["name"]): _address(one) for one in instances[:_MESH]}
    config = victim.side.request("GET", f"/1.0/networks/{victim.settings().bridge}")["metadata"]["config"]
    server = config["ipv4.address"].partition("/")[0]
    for one in instances[:_MESH]:
        pid = int(one["state"]["pid"])
        assert mesh.inside(pid, lambda: mesh.answering(addresses.values())) == set(addresses.values())
        assert mesh.inside(pid, lambda: mesh.resolved(server, addresses)) == addresses


def _answers_at_once(victim: Victim) -> None:
    """The best of three: the guests still boot on the same processors."""
    asks: dict[str, Callable[[], Any]] = {
        "lxc list": lambda: victim.side.lxc("list", "--format", "json"),
        "metrics": lambda: victim.side.lxc("query", "--raw", "/1.0/metrics"),
        "recursion=2": lambda: victim.side.request("GET", "/1.0/instances?recursion=2"),
    }
    seconds = {name: min(timed(ask) for _ in range(3)) for name, ask in asks.items()}
    print(json.dumps(seconds))
    assert max(seconds.values()) < _ANSWER_S, seconds
