"""Instances as LXD shows them. Hand-written: generic conversion is many times slower."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.lxd.codes import EPOCH, INSTANCE, READY, stamp_text
from protos.podium.runtime.v1 import instance_pb2 as pb

_READY = "volatile.last_state.ready"


def devices_json(devices: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    return {name: dict(device.options) for name, device in devices.items()}


def status_of(i: pb.Instance) -> tuple[str, int]:
    """Return status and code: a guest that said so by itself is more than running."""
    if i.status == pb.INSTANCE_STATUS_RUNNING and i.config.get(_READY) == "true":
        return READY
    return INSTANCE[i.status]


def instance_json(i: pb.Instance) -> dict[str, Any]:
    status, code = status_of(i)
    return {
        "architecture": i.architecture,
        "config": dict(i.config),
        "devices": devices_json(i.devices),
        "ephemeral": i.ephemeral,
        "profiles": list(i.profiles),
        "stateful": False,
        "description": i.description,
        "created_at": stamp_text(i, "created_at"),
        "expanded_config": dict(i.expanded_config),
        "expanded_devices": devices_json(i.expanded_devices),
        "name": i.name,
        "status": status,
        "status_code": code,
        "last_used_at": stamp_text(i, "last_used_at", EPOCH),
        "location": i.location or "none",
        "type": "container",
        "project": i.project,
    }


def full_json(
    i: pb.Instance, snapshots: list[dict[str, Any]] | None, backups: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    return {
        **instance_json(i),
        "backups": backups or None,
        "state": state_json(i),
        "snapshots": snapshots or None,
    }


def state_json(i: pb.Instance) -> dict[str, Any]:
    state = i.state
    status, code = status_of(i)
    memory = state.memory
    return {
        "status": status,
        "status_code": code,
        "disk": {name: {"usage": used} for name, used in state.disk_usage_bytes.items()},
        "memory": {
            "usage": memory.usage_bytes,
            "usage_peak": memory.usage_peak_bytes,
            "swap_usage": memory.swap_usage_bytes,
            "swap_usage_peak": memory.swap_usage_peak_bytes,
        },
        "network": {name: interface_json(n) for name, n in state.network.items()} or None,
        "pid": state.pid,
        "processes": state.processes,
        "cpu": {"usage": state.cpu_usage_ns},
    }


def interface_json(n: pb.InterfaceState) -> dict[str, Any]:
    return {
        "addresses": addresses_json(n.addresses),
        "counters": counters_json(n.counters),
        "hwaddr": n.hwaddr,
        "host_name": n.host_name,
        "mtu": n.mtu,
        "state": "up" if n.is_up else "down",
        "type": n.type,
    }


def addresses_json(addresses: Any) -> list[dict[str, str]]:
    return [
        {"family": a.family, "address": a.address, "netmask": str(a.prefix), "scope": a.scope}
        for a in addresses
    ]


def counters_json(c: Any) -> dict[str, int]:
    return {
        "bytes_received": c.bytes_received,
        "bytes_sent": c.bytes_sent,
        "packets_received": c.packets_received,
        "packets_sent": c.packets_sent,
        "errors_received": c.errors_received,
        "errors_sent": c.errors_sent,
        "packets_dropped_outbound": c.packets_dropped_outbound,
        "packets_dropped_inbound": c.packets_dropped_inbound,
    }
