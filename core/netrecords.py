"""The records of what networks have besides themselves: ACLs, forwards, load balancers, zones.

As in core/records.py: frozen, shared through etcd, with one writer each.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from core.records import Config


@dataclass(frozen=True)
class AclRule:
    """One rule of an ACL, as it was written; checked by services/network/domain/acls.py."""

    action: str = ""
    state: str = "enabled"
    description: str = ""
    source: str = ""
    destination: str = ""
    protocol: str = ""
    source_port: str = ""
    destination_port: str = ""
    icmp_type: str = ""
    icmp_code: str = ""


@dataclass(frozen=True)
class NetworkAcl:
    """What may pass a network or NIC that names it. Writer: network. id: names it in the firewall's log."""

    id: str = ""
    project: str = ""
    name: str = ""
    description: str = ""
    config: Config = field(default_factory=dict)
    ingress: tuple[AclRule, ...] = ()
    egress: tuple[AclRule, ...] = ()
    schema: int = 1


@dataclass(frozen=True)
class AddressSet:
    """Addresses, subnets and ranges that rules of ACLs name as $NAME. Writer: network."""

    project: str = ""
    name: str = ""
    description: str = ""
    config: Config = field(default_factory=dict)
    addresses: tuple[str, ...] = ()
    schema: int = 1


@dataclass(frozen=True)
class ForwardPort:
    """Ports of a listen address that lead to an instance; checked by services/network/domain/listeners.py."""

    protocol: str = ""
    listen_port: str = ""
    target_port: str = ""
    target_address: str = ""
    description: str = ""


@dataclass(frozen=True)
class NetworkForward:
    """An address whose traffic goes to instances of a network. Writer: network."""

    network: str = ""
    listen_address: str = ""
    description: str = ""
    config: Config = field(default_factory=dict)
    ports: tuple[ForwardPort, ...] = ()
    schema: int = 1


@dataclass(frozen=True)
class Backend:
    """Where a load balancer sends connections. No target_port keeps the port that was asked for."""

    name: str = ""
    description: str = ""
    target_address: str = ""
    target_port: str = ""


@dataclass(frozen=True)
class BalancerPort:
    """Ports of a load balancer, and the names of the backends they lead to in turn."""

    protocol: str = ""
    listen_port: str = ""
    target_backend: tuple[str, ...] = ()
    description: str = ""


@dataclass(frozen=True)
class NetworkLoadBalancer:
    """An address whose connections are spread over instances of a network. Writer: network."""

    network: str = ""
    listen_address: str = ""
    description: str = ""
    config: Config = field(default_factory=dict)
    backends: tuple[Backend, ...] = ()
    ports: tuple[BalancerPort, ...] = ()
    schema: int = 1


@dataclass(frozen=True)
class NetworkZone:
    """A DNS zone that peers may transfer. Writer: network. Its name is unique over all projects."""

    project: str = ""
    name: str = ""
    description: str = ""
    config: Config = field(default_factory=dict)
    schema: int = 1


@dataclass(frozen=True)
class ZoneEntry:
    """One resource record; a ttl of 0 is the default."""

    type: str = ""
    ttl: int = 0
    value: str = ""


@dataclass(frozen=True)
class ZoneRecord:
    """What a zone holds at one name besides the addresses of instances. Writer: network."""

    project: str = ""
    zone: str = ""
    name: str = ""
    description: str = ""
    config: Config = field(default_factory=dict)
    entries: tuple[ZoneEntry, ...] = ()
    schema: int = 1


@dataclass(frozen=True)
class TunnelEnd:
    """Where a member receives what others send to its guests on overlays. Writer: network, of *member*.

    mtu: of the interface that has the address, in bytes. interface: its name there.
    """

    member: str = ""
    address: str = ""
    mtu: int = 1500
    interface: str = ""
    schema: int = 1


@dataclass(frozen=True)
class VniClaim:
    """A number that tells an overlay network's packets from those of others. Writer: network."""

    network: str = ""


@dataclass(frozen=True)
class NetworkHealth:
    """How a network is on a member of a cluster; no error, it is up. Writer: network, of *member*."""

    network: str = ""
    member: str = ""
    error: str = ""
    schema: int = 1
