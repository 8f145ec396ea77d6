"""What an instance is after its profiles were applied. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from core.configkeys.instance import check_expanded
from core.configkeys.network import NIC
from core.errors import Invalid
from core.names import device_name
from core.records import Instance, Profile
from core.units import parse_bytes

Devices = Mapping[str, Mapping[str, str]]
_DISK = frozenset(
    {"type", "path", "pool", "size", "source", "readonly", "optional", "required", "boot.priority"}
)
_OPTIONS = {"disk": _DISK, "nic": frozenset(NIC.keys), "none": frozenset({"type"})}
_LATER = ("unix-char", "unix-block", "unix-hotplug", "usb", "gpu", "infiniband", "proxy", "tpm", "pci")


@dataclass(frozen=True)
class Expanded:
    """Keys and devices after profiles; devices of type none removed what they name."""

    config: dict[str, str]
    devices: dict[str, dict[str, str]]


@dataclass(frozen=True)
class Root:
    """The root disk: size in bytes, 0 for no bound."""

    pool: str
    size: int


def expand(profiles: Iterable[Profile], instance: Instance) -> Expanded:
    """Apply profiles in order, then the instance's own; a later device replaces an earlier one whole."""
    config: dict[str, str] = {}
    devices: dict[str, dict[str, str]] = {}
    layers: list[Profile | Instance] = [*profiles, instance]
    for layer in layers:
        config |= layer.config
        devices |= {name: dict(options) for name, options in layer.devices.items()}
    return Expanded(config, devices)


def check(expanded: Expanded) -> None:
    """Check keys and devices of the merged object. Raises: Invalid, naming what is wrong."""
    check_expanded(expanded.config)
    check_devices(expanded.devices)


def check_devices(devices: Devices) -> None:
    for name, options in devices.items():
        device_name(name)
        _check_device(name, options)


def _check_device(name: str, options: Mapping[str, str]) -> None:
    kind = options.get("type", "")
    if not kind:
        raise _no(name, "Missing device type in config")
    if kind in _LATER:
        raise _no(name, f"Unsupported device type: {kind} devices are not available in this version")
    if kind not in _OPTIONS:
        raise _no(name, "Unsupported device type")
    for option in options:
        if option not in _OPTIONS[kind] and not option.startswith("user."):
            raise _no(name, f'Invalid device option "{option[:64]}"')
    if kind == "disk":
        _check_disk(name, options)
    if kind == "nic":
        _check_nic(name, options)


def _check_disk(name: str, options: Mapping[str, str]) -> None:
    if options.get("path") != "/":
        raise _no(name, "Only the root disk (path=/) is supported in this version")
    if not options.get("pool"):
        raise _no(name, "Root disk entry must have a pool property set")
    try:
        parse_bytes(options.get("size") or "0")
    except ValueError as exc:
        raise _no(name, f'Invalid value for device option "size": {exc}') from None


def _check_nic(name: str, options: Mapping[str, str]) -> None:
    if not (options.get("network") or options.get("parent")):
        raise _no(name, "Unsupported device type: a NIC needs network=NAME of a managed bridge")
    try:
        NIC.check({key: value for key, value in options.items() if value})
    except Invalid as exc:
        raise _no(name, exc.message) from None


def _no(name: str, why: str) -> Invalid:
    return Invalid("BAD_DEVICE", f'Invalid devices: Device validation failed for "{name}": {why}', about=name)


def root_of(devices: Devices) -> Root:
    """Return the root disk. Raises: Invalid when there is none or more than one."""
    found = [d for d in devices.values() if d.get("type") == "disk" and d.get("path") == "/"]
    if not found:
        raise Invalid("NO_ROOT", "No root device could be found; add a disk with path=/ and a pool")
    if len(found) > 1:
        raise Invalid("TWO_ROOTS", "More than one root device was found; leave one")
    return Root(found[0]["pool"], parse_bytes(found[0].get("size") or "0"))


def nics_of(devices: Devices) -> dict[str, dict[str, str]]:
    return {name: dict(d) for name, d in sorted(devices.items()) if d.get("type") == "nic"}
