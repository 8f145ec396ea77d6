"""Snapshots of instances as LXD shows them."""

from __future__ import annotations

from typing import Any

from gateway.lxd.codes import NEVER, stamp_text
from gateway.lxd.views.instances import devices_json
from protos.podium.runtime.v1 import snapshot_pb2 as pb


def snapshot_json(s: pb.Snapshot) -> dict[str, Any]:
    was = s.instance
    return {
        "architecture": was.architecture,
        "config": dict(was.config),
        "created_at": stamp_text(s, "created_at"),
        "devices": devices_json(was.devices),
        "ephemeral": was.ephemeral,
        "expanded_config": dict(was.expanded_config),
        "expanded_devices": devices_json(was.expanded_devices),
        "expires_at": stamp_text(s, "expires_at", NEVER),
        "last_used_at": stamp_text(was, "last_used_at", NEVER),
        "name": s.name,
        "profiles": list(was.profiles),
        "stateful": s.stateful,
        "size": s.size_bytes,
    }
