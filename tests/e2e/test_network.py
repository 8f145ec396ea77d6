"""Networks with the stock client: names, hot plug, warnings, and what happens when something dies."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator
from ipaddress import ip_interface
from pathlib import Path

import pytest

from services.network.domain.render import table_name
from tests.e2e.conftest import Podium
from tests.e2e.test_launch import wait_for

_DHCP = b"[Match]\nName=lan0\n[Network]\nDHCP=yes\n"


@pytest.fixture(scope="module")
def pair(podium: Podium) -> Iterator[tuple[str, str]]:
    names = ("net-a", "net-b")
    for name in names:
        podium.lxc("launch", "debian/12", name)
    for name in names:  # networkd takes away what a test adds while it sets the link up
        wait_for(lambda name=name: b"routable" in podium.run("exec", name, "--", "networkctl", "list").stdout)
    yield names
    podium.lxc("delete", "-f", *names)


def _links(podium: Podium, name: str) -> dict[str, dict[str, object]]:
    shown = json.loads(podium.lxc("exec", name, "--", "ip", "-j", "link"))
    return {link["ifname"]: link for link in shown}


def _config(podium: Podium, name: str = "") -> dict[str, str]:
    network = json.loads(podium.lxc("query", f"/1.0/networks/{name or podium.settings.bridge}"))
    return dict(network["config"])


def _rules(podium: Podium) -> str:
    argv = ["nft", "-a", "list", "table", "inet", table_name(podium.settings.bridge)]
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=10).stdout


def _dnsmasq(podium: Podium) -> int:
    return int((podium.state_dir / "networks" / podium.settings.bridge / "dnsmasq.pid").read_text())


def _restart_network(podium: Podium) -> None:
    """Kill the service and wait until its successor answers."""
    before = podium.processes()["network"]
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: podium.processes().get("network", before) != before)
    wait_for(lambda: podium.run("network", "list").returncode == 0)


def test_two_containers_resolve_and_reach_each_other_in_both_families(
    podium: Podium, pair: tuple[str, str]
) -> None:
    a, b = pair
    for ask in (("ahostsv4", b), ("ahostsv6", b), ("ahostsv4", f"{b}.lxd")):
        wait_for(lambda ask=ask: podium.run("exec", a, "--", "getent", *ask).returncode == 0)
    for family in ("-4", "-6"):
        wait_for(
            lambda family=family: podium.run("exec", a, "--", "ping", family, "-c1", "-W1", b).returncode == 0
        )
    shown = podium.lxc("list", a, "--format", "csv", "-c", "46")
    assert "(eth0)" in shown.split(",")[0]
    assert "masquerade" in _rules(podium)


def test_a_launched_container_is_listed_with_both_addresses_at_once(podium: Podium) -> None:
    """They were decided before it started; nobody has to wait for DHCP to know them."""
    podium.lxc("launch", "debian/12", "net-new")
    shown = podium.lxc("list", "net-new", "--format", "csv", "-c", "46").strip()
    network = json.loads(podium.lxc("query", f"/1.0/networks/{podium.settings.bridge}/leases"))
    own = sorted(lease["address"] for lease in network if lease["hostname"] == "net-new")
    assert shown == ",".join(f"{address} (eth0)" for address in own)
    podium.lxc("delete", "-f", "net-new")


def test_a_hot_plugged_nic_has_its_name_mac_and_reserved_address(
    podium: Podium, pair: tuple[str, str]
) -> None:
    name, bridge = pair[0], podium.settings.bridge
    mac = "00:16:3e:77:00:01"
    podium.lxc(
        "config", "device", "add", name, "lan", "nic", f"network={bridge}", "name=lan0", f"hwaddr={mac}"
    )
    link = _links(podium, name)["lan0"]
    assert link["address"] == mac
    assert "UP" in str(link["flags"])
    path = f"{name}/etc/systemd/network/lan0.network"
    podium.lxc("file", "push", "--mode=0644", "-", path, input=_DHCP)
    wait_for(lambda: podium.run("exec", name, "--", "networkctl", "reload").returncode == 0)
    leases = json.loads(podium.lxc("query", f"/1.0/networks/{bridge}/leases"))
    [address] = [lease["address"] for lease in leases if lease["hwaddr"] == mac and "." in lease["address"]]
    wait_for(lambda: address in podium.lxc("exec", name, "--", "ip", "-4", "addr", "show", "lan0"))
    podium.lxc("config", "device", "set", name, "lan", "security.ipv4_filtering=true")
    assert _links(podium, name)["lan0"]["ifindex"] == link["ifindex"]
    podium.lxc("config", "device", "remove", name, "lan")
    assert "lan0" not in _links(podium, name)
    assert mac not in podium.lxc("network", "list-leases", bridge)


def test_a_profile_edit_plugs_and_unplugs_running_instances_before_it_answers(
    podium: Podium, pair: tuple[str, str]
) -> None:
    podium.lxc("profile", "create", "more")
    podium.lxc("profile", "add", pair[0], "more")
    podium.lxc(
        "profile", "device", "add", "more", "eth7", "nic", f"network={podium.settings.bridge}", "name=eth7"
    )
    assert "eth7" in _links(podium, pair[0])
    podium.lxc("profile", "device", "remove", "more", "eth7")
    assert "eth7" not in _links(podium, pair[0])
    podium.lxc("profile", "set", "more", "limits.processes", "321")
    assert _most_processes(podium, pair[0]) == "321"
    podium.lxc("profile", "unset", "more", "limits.processes")
    assert _most_processes(podium, pair[0]) == "max"
    podium.lxc("profile", "remove", pair[0], "more")
    podium.lxc("profile", "delete", "more")


def _most_processes(podium: Podium, name: str) -> str:
    id = podium.lxc("config", "get", name, "volatile.uuid").strip()
    paths = [Path(root) / "podium" / id / "pids.max" for root in ("/sys/fs/cgroup/pids", "/sys/fs/cgroup")]
    return next(path for path in paths if path.exists()).read_text().strip()


def test_a_nic_on_no_network_is_refused_and_the_instance_stays_as_it_was(
    podium: Podium, pair: tuple[str, str]
) -> None:
    done = podium.run("config", "device", "add", pair[0], "nowhere", "nic", "network=nope")
    assert (done.returncode, b"not found" in done.stderr) == (1, True)
    assert "nowhere" not in podium.lxc("config", "show", pair[0])


def test_a_filtered_guest_cannot_speak_as_another(podium: Podium, pair: tuple[str, str]) -> None:
    """Its own address works, a stolen one does not get past the bridge."""
    a, b = pair
    gateway = str(ip_interface(_config(podium)["ipv4.address"]).ip)
    network = ip_interface(_config(podium)["ipv4.address"]).network
    own = podium.lxc("list", b, "--format", "csv", "-c", "4").split()[0]
    stolen = str(network[-2] if str(network[-2]) != own else network[-3])
    podium.lxc("exec", b, "--", "ip", "addr", "add", f"{stolen}/32", "dev", "eth0")
    ping = ("exec", b, "--", "ping", "-c1", "-W1", "-I", stolen, gateway)
    assert podium.run(*ping).returncode == 0
    podium.lxc("config", "device", "override", b, "eth0", "security.ipv4_filtering=true")
    assert podium.run(*ping).returncode != 0
    assert podium.run("exec", b, "--", "ping", "-c1", "-W1", gateway).returncode == 0
    podium.lxc("config", "device", "remove", b, "eth0")
    assert podium.run(*ping).returncode == 0
    assert a


def test_a_rate_holds_from_the_start_and_is_taken_back_live(podium: Podium, pair: tuple[str, str]) -> None:
    name = pair[1]
    podium.lxc("config", "device", "override", name, "eth0", "limits.max=10Mbit")
    podium.lxc("restart", "-f", name)
    assert _rates(podium, name) == ["10Mbit"]
    podium.lxc("config", "device", "set", name, "eth0", "limits.max=20Mbit")
    assert _rates(podium, name) == ["20Mbit"]
    podium.lxc("config", "device", "remove", name, "eth0")
    assert _rates(podium, name) == []


def _rates(podium: Podium, name: str) -> list[str]:
    host_name = podium.lxc("config", "get", name, "volatile.eth0.host_name").strip()
    argv = ["tc", "class", "show", "dev", host_name]
    shown = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=10).stdout
    return [line.split("rate ")[1].split()[0] for line in shown.splitlines() if "rate " in line]


def test_the_network_commands_of_the_client(podium: Podium, pair: tuple[str, str]) -> None:
    name = f"pn{secrets.token_hex(3)}"
    podium.lxc("network", "create", name, "ipv6.address=none", "dns.search=a.example,b.example")
    podium.lxc("network", "set", name, "bridge.mtu", "1400")
    assert podium.lxc("network", "get", name, "bridge.mtu").strip() == "1400"
    assert "MTU: 1400" in podium.lxc("network", "info", name)
    podium.lxc("network", "unset", name, "bridge.mtu")
    assert "MTU: 1500" in podium.lxc("network", "info", name)
    podium.lxc("network", "attach", name, pair[0], "eth5", "eth5")
    assert "eth5" in _links(podium, pair[0])
    assert f"/1.0/instances/{pair[0]}" in podium.lxc("network", "show", name)
    assert podium.run("network", "delete", name).returncode == 1
    podium.lxc("network", "detach", name, pair[0])
    podium.lxc("profile", "create", "onnet")
    podium.lxc("network", "attach-profile", name, "onnet", "eth1")
    podium.lxc("network", "detach-profile", name, "onnet")
    podium.lxc("profile", "delete", "onnet")
    podium.lxc("network", "rename", name, f"{name}x")
    podium.lxc("network", "edit", f"{name}x", input=b"description: hello\nconfig: {ipv4.nat: 'true'}\n")
    assert "hello" in podium.lxc("network", "list")
    refused = podium.run("network", "set", f"{name}x", "raw.dnsmasq", "x")
    assert b"not supported" in refused.stderr
    podium.lxc("network", "delete", f"{name}x")


def test_a_killed_dns_server_is_back_within_seconds(podium: Podium) -> None:
    before = _dnsmasq(podium)
    os.kill(before, signal.SIGKILL)
    pid_file = podium.state_dir / "networks" / podium.settings.bridge / "dnsmasq.pid"
    wait_for(lambda: pid_file.exists() and _dnsmasq(podium) != before, 10)


def test_a_bridge_deleted_by_hand_returns_and_running_containers_with_it(
    podium: Podium, pair: tuple[str, str]
) -> None:
    subprocess.run(["ip", "link", "delete", podium.settings.bridge], check=True, timeout=10)
    for name in pair:
        wait_for(
            lambda name=name: podium.run("exec", name, "--", "ping", "-c1", "-W1", pair[0]).returncode == 0
        )
    assert podium.run("exec", pair[1], "--", "getent", "ahostsv4", f"{pair[0]}.lxd").returncode == 0


def test_a_killed_network_service_comes_back_without_touching_anything(podium: Podium) -> None:
    before = (_dnsmasq(podium), _rules(podium))
    _restart_network(podium)
    time.sleep(1)
    assert (_dnsmasq(podium), _rules(podium)) == before


def test_keys_of_a_network_are_set_and_unset_as_lxd_does(podium: Podium) -> None:
    """Addresses are chosen again where the rest fits them, never unasked; what is no key cannot be unset."""
    name = "pkeys0"
    podium.lxc("network", "create", name, "ipv4.address=10.213.77.1/24", "ipv6.address=none")
    try:
        podium.lxc("network", "set", name, "ipv4.dhcp.ranges=10.213.77.5-10.213.77.9")
        assert (
            b"10.213.77.5-10.213.77.9 is not within"
            in podium.run("network", "set", name, "ipv4.address=auto").stderr
        )
        podium.lxc("network", "set", name, "ipv4.dhcp.ranges=", "ipv4.address=auto")
        chosen = _config(podium, name)
        assert chosen["ipv4.address"] not in ("10.213.77.1/24", "auto")
        assert "ipv4.nat" not in chosen  # as little as one that was given brings it
        refused = podium.run("network", "unset", name, "nosuch").stderr.decode()
        assert f'Invalid option for network "{name}" option "nosuch"' in refused
        for _ in range(2):
            podium.lxc("query", "-X", "PUT", f"/1.0/networks/{name}", "-d", "{}")
            assert _config(podium, name) == {}
    finally:
        podium.lxc("network", "delete", name)


def test_what_is_there_or_is_not_is_said_in_lxds_words(podium: Podium) -> None:
    for argv, said in (
        (("create", "lo", "ipv4.address=none"), 'Network interface "lo" already exists'),
        (("create", podium.settings.bridge, "ipv4.address=none"), "The network already exists"),
        (("edit", "nosuch"), "Failed loading network: Network not found"),
        (("edit", "lo"), "Failed loading network: Network not found"),
        (("forward", "show", "nosuch", "192.0.2.1"), "Failed loading network: Network not found"),
        (("peer", "list", "nosuch"), "Failed loading network: Network not found"),
        (("set", "nosuch", "user.x=1"), "Error: Network not found"),
    ):
        assert said in podium.run("network", *argv, input=b"{}").stderr.decode()


def test_a_conflict_is_listed_acknowledged_and_resolved(podium: Podium) -> None:
    """A subnet that somebody else uses too; on an interface that is down, so that nobody is disturbed."""
    other = f"pw{secrets.token_hex(3)}"
    taken = ip_interface(_config(podium)["ipv4.address"]).network[-2]
    for argv in (["link", "add", other, "type", "bridge"], ["addr", "add", f"{taken}/25", "dev", other]):
        subprocess.run(["ip", *argv], check=True, timeout=10)
    try:
        _restart_network(podium)
        [warning] = wait_for(lambda: _overlaps(podium))  # type: ignore[misc]
        assert other in warning["last_message"]
        assert warning["entity_url"] == f"/1.0/networks/{podium.settings.bridge}"
        assert "Subnet overlaps" in podium.lxc("warning", "list")
        podium.lxc("warning", "acknowledge", warning["uuid"])
        assert "acknowledged" in podium.lxc("warning", "show", warning["uuid"])
    finally:
        subprocess.run(["ip", "link", "delete", other], check=True, timeout=10)
    _restart_network(podium)
    wait_for(lambda: _overlaps(podium)[0]["status"] == "resolved")
    podium.lxc("warning", "delete", warning["uuid"])
    assert _overlaps(podium) == []


def _overlaps(podium: Podium) -> list[dict[str, str]]:
    found = json.loads(podium.lxc("query", "/1.0/warnings?recursion=1"))
    return [w for w in found if w["type"].startswith("Subnet overlaps")]
