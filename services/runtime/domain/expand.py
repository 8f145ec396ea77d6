"""What the devices of an instance may be, after its profiles were applied. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from core.configkeys.devices.disk import is_root
from core.configkeys.devices.registry import check_instance_devices
from core.configkeys.instance import check_expanded
from core.configkeys.nic import PHYSICAL
from core.errors import Invalid
from core.policy.expansion import Expanded as Expanded
from core.policy.expansion import expand as expand
from core.units import parse_bytes

Devices = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class Root:
    """The root disk: size in bytes, 0 for no bound."""

    pool: str
    size: int


def check(expanded: Expanded) -> None:
    """Check keys and devices of the merged object. Raises: Invalid, naming what is wrong."""
    check_expanded(expanded.config)
    check_instance_devices(expanded.devices)


def root_of(devices: Devices) -> Root:
    """Return the root disk. Raises: Invalid when there is none or more than one."""
    root = find_root(devices)
    if root is None:
        raise Invalid("NO_ROOT", "No root device could be found")
    return root


def find_root(devices: Devices) -> Root | None:
    """Return the root disk; an instance that was given no profile any more has none and cannot start.

    Raises: Invalid when there is more than one.
    """
    found = [options for options in devices.values() if is_root(options)]
    if not found:
        return None
    if len(found) > 1:
        raise Invalid("TWO_ROOTS", "Failed detecting root disk device: More than one root device found")
    return Root(found[0]["pool"], parse_bytes(found[0].get("size") or "0"))


def nics_of(devices: Devices) -> dict[str, dict[str, str]]:
    """Return the devices that the network service plugs; an InfiniBand card's interface is one of them."""
    found = {name: _as_nic(options) for name, options in sorted(devices.items())}
    return {name: options for name, options in found.items() if options}


def differ_in_nics(before: Expanded, after: Expanded) -> bool:
    """Say whether two states of an instance are the same but for NICs, and nothing else follows from those.

    A proxy does: its translation names an address that a NIC was given.
    """
    others = [
        {name: options for name, options in one.devices.items() if options.get("type") != "nic"}
        for one in (before, after)
    ]
    has_proxies = any(options.get("type") == "proxy" for options in others[1].values())
    return before.config == after.config and others[0] == others[1] and not has_proxies


def _as_nic(options: Mapping[str, str]) -> dict[str, str]:
    if options.get("type") == "nic":
        return dict(options)
    if options.get("type") == "infiniband" and options.get("nictype") == PHYSICAL:
        kept = {key: options[key] for key in ("nictype", "parent", "name", "mtu") if key in options}
        return {"type": "nic", **kept}
    return {}
