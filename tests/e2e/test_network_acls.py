"""ACLs, forwards and the like with the stock client, against running containers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Podium
from tests.e2e.test_launch import wait_for
from tests.subnets import lone


@pytest.fixture(scope="module")
def pair(podium: Podium) -> Iterator[tuple[str, str]]:
    names = ("acl-a", "acl-b")
    for name in names:
        podium.lxc("launch", "debian/12", name)
    for name in names:
        wait_for(lambda name=name: b"routable" in podium.run("exec", name, "--", "networkctl", "list").stdout)
    yield names
    podium.lxc("delete", "-f", *names)


def _pings(podium: Podium, source: str, target: str) -> bool:
    return podium.run("exec", source, "--", "ping", "-4", "-c1", "-W1", target).returncode == 0


def test_an_acl_bounds_a_running_container_at_once(podium: Podium, pair: tuple[str, str]) -> None:
    """On the network, on one NIC, edited while it is in use; names still resolve."""
    a, b = pair
    bridge = podium.settings.bridge
    podium.lxc("network", "acl", "create", "fence", "user.note=x")
    podium.lxc("network", "acl", "rule", "add", "fence", "egress", "action=allow")
    wait_for(lambda: _pings(podium, a, b))
    podium.lxc("config", "device", "override", b, "eth0", "security.acls=fence")
    assert not _pings(podium, a, b)
    podium.lxc("network", "acl", "rule", "add", "fence", "ingress", "action=allow", "protocol=icmp4")
    assert _pings(podium, a, b)
    podium.lxc("config", "device", "remove", b, "eth0")
    podium.lxc("network", "set", bridge, "security.acls=fence")
    podium.lxc("network", "acl", "rule", "remove", "fence", "ingress", "protocol=icmp4")
    assert _pings(podium, a, b), "among instances an egress rule is enough"
    podium.lxc("network", "acl", "rule", "remove", "fence", "egress", "action=allow")
    assert not _pings(podium, a, b)
    shown = podium.lxc("network", "acl", "show", "fence")
    assert f"/1.0/networks/{bridge}" in shown
    for verb in (("delete", "fence"), ("rename", "fence", "other")):
        assert b"ACL that is in use" in podium.run("network", "acl", *verb).stderr
    podium.lxc("network", "unset", bridge, "security.acls")
    assert _pings(podium, a, b)
    podium.lxc("network", "acl", "delete", "fence")


def test_a_forward_is_made_changed_and_deleted(podium: Podium, pair: tuple[str, str]) -> None:
    a, _ = pair
    bridge, listen = podium.settings.bridge, lone(77)
    [target] = [x for x in podium.lxc("list", a, "-f", "csv", "-c", "4").split() if x[0].isdigit()]
    podium.lxc("network", "forward", "create", bridge, listen)
    podium.lxc("network", "forward", "port", "add", bridge, listen, "tcp", "2200", target, "22")
    assert "2200" in podium.lxc("network", "forward", "show", bridge, listen)
    refused = podium.run("network", "forward", "set", bridge, listen, f"target_address={target}").stderr
    assert b"Target address is same as default target address" in refused
    podium.lxc("network", "forward", "delete", bridge, listen)


def test_what_a_rule_logs_is_shown(podium: Podium, pair: tuple[str, str]) -> None:
    a, b = pair
    podium.lxc("network", "acl", "create", "seen")
    podium.lxc("network", "acl", "rule", "add", "seen", "ingress", "action=drop", "state=logged")
    podium.lxc("config", "device", "override", b, "eth0", "security.acls=seen")
    assert not _pings(podium, a, b)
    wait_for(lambda: '"proto": "icmp"' in podium.lxc("network", "acl", "show-log", "seen"), 5)
    podium.lxc("config", "device", "remove", b, "eth0")
    podium.lxc("network", "acl", "delete", "seen")
