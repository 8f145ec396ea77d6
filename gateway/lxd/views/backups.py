"""Backups of instances as LXD shows them."""

from __future__ import annotations

from typing import Any

from gateway.lxd.codes import NEVER, stamp_text
from protos.podium.runtime.v1 import transfer_pb2 as pb


def backup_json(b: pb.Backup) -> dict[str, Any]:
    return {
        "name": b.name,
        "created_at": stamp_text(b, "created_at"),
        "expires_at": stamp_text(b, "expires_at", NEVER),
        "instance_only": b.instance_only,
        "container_only": b.instance_only,
        # A storage driver's own stream is never made: it could be read by that driver only.
        "optimized_storage": False,
    }
