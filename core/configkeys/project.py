"""Keys of projects, and what a restriction is when it is not set."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

from core import compression
from core.configkeys.schema import ConfigKey, Parser, Schema, Sentences, lines, one_of, text
from core.configkeys.values import parse_uint32
from core.errors import Invalid
from core.units import parse_bool, parse_bytes

FEATURES = ("features.images", "features.networks", "features.profiles", "features.storage.volumes")
DEFAULTS = {"features.images": "true", "features.profiles": "true", "features.storage.volumes": "true"}
# Sums over all that a project holds, as against counts.
SUMS = ("limits.cpu", "limits.disk", "limits.memory", "limits.processes")
COUNTS = ("limits.containers", "limits.instances", "limits.networks", "limits.virtual-machines")
# What holds in a restricted project where nothing is said. Source: LXD's lxd/project/permissions.go.
RESTRICTIONS = {
    "restricted.backups": "block",
    "restricted.cluster.groups": "",
    "restricted.cluster.target": "block",
    "restricted.containers.interception": "block",
    "restricted.containers.lowlevel": "block",
    "restricted.containers.nesting": "block",
    "restricted.containers.privilege": "unprivileged",
    "restricted.devices.disk": "managed",
    "restricted.devices.disk.paths": "",
    "restricted.devices.gpu": "block",
    "restricted.devices.infiniband": "block",
    "restricted.devices.nic": "managed",
    "restricted.devices.pci": "block",
    "restricted.devices.proxy": "block",
    "restricted.devices.unix-block": "block",
    "restricted.devices.unix-char": "block",
    "restricted.devices.unix-hotplug": "block",
    "restricted.devices.usb": "block",
    "restricted.idmap.gid": "",
    "restricted.idmap.uid": "",
    "restricted.networks.access": "",
    "restricted.networks.subnets": "",
    "restricted.networks.uplinks": "",
    "restricted.networks.zones": "",
    "restricted.snapshots": "block",
    "restricted.virtual-machines.lowlevel": "block",
}
ARCHITECTURES = (
    *("i686", "x86_64", "armv6l", "armv7l", "armv8l", "aarch64", "ppc", "ppc64", "ppc64le", "s390x"),
    *("mips", "mips64", "riscv32", "riscv64"),
)


def parts(value: str) -> list[str]:
    """Return the items of a list separated by commas."""
    return [part.strip() for part in value.split(",") if part.strip()]


def parse_id_ranges(value: str) -> list[range]:
    """Return the ids of "1000-2000,5000"."""
    return [_id_range(part) for part in parts(value)]


def _id_range(part: str) -> range:
    first, dash, last = part.partition("-")
    found = [_id(part, first), _id(part, last if dash else first)]
    if found[1] < found[0]:
        raise ValueError(f'Item "{part[:64]}": Invalid range "{part[:64]}"')
    return range(found[0], found[1] + 1)


def _id(part: str, number: str) -> int:
    try:
        return parse_uint32(number)
    except ValueError:
        raise ValueError(f'Item "{part[:64]}": Invalid number "{number[:64]}"') from None


def parse_paths(value: str) -> list[str]:
    """Return absolute paths in their shortest form."""
    for part in parts(value):
        if not part.startswith("/"):
            raise ValueError(f'Item "{part[:64]}": Must be absolute file path')
    return [posixpath.normpath(part) for part in parts(text(value))]


def parse_subnets(value: str) -> list[str]:
    for part in parts(value):
        uplink, colon, subnet = part.partition(":")
        if not (uplink and colon and subnet):
            shape = '"<uplink network>:<subnet>"'
            raise ValueError(f'Subnet "{part[:64]}" invalid, must be in the format of {shape}')
    return parts(text(value))


def parse_compression(value: str) -> str:
    """As for one archive: a name, or one with a level."""
    try:
        compression.parse_compression(value)
    except Invalid as exc:
        raise ValueError(exc.message) from None
    return value


def _boolean(value: str) -> bool:
    try:
        return parse_bool(value)
    except ValueError:
        raise ValueError(f'Invalid value for a boolean "{value[:64]}"') from None


def _integer(value: str) -> int:
    try:
        return int(value[:32])
    except ValueError:
        raise ValueError(f'Invalid value for an integer "{value[:64]}"') from None


def _size(value: str) -> int:
    try:
        return parse_bytes(value)
    except ValueError:
        raise ValueError(f"Invalid value: {value[:64]}") from None


def _restriction(name: str) -> ConfigKey:
    return ConfigKey(name, _SPECIAL.get(name, _BLOCK), "in a restricted project", RESTRICTIONS[name])


_BLOCK = one_of("block", "allow")
_MANAGED = one_of("block", "allow", "managed")
_SPECIAL: Mapping[str, Parser] = {
    "restricted.cluster.groups": text,
    "restricted.containers.interception": one_of("allow", "block", "full"),
    "restricted.containers.privilege": one_of("allow", "unprivileged", "isolated"),
    "restricted.devices.disk": _MANAGED,
    "restricted.devices.disk.paths": parse_paths,
    "restricted.devices.nic": _MANAGED,
    "restricted.idmap.gid": parse_id_ranges,
    "restricted.idmap.uid": parse_id_ranges,
    "restricted.networks.access": text,
    "restricted.networks.subnets": parse_subnets,
    "restricted.networks.uplinks": text,
    "restricted.networks.zones": text,
}
_BAD = 'Invalid project configuration key "{name}"'
PROJECT = Schema(
    "project",
    (
        *(ConfigKey(name, _boolean, "it has its own, else those of project default") for name in FEATURES),
        *(ConfigKey(name, parse_uint32, "at most so many") for name in COUNTS),
        *(ConfigKey(f"limits.{n}", parse_uint32, "most of all together") for n in ("cpu", "processes")),
        *(ConfigKey(f"limits.{n}", _size, "most of all together") for n in ("disk", "memory")),
        ConfigKey("restricted", _boolean, "what restricted.* blocks is blocked", "false"),
        *(_restriction(name) for name in RESTRICTIONS),
        ConfigKey("backups.compression_algorithm", parse_compression, "of exports"),
        ConfigKey("images.auto_update_cached", _boolean, "also cached ones"),
        ConfigKey("images.auto_update_interval", _integer, "hours"),
        ConfigKey("images.compression_algorithm", parse_compression, "of published images"),
        ConfigKey("images.default_architecture", one_of(*ARCHITECTURES), "of images by name"),
        ConfigKey("images.remote_cache_expiry", _integer, "days"),
    ),
    {"user.": lines},
    sentences=Sentences(
        'Invalid project configuration key "{name}" value: {why}',
        'Invalid project configuration key "{name}"',
    ),
)


def is_restricted(config: Mapping[str, str]) -> bool:
    return parse_bool(config.get("restricted", "false"))


def restriction(config: Mapping[str, str], name: str) -> str:
    """Return what a restriction of a restricted project is."""
    return config.get(name) or RESTRICTIONS[name]


def is_bounded(config: Mapping[str, str]) -> bool:
    """Return whether what a project may hold depends on what it holds already."""
    return any(config.get(name) for name in (*SUMS, *COUNTS))


def check_project(config: Mapping[str, str]) -> None:
    """Check all keys of a project, and that they go together. Raises: Invalid."""
    PROJECT.check(config)
    if is_restricted(config) and not parse_bool(config.get("features.profiles", "false")):
        raise Invalid("NO_OWN_PROFILES", "Projects without their own profiles cannot be restricted")
