"""What the volatile keys of an instance tell of a NIC. Pure. The names are LXD's, without volatile.DEVICE."""

from __future__ import annotations

from core.configkeys import nic as keys
from core.records import NicReservation


def volatile_of(nic: NicReservation) -> dict[str, str]:
    """Return the keys of a NIC of a running instance; what its options say is not told again."""
    found = {"host_name": nic.host_name}
    if not nic.options.get("name"):
        found["name"] = nic.name
    if nic.nictype == keys.PHYSICAL:
        found |= {f"last_state.{key}": nic.taken[key] for key in ("hwaddr", "mtu") if key in nic.taken}
    elif not nic.options.get("hwaddr"):
        found["hwaddr"] = nic.hwaddr
    if nic.nictype in (keys.PHYSICAL, keys.MACVLAN):
        found["last_state.created"] = "false"
    return found
