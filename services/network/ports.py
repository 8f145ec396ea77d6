"""What the use cases need from the host. Implemented by kernel/; a fake serves the unit tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import Protocol

from core.records import Network, NicReservation


@dataclass(frozen=True)
class LinkAddress:
    family: str
    address: str
    prefix: int
    scope: str


@dataclass(frozen=True)
class Link:
    """A host interface as the kernel shows it."""

    name: str
    kind: str
    hwaddr: str
    mtu: int
    is_up: bool
    is_loopback: bool
    addresses: tuple[LinkAddress, ...] = ()
    counters: dict[str, int] = field(default_factory=dict)
    members: tuple[str, ...] = ()


class Host(Protocol):
    """Bridges, firewall and DHCP of this host. Everything ensured may be repeated."""

    async def links(self) -> list[Link]: ...

    async def taken_subnets(self) -> tuple[list[IPv4Network], list[IPv6Network]]: ...

    async def ensure_up(self, network: Network) -> None:
        """Bridge, addresses, firewall and DHCP server as *network* says.

        Raises: WrongState naming what is in the way.
        """
        ...

    async def ensure_down(self, name: str) -> None: ...

    async def write_nic(self, nic: NicReservation, domain: str) -> None: ...

    async def remove_nic(self, nic: NicReservation) -> None: ...

    async def leased(self, network: str) -> dict[str, str]:
        """Return leased addresses and the MACs that hold them."""
        ...

    async def is_serving(self, network: str) -> bool: ...
