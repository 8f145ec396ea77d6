"""gpu: graphics cards. Shares of cards (mdev, sriov) are for virtual machines, as with LXD."""

from __future__ import annotations

import re

from core.configkeys.devices.schema import OWNER, DeviceType, Options, anything, hex_id, pci_address

_MIG = ("mig.uuid", "mig.ci", "mig.gi")


def _uuid(value: str) -> None:
    if not re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", value):
        raise ValueError("Invalid UUID")


def _rules(options: Options) -> None:
    kind = options.get("gputype")
    if kind in ("mdev", "sriov"):
        raise ValueError("Unsupported device type")
    _one_way_to_name_it(options)
    if kind == "mig":
        _instance_of_the_card(options)
    elif found := [name for name in _MIG if options.get(name)]:
        raise ValueError(f'Invalid device option "{found[0]}"')


def _one_way_to_name_it(options: Options) -> None:
    ways = {"pci": ("id", "productid", "vendorid"), "id": ("pci", "productid", "vendorid")}
    for way, others in ways.items():
        for other in others:
            if options.get(way) and options.get(other):
                raise ValueError(f'Cannot use "{other}" when when "{way}" is set')  # as LXD says it


def _instance_of_the_card(options: Options) -> None:
    if not options.get("mig.uuid") and not (options.get("mig.gi") and options.get("mig.ci")):
        raise ValueError('Either "mig.uuid" or both "mig.gi" and "mig.ci" must be set')


GPU = DeviceType(
    "gpu",
    {
        "gputype": anything,
        "id": anything,
        "pci": pci_address,
        "vendorid": hex_id,
        "productid": hex_id,
        "mig.uuid": _uuid,
        "mig.ci": anything,
        "mig.gi": anything,
        **OWNER,
    },
    rules=_rules,
)
