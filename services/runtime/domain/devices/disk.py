"""disk: what a folder of the host, or a custom volume, is inside. The root is no device of these."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

from core.configkeys.devices import disk
from core.configkeys.devices.disk import DiskLimits
from services.runtime.domain.devices.plan import Bind, DevicePlan, Facts, Options, cannot_start, not_startable


def plan(device: str, options: Options, facts: Facts) -> DevicePlan:
    if disk.is_root(options):
        return DevicePlan(device)
    bind = _volume(device, options, facts) if disk.is_volume(options) else _path(device, options, facts)
    return DevicePlan(device, binds=(bind,)) if bind else DevicePlan(device)


def _volume(device: str, options: Options, facts: Facts) -> Bind:
    found = facts.volume(device, options["pool"], options["source"])
    return Bind(
        found.folder,
        _place(device, options),
        read_only=_is_read_only(options),
        shifted=not found.is_unmapped,
        propagation=options.get("propagation", ""),
        is_volume=True,
        options=disk.mount_options(options),
    )


def _path(device: str, options: Options, facts: Facts) -> Bind | None:
    """Return None for what is not there and need not be."""
    source = posixpath.normpath(options["source"])
    if not facts.is_there(source):
        if disk.is_required(options):
            raise not_startable(device, f'Missing source path "{source}" for disk "{device}"')
        return None
    return Bind(
        source,
        _place(device, options),
        read_only=_is_read_only(options),
        recursive=disk.is_on(options, "recursive"),
        shifted=disk.is_on(options, "shift"),
        propagation=options.get("propagation", ""),
        beneath=facts.bound(source),
        options=disk.mount_options(options),
    )


def _is_read_only(options: Options) -> bool:
    return disk.is_on(options, "readonly") or "ro" in disk.mount_options(options)


def _place(device: str, options: Options) -> str:
    path = disk.place(options)
    if path in ("", "/"):
        raise cannot_start(device, "Missing mount path")
    return path


def limits(devices: Mapping[str, Mapping[str, str]], facts: Facts, root: str) -> dict[str, DiskLimits]:
    """Return the bounds by device of the host ("8:0"); *root* is a folder on the pool of the instance."""
    found: dict[str, list[DiskLimits]] = {}
    for device, options in sorted(devices.items()):
        if options.get("type") != "disk" or (bound := disk.limits(options)) == DiskLimits():
            continue
        block = facts.block(root if disk.is_root(options) else _source(device, options, facts))
        if block:
            found.setdefault(block, []).append(bound)
    return {block: disk.together(bounds) for block, bounds in found.items()}


def _source(device: str, options: Options, facts: Facts) -> str:
    if disk.is_volume(options):
        return facts.volume(device, options["pool"], options["source"]).folder
    return posixpath.normpath(options["source"])
