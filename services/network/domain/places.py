"""Where a NIC goes: its type, its managed network if any, and the interface of the host it hangs on. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from core.configkeys import nic as keys
from core.errors import Invalid
from core.records import Network, NicReservation

_ASKED = "Device validation failed for"


@dataclass(frozen=True)
class Place:
    """kind is the type of the NIC. parent is empty for what hangs on nothing; vlan 0 means untagged."""

    kind: str
    network: Network | None = None
    parent: str = ""
    vlan: int = 0

    @property
    def bridge(self) -> Network | None:
        """The managed bridge that it is plugged into, which decides its addresses."""
        return self.network if self.kind == keys.BRIDGED else None


def place_of(device: str, options: Mapping[str, str], networks: Mapping[str, Network]) -> Place:
    """Raises: Invalid, in the words clients know, when the options do not fit the type."""
    types = {name: n.type for name, n in networks.items()}
    try:
        kind = keys.type_of(options, types)
        keys.check(options, types)
    except ValueError as exc:
        raise refused(device, Invalid("BAD_NIC", str(exc))) from None
    if network := networks.get(options.get("network", "")):
        parent = network.name if network.has_bridge else network.config.get("parent", "")
        return Place(kind, network, parent, int(network.config.get("vlan") or 0))
    parent = options.get("parent", "")
    if kind == keys.BRIDGED:
        found = networks.get(parent)
        return Place(kind, found if found and found.has_bridge else None, parent)
    return Place(kind, None, parent, int(options.get("vlan") or 0))


def refused(device: str, why: Invalid, what: str = "devices") -> Invalid:
    """Return *why* as LXD words a device that is not as it should be."""
    return Invalid(why.reason, f'Invalid {what}: {_ASKED} "{device}": {why.message}', about=why.about)


def refuse_twice(nics: list[NicReservation]) -> None:
    """Raises: Invalid when two NICs of an instance want the same name, inside or on the host."""
    for what in ("name", "host_name"):
        names = [getattr(nic, what) for nic in nics]
        for number, (nic, name) in enumerate(zip(nics, names, strict=True)):
            if name and name in names[:number]:
                why = f'Invalid value for device option "{what}": Duplicate NIC name detected "{name}"'
                raise refused(nic.device, Invalid("TWICE", why, about=name), "expanded devices")
