"""disk: the root of an instance."""

from __future__ import annotations

from core.configkeys.devices.schema import DeviceType, Options, anything, boolean, integer
from core.units import parse_bytes


def _size(value: str) -> None:
    parse_bytes(value)


def _rules(options: Options) -> None:
    if options.get("path") != "/":
        raise ValueError("Only the root disk (path=/) is supported in this version")
    if not options.get("pool"):
        raise ValueError("Root disk entry must have a pool property set")


DISK = DeviceType(
    "disk",
    {
        "path": anything,
        "pool": anything,
        "size": _size,
        "source": anything,
        "readonly": boolean,
        "optional": boolean,
        "required": boolean,
        "boot.priority": integer,
    },
    rules=_rules,
)
