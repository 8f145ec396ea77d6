"""Bonds and bridges, as /sys of other hosts shows them."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.hardware import links
from gateway.hardware.files import Host


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(sys=tmp_path)


def lay(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_text(f"{content}\n")


def test_a_bond_tells_how_it_works_and_of_what(host: Host) -> None:
    lay(host.sys / "class/net/no-such0/bonding", mode="802.3ad 4", xmit_hash_policy="layer3+4 1",
        updelay="200", downdelay="0", miimon="100", mii_status="up", slaves="no-such1 no-such2")  # fmt: skip
    assert links.bond(host, "no-such0") == {
        "mode": "802.3ad",
        "transmit_policy": "layer3+4",
        "up_delay": 200,
        "down_delay": 0,
        "mii_frequency": 100,
        "mii_state": "up",
        "lower_devices": ["no-such1", "no-such2"],
    }


def test_a_bridge_tells_how_it_treats_vlans(host: Host) -> None:
    lay(host.sys / "class/net/no-such0/bridge", stp_state="1", default_pvid="1", vlan_filtering="1")
    assert links.bridge(host, "no-such0") == {"stp": True, "vlan_default": 1, "vlan_filtering": True}


def test_what_is_neither_says_nothing(host: Host) -> None:
    lay(host.sys / "class/net/no-such0", type="1")
    assert links.bond(host, "no-such0") is None and links.bridge(host, "no-such0") == {}
    assert links.bond(host, "no-such9") is None
