"""unix-char, unix-block and unix-hotplug: device nodes of the host."""

from __future__ import annotations

from core.configkeys.devices.schema import (
    OWNER,
    DeviceType,
    Options,
    anything,
    boolean,
    device_number,
    hex_id,
)
from core.units import parse_bool


def _in_dev(value: str) -> None:
    if not value.startswith("/dev/"):
        raise ValueError("Path needs to be in /dev")


def _rules(options: Options) -> None:
    if not (options.get("source") or options.get("path")):
        raise ValueError('Unix device entry is missing the required "source" or "path" property')


def _hotplug_rules(options: Options) -> None:
    if not (options.get("vendorid") or options.get("productid")):
        raise ValueError("Unix hotplug devices require a vendorid or a productid")


_NODE = {
    "source": _in_dev,
    "path": anything,
    "major": device_number,
    "minor": device_number,
    "required": boolean,
    **OWNER,
}
UNIX_CHAR = DeviceType("unix-char", _NODE, rules=_rules)
UNIX_BLOCK = DeviceType("unix-block", _NODE, rules=_rules)
UNIX_HOTPLUG = DeviceType(
    "unix-hotplug",
    {"vendorid": hex_id, "productid": hex_id, "required": boolean, **OWNER},
    rules=_hotplug_rules,
)


def is_required(options: Options, *, default: str = "true") -> bool:
    """Whether an instance cannot start without it."""
    return parse_bool(options.get("required") or default)
