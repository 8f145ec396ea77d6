"""What a NIC gets on its network. Pure: randomness and what is taken are arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Interface, IPv6Interface, ip_address
from random import Random

from core.configkeys.network import NETWORK, NIC
from core.errors import Invalid, Unsupported
from core.records import AddressClaim, Network, NicReservation
from core.units import parse_bool
from services.network.domain import addresses
from services.network.domain.bridge import ranges_of
from services.network.domain.render import is_on

_TWICE = ("nictype", "parent", "mtu")


@dataclass(frozen=True)
class Wanted:
    """A NIC device as asked for; hwaddr is empty unless it must be kept."""

    device: str
    options: dict[str, str]
    hwaddr: str = ""


@dataclass(frozen=True)
class Owner:
    """at_rest: it does not run, so it needs no address yet that another could use meanwhile."""

    instance_id: str
    project: str
    name: str
    at_rest: bool = False


def check_options(options: Mapping[str, str]) -> None:
    """Raises: Invalid, Unsupported for NICs that are not plugged into a managed bridge."""
    NIC.check({key: value for key, value in options.items() if value})
    network = network_of(options)
    if options.get("nictype", "bridged") != "bridged" or not network:
        raise Unsupported(
            "NIC_TYPE", "Only NICs on a managed bridge are supported yet; set network=NAME", about="nictype"
        )
    for key in _TWICE:
        if options.get("network") and options.get(key):
            raise Invalid(
                "TWICE", f'Cannot use "{key}" property in conjunction with "network" property', about=key
            )
    for version in ("ipv4", "ipv6"):
        if options.get(f"{version}.address") == "none" and not _filters(options, version):
            raise Invalid(
                "NO_FILTER",
                f"{version}.address=none needs security.{version}_filtering=true, which enforces it",
                about=f"{version}.address",
            )


def network_of(options: Mapping[str, str]) -> str:
    return options.get("network") or options.get("parent") or ""


def _filters(options: Mapping[str, str], version: str) -> bool:
    return parse_bool(options.get(f"security.{version}_filtering") or "false")


def decide(
    owner: Owner,
    wanted: Wanted,
    network: Network,
    old: NicReservation | None,
    *,
    taken: set[str],
    avoid: Mapping[str, str],
    random: Random,
) -> NicReservation:
    """Return the NIC as it will be. *avoid*: addresses that are leased, and to which MAC.

    What *old* had is kept where the request leaves it open. Raises: Invalid, LimitReached.
    """
    options, subnets = wanted.options, addresses.subnets_of(network.config)
    hwaddr = options.get("hwaddr") or wanted.hwaddr or (old.hwaddr if old else "")
    hwaddr = (hwaddr or addresses.new_mac(random)).lower()
    at_rest = owner.at_rest and (old is None or old.at_rest)
    ipv4 = ipv6 = ""
    if not at_rest or options.get("ipv4.address"):
        ipv4 = _ipv4(options, network, old, taken, {a for a, mac in avoid.items() if mac != hwaddr}, random)
    if not at_rest or options.get("ipv6.address"):
        ipv6 = _ipv6(options, network, old, hwaddr, taken, random)
    made = NicReservation(
        instance_id=owner.instance_id,
        project=owner.project,
        instance_name=owner.name,
        network=network.name,
        device=wanted.device,
        name=options.get("name") or wanted.device,
        host_name=options.get("host_name") or addresses.host_name(owner.instance_id, wanted.device),
        hwaddr=hwaddr,
        mtu=int(options.get("mtu") or NETWORK.get(network.config, "bridge.mtu")),
        bridge=network.name,
        ipv4=ipv4,
        ipv4_prefix=subnets.ipv4.network.prefixlen if subnets.ipv4 and ipv4 else 0,
        ipv6=ipv6,
        ipv6_prefix=subnets.ipv6.network.prefixlen if subnets.ipv6 and ipv6 else 0,
        is_static=options.get("ipv4.address", "none") != "none",
        at_rest=at_rest,
        options=options,
    )
    NIC.check({"name": made.name, "host_name": made.host_name, "hwaddr": made.hwaddr})
    return made


def _ipv4(
    options: Mapping[str, str],
    network: Network,
    old: NicReservation | None,
    taken: set[str],
    avoid: set[str],
    random: Random,
) -> str:
    bridge, asked = addresses.subnets_of(network.config).ipv4, options.get("ipv4.address", "")
    if asked == "none":
        return ""
    if asked:
        if not is_on(network, "ipv4.dhcp") and not _filters(options, "ipv4"):
            raise _no_dhcp("ipv4.address", network)
        return addresses.checked_static(bridge, asked, network.name)
    if bridge is None:
        return ""
    ranges = ranges_of(network.config, "ipv4")
    if old and old.network == network.name and _fits(old.ipv4, ranges or addresses.whole(bridge.network)):
        return old.ipv4
    return addresses.free_ipv4(bridge, taken, avoid, random, ranges)


def _ipv6(
    options: Mapping[str, str],
    network: Network,
    old: NicReservation | None,
    hwaddr: str,
    taken: set[str],
    random: Random,
) -> str:
    bridge, asked = addresses.subnets_of(network.config).ipv6, options.get("ipv6.address", "")
    is_stateful = is_on(network, "ipv6.dhcp") and is_on(network, "ipv6.dhcp.stateful")
    if asked == "none":
        return ""
    if asked:
        if not is_stateful and not _filters(options, "ipv6"):
            raise _no_dhcp("ipv6.address", network)
        return addresses.checked_static(bridge, asked, network.name)
    if bridge is None:
        return ""
    ranges = ranges_of(network.config, "ipv6") if is_stateful else None
    if ranges is None and bridge.network.prefixlen <= 64:
        return addresses.slaac(bridge.network, hwaddr)
    if not is_stateful:
        return ""
    spans = ranges or addresses.whole(bridge.network)
    if old and old.network == network.name and _fits(old.ipv6, spans):
        return old.ipv6
    return addresses.free_ipv6(bridge, taken, random, spans)


def _no_dhcp(key: str, network: Network) -> Invalid:
    version = key.partition(".")[0]
    more = ' or "ipv6.dhcp.stateful" are' if version == "ipv6" else " is"
    return Invalid(
        "NO_DHCP",
        f'Cannot specify "{key}" when DHCP{more} disabled on network "{network.name}" '
        f"(unless using security.{version}_filtering)",
        about=key,
    )


def _fits(address: str, spans: list[addresses.Range]) -> bool:
    return bool(address) and any(first <= int(ip_address(address)) <= last for first, last in spans)


def claims_of(nic: NicReservation) -> list[AddressClaim]:
    found = [a for a in (nic.ipv4, nic.ipv6) if a]
    return [AddressClaim(nic.network, a, nic.instance_id, nic.device) for a in found]


def has_dynamic(nic: NicReservation) -> bool:
    """Return whether it holds an IPv4 address that another could have as well."""
    return bool(nic.ipv4) and not nic.is_static


def without_addresses(nic: NicReservation) -> NicReservation:
    """Return a NIC at rest after its dynamic addresses went to another."""
    keeps_v6 = bool(nic.options.get("ipv6.address"))
    ipv6, prefix = (nic.ipv6, nic.ipv6_prefix) if keeps_v6 else ("", 0)
    return replace(nic, ipv4="", ipv4_prefix=0, ipv6=ipv6, ipv6_prefix=prefix, at_rest=True)


def still_fits(have: NicReservation, owner: Owner, wanted: Wanted) -> bool:
    is_enough = owner.at_rest or not have.at_rest
    return is_enough and have.options == wanted.options and have.instance_name == owner.name


def is_current(have: NicReservation, network: Network) -> bool:
    """Return whether the addresses of *have* lie in what *network* is now."""
    subnets = addresses.subnets_of(network.config)
    return all(
        (have.at_rest and not address) or _lies_in(address, subnet, asked=have.options.get(key, ""))
        for address, subnet, key in (
            (have.ipv4, subnets.ipv4, "ipv4.address"),
            (have.ipv6, subnets.ipv6, "ipv6.address"),
        )
    )


def _lies_in(address: str, bridge: IPv4Interface | IPv6Interface | None, *, asked: str) -> bool:
    if address:
        return bridge is not None and ip_address(address) in bridge.network
    # Left out on purpose, or because a guest cannot form one in so small a subnet.
    return bridge is None or asked == "none" or (bridge.version == 6 and bridge.network.prefixlen > 64)


def is_same_plug(a: NicReservation, b: NicReservation) -> bool:
    """Return whether the interfaces of *a* serve *b* as they are."""
    return _plug(a) == _plug(b)


def _plug(nic: NicReservation) -> tuple[object, ...]:
    return nic.bridge, nic.name, nic.host_name, nic.hwaddr, nic.mtu
