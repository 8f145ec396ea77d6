"""NICs of every type: what LXD 5.0.2 takes, what it refuses, and in which words."""

from __future__ import annotations

import re

import pytest

from core.configkeys import nic, uplink
from core.errors import Invalid

NETWORKS = {"br": "bridge", "mv": "macvlan"}


def _check(text: str) -> None:
    nic.check({"type": "nic", **dict(part.split("=", 1) for part in text.split())}, NETWORKS)


@pytest.mark.parametrize(
    "text",
    [
        "nictype=p2p",
        "nictype=p2p host_name=foo0 ipv4.routes=192.0.2.10/32 limits.max=1Mbit",
        "nictype=sriov parent=eth9",
        "nictype=routed",
        "nictype=routed parent=eth9 ipv4.address=192.0.2.10,192.0.2.11 ipv6.address=2001:db8::5",
        "nictype=routed ipv4.address=192.0.2.10 ipv4.gateway=none ipv4.host_address=169.254.0.5",
        "nictype=routed ipv4.address=192.0.2.10 ipv4.neighbor_probe=false ipv4.host_table=100",
        "nictype=macvlan parent=eth9 gvrp=true vlan=5",
        "nictype=physical parent=eth9 hwaddr=00:16:3e:11:22:33 mtu=1400",
        "nictype=bridged parent=eth9 vlan=0 vlan.tagged=3-5,7 security.port_isolation=true",
        "nictype=bridged parent=eth9 ipv4.address=10.0.0.5 security.ipv4_filtering=true",
        "nictype=bridged parent=br ipv4.address=10.0.0.5",
        "nictype=ipvlan parent=eth9 mode=l2 ipv4.address=192.0.2.10",
        "network=br ipv4.routes.external=10.3.0.0/24 boot.priority=5",
        "network=mv name=eth1",
    ],
)
def test_what_lxd_takes_is_taken(text: str) -> None:
    """A parent need not exist: that is looked at when the NIC is made."""
    _check(text)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("nictype=bogus", "Unsupported device type"),
        ("name=eth1", "Unsupported device type"),
        ("nictype=p2p parent=br9", 'Invalid device option "parent"'),
        ("nictype=macvlan", 'Invalid value for device option "parent": Required value'),
        ("nictype=macvlan parent=eth9 host_name=foo", 'Invalid device option "host_name"'),
        ("nictype=macvlan parent=eth9 mode=bridge", 'Invalid device option "mode"'),
        ("nictype=physical parent=eth9 limits.max=1Mbit", 'Invalid device option "limits.max"'),
        (
            "nictype=bridged parent=eth9 ipv4.address=10.0.0.5",
            "Cannot use manually specified ipv4.address when using unmanaged parent bridge",
        ),
        (
            "nictype=bridged parent=eth9 security.ipv4_filtering=true",
            "IPv4 filtering requires a manually specified ipv4.address when using an unmanaged parent bridge",
        ),
        (
            "network=br ipv4.address=none",
            "Cannot have ipv4.address as none unless using security.ipv4_filtering",
        ),
        (
            "nictype=bridged parent=eth9 vlan=5000",
            'Invalid value for device option "vlan": Out of VLAN ID range (0-4094) "5000"',
        ),
        (
            "nictype=bridged parent=eth9 vlan=7 vlan.tagged=5-8",
            'Invalid value for device option "vlan.tagged": Tagged VLAN ID "7" cannot be the same as untagged'
            " VLAN ID",
        ),
        (
            "nictype=bridged parent=eth9 vlan.tagged=x",
            'Invalid value for device option "vlan.tagged": Invalid VLAN range input: x',
        ),
        (
            "nictype=bridged parent=eth9 vlan.tagged=5-3",
            'Invalid value for device option "vlan.tagged": '
            "Invalid VLAN range boundary. start:5 is higher than end:3",
        ),
        (
            "nictype=bridged parent=eth9 boot.priority=x",
            'Invalid value for device option "boot.priority": Invalid value for uint32 "x": '
            'strconv.ParseUint: parsing "x": invalid syntax',
        ),
        (
            "nictype=bridged parent=eth9 hwaddr=xx",
            'Invalid value for device option "hwaddr": '
            "Invalid MAC address, must be 6 bytes of hex separated by colons",
        ),
        ("nictype=p2p mtu=abc", 'Invalid value for device option "mtu": Invalid MTU "abc"'),
        ("nictype=p2p mtu=10", 'Invalid value for device option "mtu": Out of MTU range (1280-16384) "10"'),
        (
            "nictype=p2p name=a/b",
            'Invalid value for device option "name": Network interface contains invalid characters',
        ),
        (
            "nictype=p2p ipv4.routes=10.3.0.1",
            'Invalid value for device option "ipv4.routes": Item "10.3.0.1": invalid CIDR address: 10.3.0.1',
        ),
        ("network=br parent=eth9", 'Cannot use "parent" property in conjunction with "network" property'),
        ("network=br mtu=1400", 'Cannot use "mtu" property in conjunction with "network" property'),
        ("network=mv vlan=5", 'Cannot use "vlan" property in conjunction with "network" property'),
        ("network=nope", 'Failed to load network "nope" for project "default": Network not found'),
        (
            "nictype=routed ipv4.address=192.0.2.10/24",
            'Invalid value for device option "ipv4.address": Item "192.0.2.10/24": '
            'Not an IPv4 address "192.0.2.10/24"',
        ),
        (
            "nictype=routed ipv4.address=192.0.2.10,192.0.2.10",
            'Duplicate address "192.0.2.10" in "ipv4.address"',
        ),
        (
            "nictype=routed ipv4.address=192.0.2.10 ipv4.gateway=10.0.0.1",
            'Invalid value for device option "ipv4.gateway": Invalid gateway: 10.0.0.1',
        ),
        ("nictype=routed ipv4.routes=10.3.0.0/24", "ipv4.routes requires ipv4.address to be set"),
        (
            "nictype=routed ipv4.address=192.0.2.10 vlan=5",
            "The vlan setting can only be used when combined with a parent interface",
        ),
        (
            "nictype=ipvlan parent=eth9 mode=l9",
            'Invalid value for device option "mode": Must be one of: l3s, l2',
        ),
    ],
)
def test_what_lxd_refuses_is_refused_in_its_words(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        _check(text)


def test_a_profile_may_name_a_network_that_is_not_known_here() -> None:
    nic.check({"type": "nic", "network": "elsewhere"}, None)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({}, 'Invalid value for network "n" option "parent": Required value'),
        (
            {"parent": "eth9", "vlan": "9999"},
            'Invalid value for network "n" option "vlan": Out of VLAN ID range (0-4094) "9999"',
        ),
        (
            {"parent": "eth9", "ipv4.address": "10.0.0.1/24"},
            'Invalid option for network "n" option "ipv4.address"',
        ),
    ],
)
def test_a_network_that_is_a_named_interface_has_few_keys(config: dict[str, str], sentence: str) -> None:
    with pytest.raises(Invalid, match=re.escape(sentence)):
        uplink.check("n", "macvlan", config)
