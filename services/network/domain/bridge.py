"""The bridge a network wants. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from core.configkeys import network as keys
from core.configkeys import tunnels
from core.configkeys.network import NETWORK
from core.configkeys.tunnels import Tunnel, tunnels_of
from core.errors import Invalid
from core.records import Network
from core.units import parse_bool
from services.network.domain import addresses
from services.network.domain.addresses import Subnets, bridge_mac, subnets_of


@dataclass(frozen=True)
class BridgePlan:
    """external: interfaces that become ports, as tunnels do; routes: subnets behind it, as text."""

    name: str
    subnets: Subnets
    mtu: int
    hwaddr: str
    external: tuple[str, ...] = ()
    routes: frozenset[str] = frozenset()
    tunnels: tuple[Tunnel, ...] = ()


def plan_bridge(network: Network) -> BridgePlan:
    config = network.config
    hwaddr = NETWORK.get(config, "bridge.hwaddr").lower()
    external = NETWORK.get(config, "bridge.external_interfaces")
    return BridgePlan(
        name=network.name,
        subnets=subnets_of(config),
        mtu=mtu_of(network),
        hwaddr=hwaddr or bridge_mac(network.name),
        external=tuple(keys.parse_interfaces(external)) if external else (),
        routes=frozenset(_routes(config)),
        tunnels=tunnels_of(network.name, config) if network.type == "bridge" else (),
    )


def mtu_of(network: Network) -> int:
    """Return the MTU of a bridge and of NICs on it, less where tunnels have to carry what it takes."""
    has_tunnels = bool(tunnels_of(network.name, network.config))
    usual = tunnels.MTU if has_tunnels else NETWORK.keys["bridge.mtu"].default
    return int(network.config.get("bridge.mtu") or usual)


def _routes(config: Mapping[str, str]) -> list[str]:
    found = []
    if v4 := NETWORK.get(config, "ipv4.routes"):
        found += [str(net) for net in keys.parse_routes4(v4)]
    if v6 := NETWORK.get(config, "ipv6.routes"):
        found += [str(net) for net in keys.parse_routes6(v6)]
    return found


def ranges_of(config: Mapping[str, str], version: str) -> list[addresses.Range] | None:
    """Return the ranges that addresses are taken from; None for the whole subnet. Raises: Invalid."""
    key = f"{version}.dhcp.ranges"
    bridge = getattr(subnets_of(dict(config)), version)
    if not (text := NETWORK.get(config, key)) or bridge is None:
        return None
    parsed = keys.parse_ranges4(text) if version == "ipv4" else keys.parse_ranges6(text)
    return addresses.within(parsed, bridge.network, key)


def check_together(config: Mapping[str, str]) -> None:
    """Refuse keys that would have no effect with the others. Raises: Invalid."""
    chosen = {k: v for k, v in config.items() if v != "auto"}
    subnets = subnets_of(chosen)
    for version in ("ipv4", "ipv6"):
        is_wanted = config.get(f"{version}.address", "none") != "none"
        for key in (f"{version}.routes", f"{version}.dhcp.ranges", f"{version}.nat.address"):
            if config.get(key) and not is_wanted:
                raise Invalid(
                    "NO_ADDRESS", f"{key} needs {version}.address; set it or unset {key}", about=key
                )
        if getattr(subnets, version):
            ranges_of(chosen, version)
    if config.get("ipv6.dhcp.ranges") and not parse_bool(NETWORK.get(config, "ipv6.dhcp.stateful")):
        raise Invalid(
            "NOT_STATEFUL", "ipv6.dhcp.ranges needs ipv6.dhcp.stateful=true", about="ipv6.dhcp.ranges"
        )
