"""disk: the root of an instance, a folder or file of the host, or a custom volume."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from dataclasses import dataclass

from core.configkeys.devices.schema import DeviceType, Options, anything, boolean, device_number
from core.units import parse_bool, parse_bytes

_REMOTE = ("ceph:", "cephfs:")
_CLOUD_INIT = "cloud-init:config"
PROPAGATIONS = tuple(f"{r}{kind}" for r in ("", "r") for kind in ("private", "shared", "slave", "unbindable"))
_LIMITS = ("limits.read", "limits.write", "limits.max")
# What the kernel knows of each mount; other options are of file systems, and nothing here mounts one.
MOUNT_OPTIONS = (
    "defaults", "ro", "nosuid", "nodev", "noexec", "nosymfollow",
    "noatime", "nodiratime", "relatime", "strictatime",
)  # fmt: skip


@dataclass(frozen=True)
class DiskLimits:
    """What may be read and written in a second, in bytes and in operations; 0 for no bound."""

    read_bytes: int = 0
    read_operations: int = 0
    write_bytes: int = 0
    write_operations: int = 0


def is_root(options: Options) -> bool:
    return options.get("type") == "disk" and options.get("path") == "/"


def is_volume(options: Options) -> bool:
    """Whether it is a custom volume of a pool."""
    return options.get("type") == "disk" and bool(options.get("pool")) and not is_root(options)


def is_path(options: Options) -> bool:
    """Whether it is a file or folder of the host."""
    return options.get("type") == "disk" and not options.get("pool") and not is_root(options)


def is_required(options: Options) -> bool:
    return parse_bool(options.get("required") or "true") and not is_on(options, "optional")


def is_on(options: Options, name: str) -> bool:
    return parse_bool(options.get(name) or "false")


def place(options: Options) -> str:
    """Return where it lies inside, "" for nowhere."""
    path = options.get("path", "")
    return posixpath.normpath("/" + path.lstrip("/")) if path else ""


def mount_options(options: Options) -> tuple[str, ...]:
    words = (word.strip() for word in options.get("raw.mount.options", "").split(","))
    return tuple(word for word in words if word)


def limits(options: Options) -> DiskLimits:
    """Raises: ValueError."""
    read_bytes, read_operations = _limit(options.get("limits.max") or options.get("limits.read", ""))
    write_bytes, write_operations = _limit(options.get("limits.max") or options.get("limits.write", ""))
    return DiskLimits(read_bytes, read_operations, write_bytes, write_operations)


def together(found: Iterable[DiskLimits]) -> DiskLimits:
    """Return the bounds of disks on the same device of the host: the kernel knows one, LXD takes the mean."""
    columns = zip(*((d.read_bytes, d.read_operations, d.write_bytes, d.write_operations) for d in found),
                  strict=True)  # fmt: skip
    return DiskLimits(*(_mean([value for value in column if value]) for column in columns))


def _mean(values: list[int]) -> int:
    return sum(values) // len(values) if values else 0


def _limit(value: str) -> tuple[int, int]:
    """Return bytes and operations for "10MB" or "20iops"."""
    if value.endswith("iops"):
        count = value.removesuffix("iops")
        if not count.isascii() or not count.isdigit() or len(count) > 18:
            raise ValueError(f"Invalid value: {value[:64]}")
        return 0, int(count)
    return parse_bytes(value or "0"), 0


def _size(value: str) -> None:
    parse_bytes(value)


def _check_limit(value: str) -> None:
    _limit(value)


def _propagation(value: str) -> None:
    if value not in PROPAGATIONS:
        raise ValueError(f'Invalid propagation mode "{value[:64]}"')


def _mount_options(value: str) -> None:
    for word in mount_options({"raw.mount.options": value}):
        if word not in MOUNT_OPTIONS:
            known = ", ".join(MOUNT_OPTIONS)
            raise ValueError(f"Mount option {word[:64]!r} is not one of those that work here: {known}")


def _rules(options: Options) -> None:
    source, pool = options.get("source", ""), options.get("pool", "")
    if options.get("required") and options.get("optional"):
        raise ValueError('Cannot use both "required" and deprecated "optional" properties at the same time')
    if not is_root(options) and not source:
        raise ValueError('Disk entry is missing the required "source" or "path" property')
    if is_root(options):
        return _root_rules(options)
    if options.get("size"):
        raise ValueError("Only the root disk may have a size quota")
    if options.get("size.state"):
        raise ValueError("Only the root disk may have a migration size quota")
    if is_on(options, "recursive") and is_on(options, "readonly"):
        raise ValueError("Recursive read-only bind-mounts aren't currently supported by the kernel")
    if (options.get("ceph.cluster_name") or options.get("ceph.user_name")) and not source.startswith(_REMOTE):
        raise ValueError(f'Invalid options ceph.cluster_name/ceph.user_name for source "{source[:64]}"')
    return _volume_rules(options) if pool else _path_rules(source)


def _root_rules(options: Options) -> None:
    if options.get("source"):
        raise ValueError('Root disk entry may not have a "source" property set')
    if not options.get("pool"):
        raise ValueError('Root disk entry must have a "pool" property set')
    if options.get("recursive"):
        raise ValueError("The recursive option is only supported for additional bind-mounted paths")


def _volume_rules(options: Options) -> None:
    if options.get("shift"):
        raise ValueError(
            'The "shift" property cannot be used with custom storage volumes '
            '(set "security.shifted=true" on the volume instead)'
        )
    if options.get("recursive"):
        raise ValueError("The recursive option is only supported for additional bind-mounted paths")
    if options["source"].startswith("/"):
        raise ValueError("Storage volumes cannot be specified as absolute paths")


def _path_rules(source: str) -> None:
    if source == _CLOUD_INIT:
        raise ValueError("disks with source=cloud-init:config are only supported by virtual machines")
    if source.startswith(_REMOTE):
        raise ValueError("Required tool 'ceph' is missing")
    if not source.startswith("/"):
        raise ValueError("Source path must be absolute for local sources")


DISK = DeviceType(
    "disk",
    {
        "path": anything,
        "source": anything,
        "pool": anything,
        "size": _size,
        "size.state": _size,
        "readonly": boolean,
        "recursive": boolean,
        "shift": boolean,
        "required": boolean,
        "optional": boolean,
        "propagation": _propagation,
        "raw.mount.options": _mount_options,
        "ceph.cluster_name": anything,
        "ceph.user_name": anything,
        "boot.priority": device_number,
        **dict.fromkeys(_LIMITS, _check_limit),
    },
    rules=_rules,
)
