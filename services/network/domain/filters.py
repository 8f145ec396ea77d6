"""The filters of a NIC: what a guest may send, as rules of nft's bridge family. Pure.

A rule names the host side's interface, so it stands before the interface exists. The meaning of the
three options is LXD's: each IP filter implies the MAC filter, and both of them leave only ARP and IP.
Offsets are in bits from the network header: an ICMPv6 message begins at 320, the target of neighbour
discovery at 384 and the address in its first option at 528. Source: RFC 8200, RFC 4861.
"""

from __future__ import annotations

from ipaddress import IPv6Address

from core.records import NicReservation
from core.units import parse_bool
from services.network.domain.addresses import link_local

_MAC, _IPV4, _IPV6 = (f"security.{name}_filtering" for name in ("mac", "ipv4", "ipv6"))


def has_filters(nic: NicReservation) -> bool:
    return any(is_on(nic, key) for key in (_MAC, _IPV4, _IPV6))


def rules_of(nic: NicReservation) -> list[str]:
    """Return the rules of one NIC; none when no filter is on."""
    if not has_filters(nic):
        return []
    rules = _mac(nic)
    if is_on(nic, _IPV4):
        rules += _ipv4(nic)
    if is_on(nic, _IPV6):
        rules += _ipv6(nic)
    if is_on(nic, _IPV4) and is_on(nic, _IPV6):
        rules.append("ether type != { arp, ip, ip6 } drop")
    return [*_own(nic), *(f'iifname "{nic.host_name}" {rule}' for rule in rules)]


def is_on(nic: NicReservation, key: str) -> bool:
    """ACLs need all three, since they tell guests by what these guard."""
    return bool(nic.options.get("security.acls")) or parse_bool(nic.options.get(key) or "false")


def _own(nic: NicReservation) -> list[str]:
    """What nobody else may send: another guest would pass for this one, and its ACLs may allow more."""
    if not nic.options.get("security.acls"):
        return []
    rules = [f"ether saddr {nic.hwaddr} drop"]
    if nic.ipv4:
        rules += [f"ether type arp arp saddr ip {nic.ipv4} drop", f"ether type ip ip saddr {nic.ipv4} drop"]
    if nic.ipv6:
        rules.append(f"ether type ip6 ip6 saddr {nic.ipv6} drop")
    return [f'iifname != "{nic.host_name}" {rule}' for rule in rules]


def _mac(nic: NicReservation) -> list[str]:
    return [
        f"ether saddr != {nic.hwaddr} drop",
        f"ether type arp arp saddr ether != {nic.hwaddr} drop",
        f"ether type ip6 icmpv6 type 136 @nh,528,48 != 0x{nic.hwaddr.replace(':', '')} drop",
    ]


def _ipv4(nic: NicReservation) -> list[str]:
    if not nic.ipv4:
        return ["ether type arp drop", "ether type ip drop"]
    return [
        f"ether type arp arp saddr ip != {nic.ipv4} drop",
        "ether type ip ip saddr 0.0.0.0 ip daddr 255.255.255.255 udp dport 67 accept",
        f"ether type ip ip saddr != {nic.ipv4} drop",
    ]


def _ipv6(nic: NicReservation) -> list[str]:
    if not nic.ipv6:
        return ["ether type ip6 drop"]
    own = (nic.ipv6, link_local(nic.hwaddr))
    targets = "{ " + ", ".join(_number(ip) for ip in own) + " }"
    return [
        "ether type ip6 icmpv6 type 134 drop",
        f"ether type ip6 icmpv6 type 136 @nh,384,128 != {targets} drop",
        f"ether type ip6 ip6 saddr :: icmpv6 type 135 @nh,384,128 != {targets} drop",
        "ether type ip6 ip6 saddr :: icmpv6 type { 135, 143 } accept",
        "ether type ip6 ip6 saddr fe80::/10 ip6 daddr ff02::1:2 udp dport 547 accept",
        "ether type ip6 ip6 saddr fe80::/10 ip6 daddr ff02::2 icmpv6 type 133 accept",
        f"ether type ip6 ip6 saddr != {{ {', '.join(own)} }} drop",
    ]


def _number(address: str) -> str:
    return f"0x{int(IPv6Address(address)):032x}"
