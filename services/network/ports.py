"""What the use cases need from the host and from other services.

Implemented by kernel/ and clients/; fakes serve the unit tests.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import Protocol

from core.records import Network, NicReservation
from services.network.domain.conflicts import Conflict, Seen
from services.network.domain.forwards import Forward
from services.network.domain.overlay import Mesh
from services.network.domain.rulebook import Rulebook


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
    index: int = 0
    forward_delay_cs: int = 0


class Host(Protocol):
    """Bridges, firewall and DHCP of this host. Everything ensured may be repeated and is free then."""

    async def links(self) -> list[Link]: ...

    async def names(self) -> set[str]:
        """Return the names of all interfaces. Cheap."""
        ...

    async def uplinks(self) -> set[str]:
        """Return the interfaces without which this host would lose its default route."""
        ...

    async def taken_subnets(self) -> tuple[list[IPv4Network], list[IPv6Network]]:
        """Return the subnets that interfaces and routes of this host use."""
        ...

    async def ensure_up(self, network: Network, nics: Iterable[NicReservation], book: Rulebook) -> None:
        """Bridge, addresses, firewall and DHCP server as *network*, the filters of *nics* and *book* say.

        Raises: Invalid, WrongState naming what is in the way.
        """
        ...

    async def ensure_down(self, name: str) -> None: ...

    async def ensure_rules(self, network: Network, nics: Iterable[NicReservation], book: Rulebook) -> None:
        """The firewall part of ensure_up alone."""
        ...

    async def ensure_loops(self, nics: Iterable[NicReservation], book: Rulebook) -> None:
        """Let those of *nics* that listen addresses of *book* lead to use these themselves."""
        ...

    async def logged(self, acl_id: str) -> bytes:
        """Return what rules of an ACL logged of late: one JSON object a line."""
        ...

    async def forget_log(self, acl_id: str) -> None: ...

    async def can_encrypt(self) -> bool:
        """Return whether the kernel offers what overlay.encryption needs."""
        ...

    async def follow(self, network: Network, mesh: Mesh) -> None:
        """Tell the kernel what changed on other members since ensure_up, which an overlay needs at once."""
        ...

    async def write_nics(
        self, network: Network, nics: Iterable[NicReservation], far: Iterable[NicReservation] = ()
    ) -> None:
        """Tell DHCP and DNS of NICs, and DNS alone of those *far* away."""
        ...

    async def remove_nic(self, network: Network | None, nic: NicReservation) -> None:
        """Take back what write_nics told, and the lease; *network* is None when it is gone."""
        ...

    async def plug(self, nic: NicReservation, pid: int) -> bool:
        """Make *nic* exist in the network namespace of process *pid*, with all that it has on the host.

        Return whether its interface was not there before. Raises: WrongState.
        """
        ...

    async def ensure_filter(self, nic: NicReservation) -> None:
        """Put back the filters of a plugged NIC that is on no network of ours."""
        ...

    async def ensure_parent(self, nic: NicReservation) -> None:
        """Make what *nic* hangs on, if that is a VLAN of an interface.

        Raises: WrongState, also when this kernel has no NICs of its type.
        """
        ...

    async def unplug(self, nic: NicReservation) -> None:
        """Remove what *nic* has on the host, and with it what hangs on that inside.

        An interface that was given away is as it was before, once it is back from the guest.
        """
        ...

    async def unplug_side(self, nic: NicReservation) -> None:
        """Take back routes, filters and the like of *nic*, but not its interfaces."""
        ...

    async def remove_unused(self) -> None:
        """Remove what bounded NICs of guests that ended."""
        ...

    async def leased(self, network: str) -> dict[str, str]:
        """Return leased addresses and the MACs, in lower case, that hold them."""
        ...

    async def release_lease(self, network: Network, address: str, hwaddr: str) -> None:
        """Let nobody hold *address* any more; it may take another look to be sure."""
        ...

    def is_serving(self, network: str) -> bool:
        """Return whether the network's bridge is there and its DHCP and DNS server runs. Cheap."""
        ...

    async def made(self) -> list[str]:
        """Return the names of the networks that were made here, recorded or not."""
        ...

    async def remove_strays(
        self, network: str, known: list[NicReservation], far: Iterable[NicReservation] = ()
    ) -> list[str]:
        """Remove what DHCP and DNS were told of NICs that are not among *known* and *far*."""
        ...

    async def seen(self) -> Seen:
        """Return what may be in conflict with our networks."""
        ...


class Forwards(Protocol):
    """Addresses of the host that lead to instances."""

    async def set(self, instance_id: str, forwards: Sequence[Forward]) -> None:
        """Replace those of an instance. Idempotent, and free where it has none and gets none."""
        ...

    async def ensure(self, instance_id: str) -> None:
        """Put back what was taken from those of an instance."""
        ...

    def known(self) -> list[str]:
        """Return the ids of instances that have some, or may have."""
        ...


class ZoneListener(Protocol):
    """The sockets of the server for zone transfers."""

    async def listen(self, host: str, port: int) -> None:
        """Listen there and nowhere else any more; an empty *host* is all addresses. Raises: OSError."""
        ...

    def close(self) -> None: ...


class Warnings(Protocol):
    """The cluster service's warnings of this service on this member."""

    async def active(self) -> dict[tuple[str, str], str]:
        """Return (type, subject) to id of those that are not resolved."""
        ...

    async def raise_warning(self, conflict: Conflict) -> str:
        """Return the id."""
        ...

    async def resolve(self, id: str) -> None: ...
