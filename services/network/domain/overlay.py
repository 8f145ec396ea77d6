"""Overlay networks: one network over all members, by VXLAN. Pure.

Every member tells its kernel where each guest of the others lives, from the records of their NICs: forwarding
entries of the VXLAN port, and neighbours that the bridge answers for, so that nothing is ever flooded or
learned. The gateway is the same address and MAC everywhere, so that what guests send it stays on their
member. What the host itself sends to guests elsewhere has a second address, which is the member's own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from random import Random

from core.netrecords import TunnelEnd
from core.records import Network, NicReservation
from services.network.domain.addresses import link_local

# IP, UDP and VXLAN headers and the inner Ethernet one. Source: RFC 7348, section 5.
_OVERHEAD = {4: 50, 6: 70}
# Of the most common way between hosts, where it is not known.
_USUAL_MTU = 1500
VNIS = range(1, 1 << 24)
PORT = "4789"


@dataclass(frozen=True)
class Far:
    """What lives on another member: its MAC and addresses, and the address of that member."""

    hwaddr: str
    addresses: tuple[str, ...]
    via: str


@dataclass(frozen=True)
class Mesh:
    """An overlay as one member sees it.

    device and hwaddr: of its VXLAN port. local: where it receives; empty while that is not known, and
    there is no port then. interface: the one with that address. own: addresses of this member among guests.
    peers: addresses of the other members.
    """

    device: str
    hwaddr: str
    vni: int
    port: int
    mtu: int
    local: str = ""
    interface: str = ""
    own: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    far: tuple[Far, ...] = ()


@dataclass(frozen=True)
class Tables:
    """What the kernel is told. forwarding: MAC to member; neighbours: address to MAC.

    sources: address of a guest elsewhere to that by which the host itself speaks to it.
    """

    forwarding: Mapping[str, str]
    neighbours: Mapping[str, str]
    sources: Mapping[str, str]


def tables(mesh: Mesh) -> Tables:
    return Tables(
        {far.hwaddr: far.via for far in mesh.far},
        {address: far.hwaddr for far in mesh.far for address in far.addresses},
        {address: own for own in mesh.own for address in _guests(mesh, ip_address(own).version)},
    )


def _guests(mesh: Mesh, version: int) -> list[str]:
    """Link-local addresses are spoken to from one of the same kind."""
    found = (ip_address(address) for far in mesh.far for address in far.addresses)
    return [str(ip) for ip in found if ip.version == version and not ip.is_link_local]


def mesh_of(
    network: Network,
    member: str,
    ends: Mapping[str, TunnelEnd],
    far: Iterable[NicReservation],
    own: Mapping[str, tuple[str, ...]],
) -> Mesh:
    """Return what *member* has to do for an overlay; *own* are the members' addresses among guests."""
    mine, config = ends.get(member), network.config
    others = {name: end for name, end in ends.items() if name != member and _reaches(mine, end)}
    found = [_far_nic(nic, others[nic.member].address) for nic in far if nic.member in others]
    found += [Far(port_mac(network.name, n), own[n], others[n].address) for n in sorted(others) if n in own]
    return Mesh(
        device=device_of(network.name),
        hwaddr=port_mac(network.name, member),
        vni=int(config["overlay.id"]),
        port=int(config.get("overlay.port") or PORT),
        mtu=int(config["bridge.mtu"]),
        local=mine.address if mine else "",
        interface=mine.interface if mine else "",
        own=own.get(member, ()),
        peers=tuple(sorted({end.address for end in others.values()})),
        far=tuple(found),
    )


def _reaches(mine: TunnelEnd | None, other: TunnelEnd) -> bool:
    """A VXLAN device speaks one version of IP."""
    return mine is not None and ip_address(mine.address).version == ip_address(other.address).version


def _far_nic(nic: NicReservation, via: str) -> Far:
    found = (nic.ipv4, nic.ipv6, link_local(nic.hwaddr))
    return Far(nic.hwaddr, tuple(address for address in found if address), via)


def device_of(network: str) -> str:
    """Return the name of the VXLAN port: unique, stable, at most 15 characters."""
    return "vx" + hashlib.sha256(network.encode()).hexdigest()[:8]


def port_mac(network: str, member: str) -> str:
    """Return the MAC by which a member speaks to guests of others: local by its second bit, and stable."""
    digest = hashlib.sha256(f"{network}/{member}".encode()).digest()
    return "02" + "".join(f":{b:02x}" for b in digest[:5])


def mtu_over(ends: Iterable[TunnelEnd]) -> int:
    """Return what fits into the narrowest way between members, in bytes."""
    return min([_inner(end) for end in ends] or [_USUAL_MTU - _OVERHEAD[4]])


def _inner(end: TunnelEnd) -> int:
    return end.mtu - _OVERHEAD[ip_address(end.address).version]


def free_vni(taken: Iterable[int], random: Random) -> int:
    """Return a number that nobody has; at random, since others may use VXLAN on the same wires."""
    used = set(taken)
    return next(n for n in iter(lambda: random.randrange(VNIS.start, VNIS.stop), None) if n not in used)
