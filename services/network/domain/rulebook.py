"""What besides itself and its NICs decides the rules of a network. Read once, so that rendering is pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from core.netrecords import NetworkAcl, NetworkForward, NetworkLoadBalancer
from core.records import NicReservation
from services.network.domain.overlay import Mesh


@dataclass(frozen=True)
class Rulebook:
    """acls: by name, those of the network's project. members: the addresses of NICs that have an ACL.

    sets: addresses by the name that rules have for them, with the dollar.
    balancers: with the backends that answer, and no others. log_group: where the kernel sends what
    rules log; 0 for nowhere. far: the NICs of other members that have an ACL. mesh: of an overlay.
    """

    acls: Mapping[str, NetworkAcl] = field(default_factory=dict)
    members: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    sets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    forwards: tuple[NetworkForward, ...] = ()
    balancers: tuple[NetworkLoadBalancer, ...] = ()
    log_group: int = 0
    far: tuple[NicReservation, ...] = ()
    mesh: Mesh | None = None

    def targets(self) -> set[str]:
        """Return the addresses that listen addresses lead to."""
        found = {f.config.get("target_address", "") for f in self.forwards}
        found |= {port.target_address for f in self.forwards for port in f.ports}
        return (found | {b.target_address for of in self.balancers for b in of.backends}) - {""}


EMPTY = Rulebook()
