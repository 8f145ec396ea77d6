"""What bonds and bridges of this host are made of and set to, as /sys tells it."""

from __future__ import annotations

from typing import Any

from gateway.hardware.files import Host, number, text

Json = dict[str, Any]


def bond(host: Host, name: str) -> Json | None:
    """Return the state of a bond in LXD's shape, delays in milliseconds; None for what is no bond."""
    folder = host.sys / "class/net" / name / "bonding"
    if not folder.is_dir():
        return None
    return {
        "mode": text(folder / "mode").partition(" ")[0],
        "transmit_policy": text(folder / "xmit_hash_policy").partition(" ")[0],
        "up_delay": number(folder / "updelay"),
        "down_delay": number(folder / "downdelay"),
        "mii_frequency": number(folder / "miimon"),
        "mii_state": text(folder / "mii_status"),
        "lower_devices": text(folder / "slaves").split(),
    }


def bridge(host: Host, name: str) -> Json:
    """Return how the kernel's bridge is set; nothing for what is none."""
    folder = host.sys / "class/net" / name / "bridge"
    if not folder.is_dir():
        return {}
    return {
        "stp": number(folder / "stp_state") > 0,
        "vlan_default": number(folder / "default_pvid"),
        "vlan_filtering": number(folder / "vlan_filtering") == 1,
    }
