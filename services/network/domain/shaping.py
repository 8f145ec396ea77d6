"""How fast a NIC may send and receive. Pure.

Named as LXD names them, from the instance's point of view: ingress is what it receives.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from core.records import NicReservation
from core.units import parse_bits

_PREFIX = "pifb"


@dataclass(frozen=True)
class Rates:
    """Bits per second; 0 for no bound."""

    ingress: int = 0
    egress: int = 0


def rates_of(nic: NicReservation) -> Rates:
    """Return the bounds of a NIC. limits.max is both of the others, and goes before them as with LXD."""
    both = _bits(nic, "limits.max")
    return Rates(both or _bits(nic, "limits.ingress"), both or _bits(nic, "limits.egress"))


def _bits(nic: NicReservation, key: str) -> int:
    return parse_bits(nic.options.get(key) or "0")


def is_ifb(name: str) -> bool:
    """Return whether a device has a name that ifb_name() gives."""
    return name.startswith(_PREFIX)


def ifb_name(host_name: str) -> str:
    """Return the name of the device through which what a guest sends is led."""
    return _PREFIX + hashlib.sha256(host_name.encode()).hexdigest()[:10]
