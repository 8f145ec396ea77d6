"""NICs of every type through the stock client: plugged, shown, and the host's own given back."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.conftest import Podium
from tests.e2e.test_launch import wait_for
from tests.subnets import lone


def _ip(*argv: str) -> Any:
    return json.loads(subprocess.run(["ip", "-j", *argv], capture_output=True, check=True).stdout or b"[]")


def _link(name: str) -> dict[str, Any]:
    return next((link for link in _ip("link") if link["ifname"] == name), {})


@pytest.fixture
def parents() -> Iterator[tuple[str, str]]:
    word = secrets.token_hex(3)
    names = (f"pe{word}a", f"pe{word}b")
    subprocess.run(["ip", "link", "add", names[0], "type", "veth", "peer", "name", names[1]], check=True)
    for name in names:
        subprocess.run(["ip", "link", "set", name, "up"], check=True)
    yield names
    subprocess.run(["ip", "link", "del", names[1]], check=False)


@pytest.fixture
def name(podium: Podium) -> Iterator[str]:
    name = f"t{secrets.token_hex(3)}"
    podium.lxc("launch", "debian/12", name)
    yield name
    podium.lxc("delete", "--force", name)


def _add(podium: Podium, name: str, device: str, *options: str) -> None:
    podium.lxc("config", "device", "add", name, device, "nic", *options)


def _inside(podium: Podium, name: str) -> dict[str, dict[str, Any]]:
    found = json.loads(podium.lxc("exec", name, "--", "ip", "-j", "addr"))
    return {link["ifname"]: link for link in found}


def test_nics_are_plugged_at_the_start_and_while_running(
    podium: Podium, name: str, parents: tuple[str, str]
) -> None:
    """What the engine makes at a start and what is plugged later is the same."""
    _add(podium, name, "p", "nictype=p2p", "name=p0")
    _add(podium, name, "m", "nictype=macvlan", f"parent={parents[0]}", "name=m0")
    _add(podium, name, "r", "nictype=routed", f"parent={parents[1]}", f"ipv4.address={lone(99)}", "name=r0")
    hot = {n: link["address"] for n, link in _inside(podium, name).items()}
    podium.lxc("restart", "--force", name)
    links = _inside(podium, name)
    assert {n: link["address"] for n, link in links.items()} == hot
    assert hot.keys() >= {"p0", "m0", "r0"}
    assert lone(99) in [a["local"] for a in links["r0"]["addr_info"]]
    assert "default via 169.254.0.1 dev r0" in podium.lxc("exec", name, "--", "ip", "route")
    state = json.loads(podium.lxc("query", f"/1.0/instances/{name}/state"))["network"]
    assert state["m0"]["host_name"] == parents[0]
    assert state["p0"]["host_name"] == podium.lxc("config", "get", name, "volatile.p.host_name").strip()
    assert (state["r0"]["hwaddr"], state["r0"]["state"]) == (hot["r0"], "up")
    assert f"{lone(99)} (r0)" in podium.lxc("list", name, "-c4", "--format=csv")
    for device, inside in (("p", "p0"), ("m", "m0"), ("r", "r0")):
        podium.lxc("config", "device", "remove", name, device)
        assert inside not in _inside(podium, name)
    assert _ip("neigh", "show", "proxy", "dev", parents[1]) == []


def test_an_interface_of_the_host_comes_back_as_it_was_whoever_died(
    podium: Podium, name: str, parents: tuple[str, str]
) -> None:
    """The instance's init, its monitor and our own services, all at once."""
    before, parent = _link(parents[0]), parents[0]
    options = ("nictype=physical", f"parent={parent}", "name=lan0", "mtu=1400", "hwaddr=00:16:3e:55:00:01")
    _add(podium, name, "lan", *options)
    assert _inside(podium, name)["lan0"]["mtu"] == 1400
    assert not _link(parent)
    assert podium.lxc("config", "get", name, "volatile.lan.last_state.hwaddr").strip() == before["address"]
    podium.lxc("restart", "--force", name)
    assert _inside(podium, name)["lan0"]["address"] == "00:16:3e:55:00:01"

    init = json.loads(podium.lxc("query", f"/1.0/instances/{name}/state"))["pid"]
    monitor = int(subprocess.run(["ps", "-o", "ppid=", "-p", str(init)], capture_output=True).stdout)
    processes = podium.processes()
    for pid in (processes["runtime"], processes["network"], monitor, init):
        os.kill(pid, signal.SIGKILL)
    # Two sweeps at the most, and the kernel's own time to take a namespace down.
    wait_for(lambda: _link(parent).get("mtu") == before["mtu"], 90)
    assert (_link(parent)["address"], _link(parent)["ifindex"]) == (before["address"], before["ifindex"])
    wait_for(lambda: podium.run("list", name, "-cs", "--format=csv").stdout.strip() == b"STOPPED")
    assert podium.lxc("config", "get", name, "volatile.lan.last_state.hwaddr").strip() == ""


def test_networks_that_name_an_interface(podium: Podium, name: str, parents: tuple[str, str]) -> None:
    """With LXD's sentences for what they refuse."""
    network = f"n{secrets.token_hex(3)}"
    refused = podium.run("network", "create", network, "--type=macvlan", "parent=nosuch0")
    assert refused.stderr.decode() == 'Error: Parent interface "nosuch0" not found\n'
    podium.lxc("network", "create", network, "--type=macvlan", f"parent={parents[0]}", "mtu=1300")
    refused = podium.run("network", "create", f"{network}p", "--type=physical", f"parent={parents[0]}")
    assert "in use by another network" in refused.stderr.decode()
    _add(podium, name, "mv", f"network={network}", "name=mv0")
    assert _inside(podium, name)["mv0"]["mtu"] == 1300
    assert podium.run("network", "delete", network).stderr.decode() == (
        "Error: The network is currently in use\n"
    )
    assert f"/1.0/instances/{name}" in podium.lxc("network", "show", network)
    podium.lxc("config", "device", "remove", name, "mv")
    podium.lxc("network", "delete", network)


def test_a_nic_that_cannot_be_made_leaves_everything_as_it_was(podium: Podium, name: str) -> None:
    refused = podium.run("config", "device", "add", name, "d1", "nic", "nictype=macvlan", "parent=nosuch0")
    assert refused.stderr.decode() == (
        "Error: Failed to start device \"d1\": Parent device 'nosuch0' doesn't exist\n"
    )
    assert podium.run("config", "device", "remove", name, "d1").stderr == b"Error: Device doesn't exist\n"
