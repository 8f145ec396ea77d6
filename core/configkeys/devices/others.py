"""none, tpm, infiniband and pci."""

from __future__ import annotations

import re

from core.configkeys.devices.schema import DeviceType, Options, anything, pci_address, plain_path
from core.configkeys.network import parse_interface

_LONG_HWADDR = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){19}")
_SHORT_HWADDR = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){7}")


def _no_container(options: Options) -> None:
    raise ValueError("Unsupported device type")


def _known_nictype(options: Options) -> None:
    if options.get("nictype") not in ("physical", "sriov"):
        raise ValueError("Unsupported device type")


def _hwaddr(value: str) -> None:
    if not (_LONG_HWADDR.fullmatch(value) or _SHORT_HWADDR.fullmatch(value)):
        raise ValueError("Invalid value, must be either 8 or 20 bytes of hex separated by colons")


def _interface(value: str) -> None:
    parse_interface(value)


def _mtu(value: str) -> None:
    if not re.fullmatch(r"[0-9]{1,5}", value) or not 68 <= int(value) <= 65535:
        raise ValueError(f'Invalid MTU "{value[:64]}"')


NONE = DeviceType("none", free=())
PCI = DeviceType("pci", {"address": pci_address}, rules=_no_container)
INFINIBAND = DeviceType(
    "infiniband",
    {"nictype": anything, "parent": _interface, "name": _interface, "mtu": _mtu, "hwaddr": _hwaddr},
    required=("parent",),
    loads=_known_nictype,
)


def _tpm_path(value: str) -> None:
    plain_path(value)


class _Tpm(DeviceType):
    """LXD has words of its own for this one."""

    def check(self, options: Options) -> None:
        try:
            super().check(options)
        except ValueError as exc:
            raise ValueError(f"Failed to validate config: {exc}") from None


TPM = _Tpm("tpm", {"path": _tpm_path, "pathrm": _tpm_path}, required=("path", "pathrm"))
