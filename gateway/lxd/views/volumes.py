"""Volumes of storage pools as LXD shows them. LXD 5.0 tells of none when it was made."""

from __future__ import annotations

from typing import Any

from gateway.lxd.codes import NEVER, stamp_text
from gateway.lxd.views.others import used_by


def volume_json(v: Any) -> dict[str, Any]:
    """Return a volume of an instance or of an image."""
    return _volume(v.name, v.type, v.project, dict(v.config), v.description, used_by(v.used_by))


def custom_json(v: Any) -> dict[str, Any]:
    return _volume(v.name, "custom", v.project, dict(v.config), v.description, used_by(v.used_by))


def snapshot_as_volume(v: Any, s: Any) -> dict[str, Any]:
    """Return a snapshot as it stands in lists of volumes."""
    return _volume(f"{v.name}/{s.name}", "custom", v.project, dict(s.config), s.description, [])


def _volume(
    name: str, kind: str, project: str, config: dict[str, str], description: str, users: list[str]
) -> dict[str, Any]:
    return {
        "config": config,
        "description": description,
        "name": name,
        "type": kind,
        "used_by": users,
        "location": "none",
        "content_type": "filesystem",
        "project": project,
        "created_at": NEVER,
    }


def backup_json(b: Any) -> dict[str, Any]:
    return {
        "name": b.name,
        "created_at": stamp_text(b, "created_at"),
        "expires_at": stamp_text(b, "expires_at", NEVER),
        "volume_only": b.instance_only,
        "optimized_storage": False,
    }


def snapshot_json(s: Any) -> dict[str, Any]:
    return {
        "description": s.description,
        "expires_at": stamp_text(s, "expires_at", NEVER),
        "name": s.name,
        "config": dict(s.config),
        "content_type": "filesystem",
        "created_at": NEVER,
    }


def snapshot_in_list(v: Any, s: Any) -> dict[str, Any]:
    """Return a snapshot as in the list of a volume's snapshots: it has its whole name there."""
    expires_at = stamp_text(s, "expires_at") if s.HasField("expires_at") else None
    return {**snapshot_json(s), "name": f"{v.name}/{s.name}", "content_type": "", "expires_at": expires_at}


def system_snapshot_json(name: str) -> dict[str, Any]:
    """Return a snapshot of an instance's volume: of those LXD 5.0 tells no more here than the name."""
    return {
        "config": {},
        "description": "",
        "expires_at": NEVER,
        "name": name,
        "content_type": "filesystem",
        "created_at": NEVER,
    }


def system_snapshot_in_list(name: str) -> dict[str, Any]:
    return {**system_snapshot_json(name), "expires_at": None, "content_type": ""}
