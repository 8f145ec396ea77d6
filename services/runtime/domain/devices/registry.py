"""Which file plans which type of device."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import replace

from core.configkeys.devices.unix import is_required
from core.errors import WrongState
from services.runtime.domain.devices import disk, hotplug, others, proxy, unix
from services.runtime.domain.devices.plan import DevicePlan, Facts, Options, Planner

PLANNERS: dict[str, Planner] = {
    "disk": disk.plan,
    "gpu": hotplug.plan_gpu,
    "infiniband": others.plan_infiniband,
    "nic": others.plan_nothing,
    "none": others.plan_nothing,
    "proxy": proxy.plan,
    "tpm": others.plan_tpm,
    "unix-block": unix.plan,
    "unix-char": unix.plan,
    "unix-hotplug": hotplug.plan_hotplug,
    "usb": hotplug.plan_usb,
}
# Those that are not of files, networks or connections.
_OF_NODES = PLANNERS.keys() - {"disk", "nic", "none", "proxy"}


def plan_devices(
    devices: Mapping[str, Options],
    facts: Facts,
    *,
    kept: Mapping[str, DevicePlan] | None = None,
    optional: Container[str] = (),
) -> tuple[DevicePlan, ...]:
    """Return the plans of those that need work, in the order of plugging them.

    *kept*: of a running instance, the plans of what it has. There an *optional* device that cannot be
    started stays as it is, as when a pool is not open yet; one that follows the host is left out, since it
    was pulled out.

    Raises: WrongState naming the device that cannot be started.
    """
    plans = []
    for name, options in sorted(devices.items()):
        try:
            plans.append(_plan(name, options, devices, facts))
        except WrongState:
            if kept is None or name not in optional:
                raise
            if name in kept and not _follows(options):
                plans.append(kept[name])
    needed = [plan for plan in _each_place_once(plans) if plan != DevicePlan(plan.device)]
    return tuple(sorted(needed, key=lambda plan: (_depth(plan), plan.device)))


def _plan(name: str, options: Options, devices: Mapping[str, Options], facts: Facts) -> DevicePlan:
    if options["type"] == "proxy" and proxy.is_nat(options):
        return proxy.plan_nat(name, options, devices)
    return PLANNERS[options["type"]](name, options, facts)


def follows_host(devices: Mapping[str, Options]) -> bool:
    """Return whether any of them depends on what the host has at the moment."""
    return any(_follows(options) for options in devices.values())


def has_nodes(devices: Mapping[str, Options]) -> bool:
    """Return whether any of them is, or becomes, a device node inside."""
    return any(options["type"] in _OF_NODES for options in devices.values())


def _follows(options: Options) -> bool:
    if options["type"] in ("unix-char", "unix-block"):
        return not is_required(options)
    return options["type"] in ("usb", "unix-hotplug")


def _each_place_once(plans: list[DevicePlan]) -> Iterator[DevicePlan]:
    """Leave a node out where an earlier device has one: several may match the same device of the host."""
    taken: set[str] = set()
    for plan in plans:
        yield replace(plan, nodes=tuple(node for node in plan.nodes if node.path not in taken))
        taken |= {node.path for node in plan.nodes}


def _depth(plan: DevicePlan) -> int:
    """Mounts go below each other: outer ones first."""
    return max((bind.path.strip("/").count("/") for bind in plan.binds), default=-1)
