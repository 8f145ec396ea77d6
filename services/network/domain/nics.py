"""What a NIC gets on its network. Pure: randomness and what is taken are arguments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Interface, IPv6Interface, ip_address
from random import Random

from core.configkeys import nic as keys
from core.configkeys.network import parse_mac
from core.errors import Invalid
from core.records import AddressClaim, Network, NicReservation
from core.units import parse_bool
from services.network.domain import addresses, hostside
from services.network.domain.bridge import mtu_of, ranges_of
from services.network.domain.places import Place
from services.network.domain.render import is_on

# What a routed NIC has inside is fixed when it is made.
_PEER = tuple(f"ipv{n}.{what}" for n in "46" for what in ("address", "gateway", "host_address", "host_table"))


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


def _filters(options: Mapping[str, str], version: str) -> bool:
    return parse_bool(options.get(f"security.{version}_filtering") or "false")


def clash(nic: NicReservation, other: NicReservation) -> tuple[str, str] | None:
    """Return in LXD's words why both cannot be on their network, and what is taken.

    Two instances, of two projects, may have one name; of those that run on a network only one answers to it.
    """
    if (other.instance_id, other.device) == (nic.instance_id, nic.device):
        return None
    asked = nic.options.get("hwaddr", "").lower()
    if asked and other.hwaddr == asked:
        return f'MAC address "{asked}" already defined on another NIC', asked
    name = nic.instance_name.lower()
    is_same = other.instance_id != nic.instance_id and other.instance_name.lower() == name
    if is_same and not nic.at_rest and nic.nictype == keys.BRIDGED:
        return f'Instance DNS name "{name}" already used on network', name
    return None


def decide(
    owner: Owner,
    wanted: Wanted,
    place: Place,
    old: NicReservation | None,
    *,
    names: set[str],
    taken: set[str],
    avoid: Mapping[str, str],
    random: Random,
) -> NicReservation:
    """Return the NIC as it will be. *avoid*: addresses that are leased, and to which MAC.

    What *old* had is kept where the request leaves it open. *names* are those of its other NICs.

    Raises: Invalid, LimitReached.
    """
    options = wanted.options
    hwaddr = options.get("hwaddr") or wanted.hwaddr or (old.hwaddr if old else "")
    made = NicReservation(
        instance_id=owner.instance_id,
        project=owner.project,
        instance_name=owner.name,
        network=place.network.name if place.network else "",
        device=wanted.device,
        name=options.get("name") or (old.name if old else "") or _free_name(names),
        host_name=_host_name(owner, wanted, place),
        hwaddr=_mac(hwaddr or addresses.new_mac(random), wanted.device),
        mtu=_mtu(options, place),
        bridge=place.parent if place.kind == keys.BRIDGED else "",
        parent=place.parent if place.kind != keys.BRIDGED else "",
        vlan=place.vlan,
        nictype=place.kind,
        at_rest=owner.at_rest and (old is None or old.at_rest),
        options=options,
    )
    made = replace(made, host_side=hostside.is_needed(made))
    if place.kind == keys.BRIDGED:
        return _with_addresses(made, place.bridge, old, taken, avoid, random)
    return made


def _mac(text: str, device: str) -> str:
    """Return the address, which anybody may have brought, as rules and files take it. Raises: Invalid."""
    try:
        return parse_mac(text)
    except ValueError as exc:
        raise Invalid(
            "BAD_MAC", f'Invalid value for "volatile.{device}.hwaddr": {exc}', about=device
        ) from None


def renamed(have: Iterable[NicReservation], wanted: Iterable[Wanted]) -> set[str]:
    """Return the devices of an instance at rest whose given names others ask for: they get new ones."""
    asked = {w.options["name"] for w in wanted if w.options.get("name")}
    return {n.device for n in have if n.name in asked and not n.options.get("name")}


def _free_name(names: set[str]) -> str:
    """Return the name of the next interface, as the guest's kernel would count them."""
    return next(name for i in range(len(names) + 1) if (name := f"eth{i}") not in names)


def _host_name(owner: Owner, wanted: Wanted, place: Place) -> str:
    if place.kind in (keys.PHYSICAL, keys.SRIOV):
        return place.parent
    made = addresses.host_name(owner.instance_id, wanted.device)
    if place.kind == keys.MACVLAN:
        return made.replace("veth", "mac", 1)
    return wanted.options.get("host_name") or made


def _mtu(options: Mapping[str, str], place: Place) -> int:
    """Return 0 where it is that of the parent, which is looked at when the NIC is made."""
    if mtu := options.get("mtu"):
        return int(mtu)
    if place.network and not place.network.has_bridge:
        return int(place.network.config.get("mtu") or 0)
    if place.bridge:
        return mtu_of(place.bridge)
    return 0 if place.parent else 1500


def _with_addresses(
    made: NicReservation,
    network: Network | None,
    old: NicReservation | None,
    taken: set[str],
    avoid: Mapping[str, str],
    random: Random,
) -> NicReservation:
    """Add the addresses of a NIC on a bridge; on one that we do not manage they only say what may pass."""
    options = made.options
    if network is None:
        ipv4, ipv6 = (options.get(f"{v}.address", "").replace("none", "") for v in ("ipv4", "ipv6"))
        return replace(made, ipv4=ipv4, ipv6=ipv6, is_static=bool(ipv4 or ipv6))
    subnets = addresses.subnets_of(network.config)
    ipv4 = ipv6 = ""
    if not made.at_rest or options.get("ipv4.address"):
        others = {a for a, mac in avoid.items() if mac != made.hwaddr}
        ipv4 = _ipv4(options, network, old, taken, others, random)
    if not made.at_rest or options.get("ipv6.address"):
        ipv6 = _ipv6(options, network, old, made.hwaddr, taken, random)
    return replace(
        made,
        ipv4=ipv4,
        ipv4_prefix=subnets.ipv4.network.prefixlen if subnets.ipv4 and ipv4 else 0,
        ipv6=ipv6,
        ipv6_prefix=subnets.ipv6.network.prefixlen if subnets.ipv6 and ipv6 else 0,
        is_static=options.get("ipv4.address", "none") != "none",
    )


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
        f'Cannot specify "{key}" when DHCP{more} disabled (unless using security.{version}_filtering) '
        f'on network "{network.name}"',
        about=key,
    )


def _fits(address: str, spans: list[addresses.Range]) -> bool:
    return bool(address) and any(first <= int(ip_address(address)) <= last for first, last in spans)


def claims_of(nic: NicReservation) -> list[AddressClaim]:
    found = [a for a in (nic.ipv4, nic.ipv6) if a and nic.network]
    return [AddressClaim(nic.network, a, nic.instance_id, nic.device) for a in found]


def has_dynamic(nic: NicReservation) -> bool:
    """Return whether it holds an IPv4 address that another could have as well."""
    return bool(nic.ipv4) and not nic.is_static and bool(nic.network)


def without_addresses(nic: NicReservation) -> NicReservation:
    """Return a NIC at rest after its dynamic addresses went to another."""
    keeps_v6 = bool(nic.options.get("ipv6.address"))
    ipv6, prefix = (nic.ipv6, nic.ipv6_prefix) if keeps_v6 else ("", 0)
    return replace(nic, ipv4="", ipv4_prefix=0, ipv6=ipv6, ipv6_prefix=prefix, at_rest=True)


def still_fits(have: NicReservation, owner: Owner, wanted: Wanted, place: Place) -> bool:
    is_enough = owner.at_rest or not have.at_rest
    is_same = have.options == wanted.options and have.instance_name == owner.name
    return is_enough and is_same and _has_mac(have, wanted) and _is_there(have, wanted, place)


def _has_mac(have: NicReservation, wanted: Wanted) -> bool:
    """Somebody may have set the one that is to be kept, where the device has none of its own."""
    asked = wanted.options.get("hwaddr") or wanted.hwaddr
    return not asked or asked.lower() == have.hwaddr


def _is_there(have: NicReservation, wanted: Wanted, place: Place) -> bool:
    """A network may have got another parent or MTU by now."""
    parent = have.bridge if place.kind == keys.BRIDGED else have.parent
    is_same = (have.nictype, parent, have.vlan) == (place.kind, place.parent, place.vlan)
    return is_same and (place.kind == keys.BRIDGED or have.mtu == _mtu(wanted.options, place))


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
    peer = [nic.options.get(key) for key in _PEER] if nic.nictype == keys.ROUTED else []
    place = nic.nictype, nic.bridge, nic.parent, nic.vlan
    return *place, nic.name, nic.host_name, nic.hwaddr, nic.mtu, *peer
