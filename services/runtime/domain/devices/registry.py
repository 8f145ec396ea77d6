"""Which file plans which type of device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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


def plan_devices(
    devices: Mapping[str, Options], facts: Facts, *, lenient: bool = False
) -> tuple[DevicePlan, ...]:
    """Return the plans of those that need work, in the order of plugging them.

    *lenient*: leave out what cannot be started, as when a device of a running instance is pulled out.

    Raises: WrongState naming the device that cannot be started.
    """
    plans = []
    for name, options in sorted(devices.items()):
        try:
            plans.append(PLANNERS[options["type"]](name, options, facts))
        except WrongState:
            if not lenient:
                raise
    needed = [plan for plan in _each_place_once(plans) if plan != DevicePlan(plan.device)]
    return tuple(sorted(needed, key=lambda plan: (_depth(plan), plan.device)))


def follows_host(devices: Mapping[str, Options]) -> bool:
    """Return whether any of them depends on what the host has at the moment."""
    kinds = {options["type"] for options in devices.values()}
    optional = (
        o for o in devices.values() if o["type"] in ("unix-char", "unix-block") and not is_required(o)
    )
    return bool(kinds & {"usb", "unix-hotplug"}) or any(optional)


def _each_place_once(plans: list[DevicePlan]) -> Iterator[DevicePlan]:
    """Leave a node out where an earlier device has one: several may match the same device of the host."""
    taken: set[str] = set()
    for plan in plans:
        yield replace(plan, nodes=tuple(node for node in plan.nodes if node.path not in taken))
        taken |= {node.path for node in plan.nodes}


def _depth(plan: DevicePlan) -> int:
    """Mounts go below each other: outer ones first."""
    return max((bind.path.strip("/").count("/") for bind in plan.binds), default=-1)
