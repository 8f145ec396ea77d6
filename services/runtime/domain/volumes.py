"""Custom volumes: what one may be, how it is called in errors, and who uses it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from core.configkeys.devices.disk import is_volume
from core.configkeys.schema import without_empty
from core.configkeys.storage import check_volume, volume_defaults
from core.errors import Invalid, Unsupported, WrongState
from core.names import in_project, volume_snapshot_name
from core.records import Pool, Volume
from core.units import parse_bool

Devices = Mapping[str, Mapping[str, str]]
FILESYSTEM = "filesystem"
_SHIFTING = ("security.shifted", "security.unmapped")


@dataclass(frozen=True)
class VolumeRef:
    """A custom volume, or one of its snapshots, as somebody in *project* names it."""

    pool: str
    project: str
    name: str
    snapshot: str = ""


@dataclass(frozen=True)
class Users:
    """URLs below /1.0 of what names a volume, and the names of the instances among them that run."""

    urls: tuple[str, ...] = ()
    running: tuple[str, ...] = ()


def check_new_snapshot(name: str) -> str:
    """Check what a new snapshot of a volume is called; later it may be renamed to more. Raises: Invalid."""
    if any(c.isspace() for c in name):
        raise Invalid("BAD_NAME", "Storage name cannot contain white space", about=name[:64])
    return volume_snapshot_name(name)


def check_content(kind: str) -> str:
    """Return the content type of a new volume. Raises: Invalid, Unsupported with the reason."""
    if kind in ("", FILESYSTEM):
        return FILESYSTEM
    if kind == "block":
        raise Unsupported(
            "NO_BLOCK", "Block volumes are disks of virtual machines, which Podium does not run", about=kind
        )
    more = ": an ISO is a disk of virtual machines, which Podium does not run" if kind == "iso" else ""
    raise Invalid("BAD_CONTENT", f"Invalid volume content type name{more}", about=kind[:40])


def checked_config(pool: Pool, project: str, name: str, config: Mapping[str, str]) -> dict[str, str]:
    """Return the keys that have a value. Raises: Invalid."""
    check_volume(pool.driver, config, name=f"{project}_{name}")
    return without_empty(config)


def new_config(pool: Pool, project: str, name: str, config: Mapping[str, str]) -> dict[str, str]:
    """Return the keys of a new volume, with what its pool gives to all."""
    defaults = volume_defaults(pool.driver, pool.config)
    return {**defaults, **checked_config(pool, project, name, config)}


def check_change(old: Volume, new: Volume, users: Users) -> None:
    """Raises: Invalid for keys that contradict each other, WrongState when instances must be stopped."""
    if all(parse_bool(new.config.get(key, "false")) for key in _SHIFTING):
        raise Invalid("BOTH", "security.unmapped and security.shifted are mutually exclusive")
    if users.running and any(old.config.get(key) != new.config.get(key) for key in _SHIFTING):
        raise WrongState(
            "IN_USE", "Cannot modify shifting with running instances using the volume", about=old.name
        )


def has_images(pool: Pool) -> bool:
    """Return whether images are shown as volumes of a pool: LXD unpacks them there, but not in "dir"."""
    return pool.driver != "dir"


def named(devices: Devices) -> set[tuple[str, str]]:
    """Return pool and name of the custom volumes that *devices* show."""
    return {(disk["pool"], disk["source"]) for disk in devices.values() if is_volume(disk)}


def names(devices: Devices, pool: str, name: str) -> list[str]:
    """Return the devices that are disks of the custom volume *name*."""
    return [
        d for d, disk in devices.items() if is_volume(disk) and (disk["pool"], disk["source"]) == (pool, name)
    ]


def url(kind: str, name: str, project: str) -> str:
    return in_project(f"{kind}/{name}", project)
