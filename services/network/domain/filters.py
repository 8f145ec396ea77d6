"""The filters of a NIC: what a guest may send, as rules of nft's bridge family. Pure.

A rule names the host side's interface, so it stands before the interface exists. The meaning of the
three options is LXD's: each IP filter implies the MAC filter, and both of them leave only ARP and IP.
Beyond LXD's: who hands out addresses, asks for them in another's name, or wraps what is filtered into a
VLAN's tag is stopped too. Offsets are in bits from the transport header, which nft finds behind extension
headers: in neighbour discovery the target is at 64 and its first option at 192 (in a solicitation of
routers at 64), in DHCP the client's MAC at 288. Source: RFC 4861, RFC 8200, RFC 2131.
"""

from __future__ import annotations

from core.records import NicReservation
from core.units import parse_bool
from services.network.domain import hostside, spans
from services.network.domain.addresses import link_local

_MAC, _IPV4, _IPV6 = (f"security.{name}_filtering" for name in ("mac", "ipv4", "ipv6"))


def has_filters(nic: NicReservation) -> bool:
    return any(is_on(nic, key) for key in (_MAC, _IPV4, _IPV6))


def rules_of(nic: NicReservation) -> list[str]:
    """Return the rules of one NIC; none when no filter is on."""
    if not has_filters(nic):
        return []
    rules = _mac(nic)
    if is_on(nic, _IPV4) or is_on(nic, _IPV6):
        rules += _no_tags(nic)
    if is_on(nic, _IPV4):
        rules += _ipv4(nic)
    if is_on(nic, _IPV6):
        rules += _ipv6(nic)
    if is_on(nic, _IPV4) and is_on(nic, _IPV6):
        rules.append("ether type != { arp, ip, ip6 } drop")
    return [*_own(nic, nic.host_name), *(f'iifname "{nic.host_name}" {rule}' for rule in rules)]


def is_on(nic: NicReservation, key: str) -> bool:
    """ACLs need all three, since they tell guests by what these guard."""
    return bool(nic.options.get("security.acls")) or parse_bool(nic.options.get(key) or "false")


def far_rules(nic: NicReservation, device: str) -> list[str]:
    """Return the rules of a NIC on another member: nobody here may pass for it; *device* leads there."""
    return _own(nic, device)


def _own(nic: NicReservation, port: str) -> list[str]:
    """What nobody else may send: another guest would pass for this one, and its ACLs may allow more."""
    if not nic.options.get("security.acls"):
        return []
    rules = [f"ether saddr {nic.hwaddr} drop"]
    if nic.ipv4:
        rules += [f"ether type arp arp saddr ip {nic.ipv4} drop", f"ether type ip ip saddr {nic.ipv4} drop"]
    if nic.ipv6:
        rules.append(f"ether type ip6 ip6 saddr {nic.ipv6} drop")
    return [f'iifname != "{port}" {rule}' for rule in rules]


def _mac(nic: NicReservation) -> list[str]:
    number = nic.hwaddr.replace(":", "")
    # The kernel takes off a tag that names no VLAN, and then believes what was in it.
    untagged = [f"ether type {kind} vlan id 0 drop" for kind in ("8021q", "8021ad")]
    return [
        f"ether saddr != {nic.hwaddr} drop",
        f"ether type arp arp saddr ether != {nic.hwaddr} drop",
        f"ether type ip udp dport 67 @th,288,48 != 0x{number} drop",
        f"ether type ip6 icmpv6 type 136 @th,192,64 != 0x0201{number} drop",
        f"ether type ip6 ip6 saddr != :: icmpv6 type 135 @th,192,64 != 0x0101{number} drop",
        f"ether type ip6 icmpv6 type 133 @th,64,64 != 0x0101{number} drop",
        *untagged,
    ]


def _no_tags(nic: NicReservation) -> list[str]:
    """What is in a tag is not looked into; where VLANs were asked for, the bridge keeps them apart."""
    return [] if nic.options.get("vlan.tagged") else ["ether type { 8021q, 8021ad } drop"]


def _ipv4(nic: NicReservation) -> list[str]:
    if not nic.ipv4:
        return ["ether type arp drop", "ether type ip drop"]
    own = spans.address_set(_owned(nic, "ipv4", nic.ipv4), "ipv4")
    return [
        f"ether type arp arp saddr ip != {own} drop",
        "ether type ip udp dport 68 drop",
        "ether type ip ip saddr 0.0.0.0 ip daddr 255.255.255.255 udp dport 67 accept",
        f"ether type ip ip saddr != {own} drop",
    ]


def _ipv6(nic: NicReservation) -> list[str]:
    """A link-local address made otherwise than of the MAC is as unknown as any other."""
    if not nic.ipv6:
        return ["ether type ip6 drop"]
    own = _owned(nic, "ipv6", nic.ipv6, link_local(nic.hwaddr))
    targets = "{ " + ", ".join(_number(a) if a == b else f"{_number(a)}-{_number(b)}" for a, b in own) + " }"
    return [
        "ether type ip6 icmpv6 type 134 drop",
        "ether type ip6 udp dport 546 drop",
        # What a relay brings may say that it is another's.
        "ether type ip6 udp dport 547 @th,64,8 12 drop",
        f"ether type ip6 icmpv6 type 136 @th,64,128 != {targets} drop",
        f"ether type ip6 ip6 saddr :: icmpv6 type 135 @th,64,128 != {targets} drop",
        "ether type ip6 ip6 saddr :: icmpv6 type { 133, 135, 143 } accept",
        f"ether type ip6 ip6 saddr != {spans.address_set(own, 'ipv6')} drop",
    ]


def _owned(nic: NicReservation, version: str, *addresses: str) -> list[spans.Span]:
    """Its own addresses, and the subnets that are routed to it."""
    texts = [*addresses, *hostside.routes_of(nic, version)]
    return spans.merged(spans.parse_subject(text)[1] for text in texts)


def _number(address: int) -> str:
    return f"0x{address:032x}"
