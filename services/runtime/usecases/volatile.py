"""What the volatile keys of an instance say about its NICs. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from services.runtime.ports import NicPlan

READY = "volatile.last_state.ready"
"""What the guest said of itself since it was started, true or false."""
_OF_NIC = re.compile(r"volatile\.(?P<device>.+)\.(?:hwaddr|host_name|name)")


def of_nic(nic: NicPlan) -> dict[str, str]:
    """Return the keys of a NIC of a running instance."""
    return {
        f"volatile.{nic.device}.hwaddr": nic.hwaddr,
        f"volatile.{nic.device}.host_name": nic.host_name,
        f"volatile.{nic.device}.name": nic.name,
    }


def with_nics(volatile: Mapping[str, str], nics: Iterable[NicPlan], *, is_up: bool) -> dict[str, str]:
    """Return *volatile* with the keys of exactly *nics*; a stopped instance has no names on the host."""
    kept = {key: value for key, value in volatile.items() if not _OF_NIC.fullmatch(key)}
    for nic in nics:
        kept |= {k: v for k, v in of_nic(nic).items() if is_up or not k.endswith(".host_name")}
    return kept


def devices_of(volatile: Mapping[str, str]) -> set[str]:
    """Return the devices whose NICs the keys tell of."""
    matches = [_OF_NIC.fullmatch(key) for key in volatile if key.endswith(".name")]
    return {match["device"] for match in matches if match}


def device_of(volatile: Mapping[str, str], interface: str) -> str:
    """Return the device whose NIC has that name inside; the name itself when none has."""
    for key, value in volatile.items():
        if value == interface and key.endswith(".name") and (match := _OF_NIC.fullmatch(key)):
            return match["device"]
    return interface


def new_nics(volatile: Mapping[str, str], nics: Iterable[NicPlan]) -> list[NicPlan]:
    """Return those of *nics* that a running instance has not been given yet."""
    return [nic for nic in nics if not of_nic(nic).items() <= dict(volatile).items()]


def hwaddrs_of(volatile: Mapping[str, str]) -> dict[str, str]:
    """Return the keys that name MAC addresses."""
    return {k: v for k, v in volatile.items() if _OF_NIC.fullmatch(k) and k.endswith(".hwaddr")}
