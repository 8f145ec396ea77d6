"""What keeps strangers out of an overlay's tunnels, and leads answers back to the member that asked. Pure.

VXLAN proves nothing: whoever gets a packet with the right number to a member's port speaks to its guests. So
a member takes them from members alone, by the interface that leads to them, and lets no guest send any:
translated to the address of its host they would come from one. The number: 12 bytes into UDP (RFC 7348).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address

from core.records import Network
from services.network.domain.addresses import subnets_of
from services.network.domain.overlay import Mesh
from services.network.domain.rulebook import Rulebook

_LOOPBACK = "lo"


@dataclass(frozen=True)
class Fence:
    input: list[str] = field(default_factory=list)
    forward: list[str] = field(default_factory=list)


def rules(mesh: Mesh | None) -> Fence:
    """Return what comes before all else where packets arrive, and where they pass."""
    if mesh is None or not mesh.local:
        return Fence()
    mine = f"udp dport {mesh.port} @th,96,24 {mesh.vni}"
    ip = "ip6" if ip_address(mesh.local).version == 6 else "ip"
    if not mesh.peers:
        return Fence([f"{mine} drop"])
    members = f"{{ {', '.join(mesh.peers)} }}"
    strangers = [f"{mine} {ip} saddr != {members} drop"]
    if mesh.interface not in ("", _LOOPBACK):
        strangers.append(f'{mine} iifname != "{mesh.interface}" drop')
    return Fence(strangers, [f"{mine} {ip} daddr {members} drop"])


def sources(network: Network, book: Rulebook) -> list[str]:
    """Return what makes this member the asker where it leads connections on to guests of others.

    Their answers would else go to the gateway, which is on every member.
    """
    mesh, found = book.mesh, list[str]()
    if mesh is None:
        return found
    subnets = subnets_of(network.config)
    far = {address for f in mesh.far for address in f.addresses}
    for own in mesh.own:
        version = ip_address(own).version
        bridge = subnets.ipv6 if version == 6 else subnets.ipv4
        targets = sorted(a for a in book.targets() if a in far and ip_address(a).version == version)
        if bridge and targets:
            ip = "ip6" if version == 6 else "ip"
            where = f'oifname "{network.name}" {ip} daddr {{ {", ".join(targets)} }}'
            found.append(f"{where} ct status dnat snat {ip} to {own}")
    return found
