"""kill -9 of the network service and of dnsmasq at random while NICs come and go: nothing leaks, all mends.

PODIUM_PLUGS says how many calls (`make crowd-test`: 200); the usual run has a few.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from services.network.domain.render import table_name
from tests.faults.harness import Victim, wait_for

NAME = "fault-plug"
_CALLS = int(os.environ.get("PODIUM_PLUGS", "16"))
_DEVICES = [f"x{number}" for number in range(4)]


def test_nics_come_and_go_whole_whoever_is_killed(victim: Victim, no_leaks: None) -> None:
    """What was called done is so at once; in the end the guest has what its record says, on both sides."""
    victim.side.lxc("launch", victim.image, NAME)
    bridge, there, failed = victim.settings().bridge, dict[str, str](), list[str]()
    try:
        with killing(victim, bridge):
            for number in range(_CALLS):
                device = _DEVICES[number % len(_DEVICES)]
                done = victim.side.try_lxc(*_change(device, bridge, is_there=device in there), timeout_s=60)
                if done.returncode:
                    failed.append(done.stderr.decode().strip())
                    victim.wait_until_it_answers()
                now = _host_names(victim)
                if not done.returncode:
                    assert (device in now) != (device in there), f"{device} after call {number}"
                    _agrees_with_the_kernel(there, now)
                there = now
        assert len(failed) < _CALLS / 2, failed
        victim.wait_until_it_answers()
        wait_for(
            lambda: _inside(victim) == {"lo", "eth0", *there}, 30, f"{sorted(there)} and no other inside"
        )
        _mends_rules(bridge)
        for device in there:
            victim.side.lxc("config", "device", "remove", NAME, device)
        assert _inside(victim) == {"lo", "eth0"}
    finally:
        victim.wait_until_it_answers()
        victim.side.delete_all(NAME)


def _change(device: str, bridge: str, *, is_there: bool) -> list[str]:
    if is_there:
        return ["config", "device", "remove", NAME, device]
    options = [f"network={bridge}", f"name={device}", "security.mac_filtering=true"]
    return ["config", "device", "add", NAME, device, "nic", *options]


def _host_names(victim: Victim) -> dict[str, str]:
    """Device -> interface of the host, of the NICs that the record has."""
    record = victim.side.request("GET", f"/1.0/instances/{NAME}")["metadata"]
    config = record["config"]
    return {d: config.get(f"volatile.{d}.host_name", "") for d in record["devices"] if d in _DEVICES}


def _agrees_with_the_kernel(before: dict[str, str], now: dict[str, str]) -> None:
    for device, host_name in {**before, **now}.items():
        assert Path("/sys/class/net", host_name or "none").exists() == (device in now), device


def _inside(victim: Victim) -> set[str]:
    shown = victim.side.lxc("exec", NAME, "--", "ls", "/sys/class/net")
    return set(shown.split())


def _mends_rules(bridge: str) -> None:
    """A table that is deleted by hand is back the moment after."""

    def chains() -> set[str]:
        argv = ["nft", "-j", "list", "table", "inet", table_name(bridge)]
        shown = subprocess.run(argv, capture_output=True, check=False, timeout=10).stdout
        return {i["chain"]["name"] for i in json.loads(shown or "{}").get("nftables", []) if "chain" in i}

    before = chains()
    assert before
    subprocess.run(["nft", "delete", "table", "inet", table_name(bridge)], check=True, timeout=10)
    wait_for(lambda: chains() == before, 3, "the table that was deleted")


@contextlib.contextmanager
def killing(victim: Victim, bridge: str) -> Iterator[None]:
    """Kill one or the other every so often for as long as the block runs."""
    enough, dice = threading.Event(), random.Random(7)
    pid_file = victim.state_dir / "networks" / bridge / "dnsmasq.pid"

    def kill() -> None:
        while not enough.wait(dice.uniform(0.3, 3.0)):
            with contextlib.suppress(OSError, ValueError, KeyError):
                is_dnsmasq = dice.random() < 0.4
                pid = int(pid_file.read_text()) if is_dnsmasq else victim.processes()["network"]
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
                if b"dnsmasq" in command or b"services.network" in command:
                    os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        yield
    finally:
        enough.set()
        killer.join()
        time.sleep(0.5)
