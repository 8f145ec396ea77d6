"""Records and figures as messages. Hand-written, because lists of instances are made by it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.policy.expansion import Expanded
from core.records import Instance, InstanceObserved, NicReservation
from protos.podium.runtime.v1 import instance_pb2 as pb
from services.runtime.kernel import links
from services.runtime.usecases.running.figures import Figures

STATUS = {
    "creating": pb.INSTANCE_STATUS_CREATING,
    "stopped": pb.INSTANCE_STATUS_STOPPED,
    "starting": pb.INSTANCE_STATUS_STARTING,
    "running": pb.INSTANCE_STATUS_RUNNING,
    "frozen": pb.INSTANCE_STATUS_FROZEN,
    "stopping": pb.INSTANCE_STATUS_STOPPING,
    "deleting": pb.INSTANCE_STATUS_DELETING,
    "error": pb.INSTANCE_STATUS_ERROR,
}


def instance(record: Instance, observed: InstanceObserved, expanded: Expanded, revision: int) -> pb.Instance:
    told = {"volatile.health": observed.health} if observed.health else {}
    if observed.restarts:
        told["volatile.restarts"] = str(observed.restarts)
    message = pb.Instance(
        id=record.id,
        project=record.project,
        name=record.name,
        description=record.description,
        architecture=record.architecture,
        ephemeral=record.ephemeral,
        profiles=record.profiles,
        config={**record.config, **observed.volatile, **told},
        expanded_config={**expanded.config, **observed.volatile, **told},
        status=STATUS[observed.status],
        status_message=observed.message,
        member=record.member,
        revision=revision,
    )
    for name, options in record.devices.items():
        message.devices[name].options.update(options)
    for name, merged in expanded.devices.items():
        message.expanded_devices[name].options.update(merged)
    message.created_at.FromNanoseconds(int(record.created_at * 1e9))
    if observed.last_used_at:
        message.last_used_at.FromNanoseconds(int(observed.last_used_at * 1e9))
    return message


def add_state(shown: pb.Instance, figures: Figures, disks: Mapping[str, int]) -> None:
    """Fill in the live figures. disks: bytes used by device, where they are known."""
    usage, message = figures.usage, shown.state
    message.status = STATUS[figures.observed.status]
    message.pid = figures.observed.pid
    message.processes = usage.processes
    message.cpu_usage_ns = usage.cpu_ns
    memory = message.memory
    memory.usage_bytes = usage.memory
    memory.usage_peak_bytes = usage.memory_peak
    memory.swap_usage_bytes = usage.swap
    memory.swap_usage_peak_bytes = usage.swap_peak
    memory.total_bytes = usage.memory_limit
    message.disk_usage_bytes.update(disks)
    for found in figures.interfaces:
        _interface(message.network[found.name], found, figures.nics.get(found.name))


def _interface(message: pb.InterfaceState, found: Any, nic: NicReservation | None) -> None:
    for a in found.addresses:
        message.addresses.add(family=a.family, address=a.address, prefix=a.prefix, scope=a.scope)
    for name, value in found.counters.items():
        setattr(message.counters, name, value)
    is_loopback = found.name == "lo"
    message.type = "loopback" if is_loopback else "broadcast"
    message.mtu = 65536 if is_loopback else 1500
    message.is_up = is_loopback or bool(found.addresses)
    if nic is None:
        return
    message.hwaddr = nic.options.get("hwaddr") or nic.taken.get("hwaddr") or nic.hwaddr
    # What is no end of a pair has no other end on the host; it hangs on its parent there.
    message.host_name = nic.parent if nic.nictype == "macvlan" else nic.host_name
    message.mtu = nic.mtu or links.mtu(nic.bridge or nic.parent) or int(nic.taken.get("mtu", 1500))
    message.is_up = message.is_up or links.has_carrier(nic.host_name)
