"""What an instance that came as an archive becomes here. Pure.

The archive is a stranger's: this only translates it. Whether there may be such an instance, the policy says.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from core.configkeys.devices.disk import is_root
from core.configkeys.schema import without_empty
from core.names import is_fingerprint
from core.records import Instance, Profile, Snapshot
from services.runtime.domain.snapshots import snapshot_name

_BASE_IMAGE, _APPLY_TEMPLATE = "volatile.base_image", "volatile.apply_template"
_HWADDR = re.compile(r"volatile\.[a-zA-Z0-9_.-]{1,64}\.hwaddr")
_TRIGGERS = ("create", "copy")


@dataclass(frozen=True)
class ArrivedEntry:
    """An instance or snapshot as its archive describes it; nothing of it is checked but its shape.

    base_dir: its root in the base; shift: what is added to each id there.
    """

    name: str
    base_dir: str
    shift: int = 0
    description: str = ""
    architecture: str = ""
    ephemeral: bool = False
    profiles: tuple[str, ...] = ()
    config: dict[str, str] = field(default_factory=dict)
    devices: dict[str, dict[str, str]] = field(default_factory=dict)
    created_at: float = 0.0
    last_used_at: float = 0.0
    expires_at: float = 0.0


@dataclass(frozen=True)
class Arrived:
    """An archive that was received and converted. pool: where it came from."""

    fingerprint: str
    pool: str
    instance: ArrivedEntry
    snapshots: tuple[ArrivedEntry, ...] = ()
    kind: str = "container"


def without_volatile(config: Mapping[str, str]) -> dict[str, str]:
    return {k: v for k, v in without_empty(dict(config)).items() if not k.startswith("volatile.")}


def instance_of(entry: ArrivedEntry, fingerprint: str, instance: Instance) -> Instance:
    """Return *instance* with the specification of *entry*, its root in the base *fingerprint*."""
    return replace(
        instance,
        description=entry.description,
        architecture=entry.architecture or platform.machine(),
        ephemeral=entry.ephemeral,
        profiles=entry.profiles,
        config=without_volatile(entry.config),
        devices={name: dict(options) for name, options in entry.devices.items()},
        created_at=entry.created_at or instance.created_at,
        image=fingerprint,
        base_dir=entry.base_dir,
        base_shift=entry.shift,
    )


def snapshot_of(entry: ArrivedEntry, fingerprint: str, instance: Instance, id: str, *, name: str) -> Snapshot:
    """Return the record of a snapshot of *instance*, not whole yet; *name* is what its root says it is.

    Raises: Invalid.
    """
    was = replace(instance_of(entry, fingerprint, instance), name=name)
    return Snapshot(
        id=id,
        instance_id=instance.id,
        name=snapshot_name(entry.name),
        instance=replace(was, devices=in_pool(was.devices, instance.pool)),
        volatile={key: value for key, value in kept_volatile(entry).items() if value},
        created_at=entry.created_at or instance.created_at,
        expires_at=entry.expires_at,
        last_used_at=entry.last_used_at,
    )


def kept_volatile(entry: ArrivedEntry) -> dict[str, str]:
    """Return the volatile keys that an instance keeps wherever it goes; "" for one that it must not have."""
    found = {key: value for key, value in entry.config.items() if _HWADDR.fullmatch(key)}
    if is_fingerprint(entry.config.get(_BASE_IMAGE, "")):
        found[_BASE_IMAGE] = entry.config[_BASE_IMAGE]
    waiting = entry.config.get(_APPLY_TEMPLATE, "")
    # What did not run since it was made still waits for its templates; all others have them.
    return {**found, _APPLY_TEMPLATE: waiting if waiting in _TRIGGERS else ""}


def in_pool(devices: Mapping[str, Mapping[str, str]], pool: str) -> dict[str, dict[str, str]]:
    """Return *devices* with the root disk, if there is one among them, in *pool*."""
    return {
        name: {**options, "pool": pool} if is_root(options) else dict(options)
        for name, options in devices.items()
    }


def with_root(
    devices: Mapping[str, Mapping[str, str]], profiles: Iterable[Profile], pool: str
) -> dict[str, dict[str, str]]:
    """Return *devices* so that the root disk lies in *pool*, whatever the profiles say.

    Source: internalImportRootDevicePopulate of LXD 5.0.2.
    """
    if any(is_root(options) for options in devices.values()):
        return in_pool(devices, pool)
    inherited = [options for profile in profiles for options in profile.devices.values() if is_root(options)]
    found = {name: dict(options) for name, options in devices.items()}
    if inherited and inherited[-1].get("pool") == pool:
        return found
    name = next(n for n in ("root", *(f"root{i}" for i in range(len(devices) + 1))) if n not in devices)
    return {**found, name: {"type": "disk", "path": "/", "pool": pool}}
