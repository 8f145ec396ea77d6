"""nic: its options stand in core/configkeys/network.py, beside those of the networks it plugs into."""

from __future__ import annotations

from core.configkeys.devices.schema import DeviceType, Options, anything
from core.configkeys.network import NIC as OPTIONS
from core.errors import Invalid


def _rules(options: Options) -> None:
    if not (options.get("network") or options.get("parent")):
        raise ValueError("Unsupported device type: a NIC needs network=NAME of a managed bridge")
    try:
        OPTIONS.check({key: value for key, value in options.items() if value})
    except Invalid as exc:
        raise ValueError(exc.message) from None


NIC = DeviceType("nic", dict.fromkeys(OPTIONS.keys, anything), rules=_rules)
