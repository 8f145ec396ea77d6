"""All types of devices by name, and the check of a whole set of devices."""

from __future__ import annotations

from collections.abc import Mapping

from core.configkeys.devices import others, unix
from core.configkeys.devices.disk import DISK, place
from core.configkeys.devices.gpu import GPU
from core.configkeys.devices.nic import nic_type
from core.configkeys.devices.proxy import PROXY
from core.configkeys.devices.schema import DeviceType, Options
from core.configkeys.devices.usb import USB
from core.errors import Invalid
from core.names import device_name

TYPES: dict[str, DeviceType] = {
    kind.name: kind
    for kind in (
        DISK,
        GPU,
        nic_type(None),
        PROXY,
        USB,
        unix.UNIX_BLOCK,
        unix.UNIX_CHAR,
        unix.UNIX_HOTPLUG,
        others.INFINIBAND,
        others.NONE,
        others.PCI,
        others.TPM,
    )
}


def check_devices(devices: Mapping[str, Options], networks: Mapping[str, str] | None = None) -> None:
    """Check the devices of a profile. Raises: Invalid, naming the device and what is wrong.

    *networks*: managed ones by name, with their type; None where they are not known.
    """
    _check_each(devices, networks)
    check_places(devices)


def _check_each(devices: Mapping[str, Options], networks: Mapping[str, str] | None) -> None:
    types = {**TYPES, "nic": nic_type(networks)}
    for name, options in devices.items():
        device_name(name)
        _check(name, options, types)


def check_places(devices: Mapping[str, Options]) -> None:
    """Raises: Invalid when two disks have the same path."""
    taken = set[str]()
    for name, options in devices.items():
        path = place(options) if options.get("type") == "disk" else ""
        if path in taken:
            why = f'More than one disk device uses the same path "{options["path"]}"'
            raise Invalid("SAME_PATH", f'Device validation failed for "{name}": {why}', about=name)
        taken |= {path} - {""}


def check_types(devices: Mapping[str, Options]) -> None:
    """Raises: Invalid for a device of a new instance whose type there is not, in the words of LXD."""
    for name, options in devices.items():
        if (kind := options.get("type", "")) not in TYPES:
            raise Invalid("BAD_DEVICE", f"Invalid device type {kind[:64]}".rstrip(), about=name)


def check_instance_devices(devices: Mapping[str, Options], networks: Mapping[str, str] | None = None) -> None:
    """The same for those of an instance after its profiles, in LXD's words."""
    try:
        _check_each(devices, networks)
    except Invalid as exc:
        raise Invalid(exc.reason, f"Invalid devices: {exc.message}", about=exc.about) from None


def _check(name: str, options: Options, types: Mapping[str, DeviceType]) -> None:
    try:
        _loaded(name, options, types).check(options)
    except ValueError as exc:
        sentence = f'Device validation failed for "{name}": {exc}'
        raise Invalid("BAD_DEVICE", sentence, about=name) from None


def _loaded(name: str, options: Options, types: Mapping[str, DeviceType]) -> DeviceType:
    try:
        if not options.get("type"):
            raise ValueError("Missing device type in config")
        kind = types.get(options["type"])
        if kind is None:
            raise ValueError("Unsupported device type")
        kind.loads(options)
    except ValueError as exc:
        raise ValueError(f'Failed loading device "{name}": {exc}') from None
    return kind


def without_empty(devices: Mapping[str, Options]) -> dict[str, dict[str, str]]:
    """Drop options with an empty value: that is how clients unset one. What is none stays, and fails."""
    return {
        name: {key: value for key, value in options.items() if value or not _is_option(options, key)}
        for name, options in devices.items()
    }


def _is_option(options: Options, name: str) -> bool:
    kind = TYPES.get(options.get("type", ""))
    return kind is not None and kind.find(name) is not None
