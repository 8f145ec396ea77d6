"""Every address that is in use on managed networks, as /1.0/network-allocations tells it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from core.names import in_project
from core.records import AddressClaim, Network, NicReservation
from core.units import parse_bool
from services.network.domain.addresses import subnets_of


@dataclass(frozen=True)
class Allocation:
    """address with its prefix; project only of instances."""

    address: str
    used_by: str
    type: str
    nat: bool
    network: str
    hwaddr: str = ""
    project: str = ""
    location: str = ""


def of_network(
    network: Network,
    nics: Iterable[NicReservation],
    forwards: Iterable[str],
    balancers: Iterable[str],
    members: Iterable[AddressClaim] = (),
) -> Iterator[Allocation]:
    """Yield the bridge's own and its members', those of instances, and those that listen for them."""
    subnets, own = subnets_of(network.config), f"networks/{network.name}"
    for bridge in (subnets.ipv4, subnets.ipv6):
        if bridge:
            nat = _is_translated(network, str(bridge.ip))
            yield Allocation(str(bridge), own, "network", nat, network.name)
    for claim in members:
        nat, whole = _is_translated(network, claim.address), _whole(claim.address)
        yield Allocation(whole, own, "network", nat, network.name, location=claim.device)
    for nic in nics:
        user = in_project(f"instances/{nic.instance_name}", nic.project)
        for address in (nic.ipv4, nic.ipv6):
            if address:
                nat, whole = _is_translated(network, address), _whole(address)
                yield Allocation(
                    whole, user, "instance", nat, network.name, nic.hwaddr, nic.project, nic.member
                )
    for kind, listening in (("forward", forwards), ("load-balancer", balancers)):
        for address in listening:
            user = f"{own}/{kind}s/{address}"
            yield Allocation(_whole(address), user, f"network-{kind}", False, network.name)


def _whole(address: str) -> str:
    return f"{address}/{128 if ':' in address else 32}"


def _is_translated(network: Network, address: str) -> bool:
    key = "ipv6.nat" if ":" in address else "ipv4.nat"
    return parse_bool(network.config.get(key) or "false")
