"""What LXD's backups say of an instance: index.yaml and backup.yaml. Pure.

Source: lxd/backup/config/backup_config.go and lxd/backup/backup_info.go of LXD 5.0.2, and its archives.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import yaml

from core.records import Instance, Pool, Profile, Volume, VolumeSnapshot
from services.runtime.domain.expand import Expanded

INDEX = "backup/index.yaml"
CONTAINER = "backup/container"
SNAPSHOTS = "backup/snapshots"
VOLUME, VOLUME_SNAPSHOTS = "backup/volume", "backup/volume-snapshots"
_NEVER = "0001-01-01T00:00:00Z"


@dataclass(frozen=True)
class Frozen:
    """An instance or snapshot, with its volatile keys and what its profiles make of it."""

    name: str
    instance: Instance
    volatile: Mapping[str, str]
    expanded: Expanded
    created_at: float = 0.0
    expires_at: float = 0.0
    last_used_at: float = 0.0


class _Time(str):
    """Written plain: Go reads a quoted time as text."""


class _Dumper(yaml.CSafeDumper):
    """Writes what is the same twice, since readers who fear bombs take no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(
    _Time, lambda dumper, value: dumper.represent_scalar("tag:yaml.org,2002:timestamp", str(value))
)


def files(
    instance: Frozen, snapshots: Sequence[Frozen], pool: Pool, profiles: Iterable[Profile]
) -> dict[str, bytes]:
    """Return index.yaml and every backup.yaml of an archive, by path."""
    config = _config(instance, snapshots, pool, profiles)
    index: dict[str, Any] = {"name": instance.name, "backend": pool.driver, "pool": pool.name}
    if snapshots:
        index["snapshots"] = [snapshot.name for snapshot in snapshots]
    index |= {"optimized": False, "optimized_header": False, "type": "container", "config": config}
    found = {INDEX: _yaml(index), f"{CONTAINER}/backup.yaml": _yaml(config)}
    for snapshot in snapshots:
        found[f"{SNAPSHOTS}/{snapshot.name}/backup.yaml"] = found[f"{CONTAINER}/backup.yaml"]
    return found


def volume_files(volume: Volume, snapshots: Sequence[VolumeSnapshot], pool: Pool) -> dict[str, bytes]:
    """Return index.yaml of the archive of a custom volume, by path."""
    index: dict[str, Any] = {"name": volume.name, "backend": pool.driver, "pool": pool.name}
    if snapshots:
        index["snapshots"] = [snapshot.name for snapshot in snapshots]
    config: dict[str, Any] = {
        "volume": {
            "config": volume.config,
            "description": volume.description,
            "name": volume.name,
            "type": "custom",
            "used_by": [],
            "location": "none",
            "content_type": volume.content_type,
            "project": volume.project,
            "created_at": _Time(_NEVER),
        }
    }
    if snapshots:
        config["volume_snapshots"] = [_volume_snapshot(snapshot) for snapshot in snapshots]
    index |= {"optimized": False, "optimized_header": False, "type": "custom", "config": config}
    return {INDEX: _yaml(index)}


def _volume_snapshot(snapshot: VolumeSnapshot) -> dict[str, Any]:
    return {
        "description": snapshot.description,
        "expires_at": _time(snapshot.expires_at),
        "name": snapshot.name,
        "config": snapshot.config,
        "content_type": "filesystem",
        "created_at": _time(snapshot.created_at),
    }


def metadata(instance: Instance, came: Mapping[str, Any]) -> bytes:
    """Return metadata.yaml: what *came* with the root, or the least that LXD takes."""
    least = {"architecture": instance.architecture, "creation_date": int(instance.created_at)}
    return _yaml({**least, "templates": {}, **came})


def _config(
    frozen: Frozen, snapshots: Sequence[Frozen], pool: Pool, profiles: Iterable[Profile]
) -> dict[str, Any]:
    config: dict[str, Any] = {
        "container": {
            **_described(frozen),
            "name": frozen.name,
            "status": "Stopped",
            "status_code": 102,
            "last_used_at": _time(frozen.last_used_at),
            "location": "none",
            "type": "container",
            "project": frozen.instance.project,
        }
    }
    if snapshots:
        config["snapshots"] = [_snapshot(snapshot) for snapshot in snapshots]
    config["pool"] = {
        "config": dict(pool.config),
        "description": pool.description,
        "name": pool.name,
        "driver": pool.driver,
        "used_by": [],
        "status": "Created",
        "locations": ["none"],
    }
    config["profiles"] = [
        {
            "config": dict(p.config),
            "description": p.description,
            "devices": dict(p.devices),
            "name": p.name,
            "used_by": [],
        }
        for p in profiles
    ]
    volume = {"config": {}, "description": "", "created_at": _time(0), "content_type": "filesystem"}
    where = {
        "name": frozen.name,
        "type": "container",
        "used_by": [],
        "location": "none",
        "project": frozen.instance.project,
    }
    config["volume"] = {**volume, **where}
    if snapshots:
        config["volume_snapshots"] = [
            {**volume, "name": snapshot.name, "expires_at": _time(snapshot.expires_at)}
            for snapshot in snapshots
        ]
    return config


def _snapshot(frozen: Frozen) -> dict[str, Any]:
    return {
        **_described(frozen),
        "expires_at": _time(frozen.expires_at),
        "last_used_at": _time(frozen.last_used_at),
        "name": frozen.name,
        "size": -1,
    }


def _described(frozen: Frozen) -> dict[str, Any]:
    instance, expanded = frozen.instance, frozen.expanded
    # Archives hold the ids that the guest sees, whatever they are where it runs.
    volatile = {**frozen.volatile, "volatile.last_state.idmap": "[]"}
    return {
        "architecture": instance.architecture,
        "config": {**instance.config, **volatile},
        "devices": dict(instance.devices),
        "ephemeral": instance.ephemeral,
        "profiles": list(instance.profiles),
        "stateful": False,
        "description": instance.description,
        "created_at": _time(frozen.created_at or instance.created_at),
        "expanded_config": {**expanded.config, **volatile},
        "expanded_devices": dict(expanded.devices),
    }


def _time(seconds: float) -> _Time:
    if not seconds:
        return _Time(_NEVER)
    return _Time(datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"))


def _yaml(value: Any) -> bytes:
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1 << 20).encode()
