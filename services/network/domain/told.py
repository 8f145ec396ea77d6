"""What DHCP tells guests on a bridge, for those whose addresses are set from outside. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from core.configkeys import network as keys
from core.configkeys.network import NETWORK
from core.records import Network
from services.network.domain.addresses import subnets_of
from services.network.domain.render import is_on


@dataclass(frozen=True)
class Told:
    router: str
    name_servers: tuple[str, ...]
    search: tuple[str, ...]


def told(network: Network) -> Told | None:
    """Return None where there is no DHCP for IPv4."""
    subnets = subnets_of(network.config)
    if not network.has_bridge or not subnets.ipv4 or not is_on(network, "ipv4.dhcp"):
        return None
    router = NETWORK.get(network.config, "ipv4.dhcp.gateway") or str(subnets.ipv4.ip)
    has_names = NETWORK.get(network.config, "dns.mode") != "none"
    servers = [str(own.ip) for own in (subnets.ipv4, subnets.ipv6) if own and has_names]
    search = NETWORK.get(network.config, "dns.search")
    domains = keys.parse_domains(search) if search else [NETWORK.get(network.config, "dns.domain")]
    return Told(router, tuple(servers), tuple(domains))
