"""nic: its options depend on what it is plugged into; they stand in core/configkeys/nic.py."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from core.configkeys import nic
from core.configkeys.devices.schema import DeviceType, Options, anything

_ALL = {name: anything for kind in nic.TYPES.values() for name in ("nictype", *kind.options)}


def nic_type(networks: Mapping[str, str] | None) -> DeviceType:
    """Return the type of NICs among *networks*: managed ones by name, with their type; None if unknown."""

    def loads(options: Options) -> None:
        nic.type_of(options, networks)

    return DeviceType(
        "nic",
        _ALL | dict.fromkeys(nic.REFUSED, anything),
        rules=partial(nic.check, networks=networks),
        loads=loads,
    )
