"""Addresses, nft tables and dnsmasq files; no value gets a second line into them."""

from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network
from pathlib import Path
from random import Random

import pytest

from core.configkeys import nic as nic_keys
from core.configkeys.network import NETWORK as KEYS
from core.errors import Invalid, LimitReached
from core.records import Network, NicReservation
from services.network.domain import addresses, bridge, dnsmasq, filters, render
from services.network.domain.shaping import Rates, rates_of
from services.network.domain.told import Told, told

NETWORK = Network("br-x", "default", "bridge", "", {"ipv4.address": "10.1.2.1/24", "ipv4.nat": "true"})
NIC_C1 = NicReservation(instance_name="c1", hwaddr="00:16:3e:00:00:01", ipv4="10.1.2.9", ipv6="fd42::9")


def test_the_nft_table_is_replaced_as_a_whole() -> None:
    assert render.nft_rules(NETWORK) == (
        "add table inet podium_br_2dx\n"
        "flush table inet podium_br_2dx\n"
        "add chain inet podium_br_2dx loc\n"
        "delete chain inet podium_br_2dx loc\n"
        "add chain inet podium_br_2dx egr\n"
        "delete chain inet podium_br_2dx egr\n"
        "add chain inet podium_br_2dx igr\n"
        "delete chain inet podium_br_2dx igr\n"
        "add chain inet podium_br_2dx sib\n"
        "delete chain inet podium_br_2dx sib\n"
        "add chain inet podium_br_2dx two\n"
        "delete chain inet podium_br_2dx two\n"
        "add chain inet podium_br_2dx pre\n"
        "delete chain inet podium_br_2dx pre\n"
        "add chain inet podium_br_2dx own\n"
        "delete chain inet podium_br_2dx own\n"
        "table inet podium_br_2dx {\n"
        " chain in {\n"
        "  type filter hook input priority filter; policy accept;\n"
        '  iifname "br-x" tcp dport 53 accept\n'
        '  iifname "br-x" udp dport 53 accept\n'
        '  iifname "br-x" udp dport 67 accept\n'
        " }\n"
        " chain out {\n"
        "  type filter hook forward priority filter; policy accept;\n"
        '  meta nfproto ipv4 iifname "br-x" accept\n'
        '  meta nfproto ipv4 oifname "br-x" accept\n'
        " }\n"
        " chain pst {\n"
        "  type nat hook postrouting priority srcnat; policy accept;\n"
        "  ip saddr 10.1.2.0/24 ip daddr != 10.1.2.0/24 masquerade\n"
        " }\n"
        "}\n"
        "add table bridge podium_br_2dx\n"
        "delete table bridge podium_br_2dx\n"
    )


def test_dnsmasq_serves_only_its_bridge_and_reads_no_host_configuration() -> None:
    argv = dnsmasq.argv(NETWORK, Path("/s/br-x"), as_root=False)
    assert {"--conf-file=", "--no-hosts", "--bind-interfaces", "--interface=br-x"} <= set(argv)
    assert "--dhcp-hostsdir=/s/br-x/dhcp" in argv
    assert "--dhcp-range=10.1.2.0,static,255.255.255.0,1h" in argv
    assert not any(arg.startswith("--user") for arg in argv)


def test_an_instance_is_one_line_for_dhcp_and_one_per_address_for_dns() -> None:
    assert dnsmasq.dhcp_entry(NETWORK, NIC_C1) == "00:16:3e:00:00:01,10.1.2.9,c1\n"
    assert dnsmasq.hosts_entry(NETWORK, NIC_C1) == "10.1.2.9 c1 c1.lxd\nfd42::9 c1 c1.lxd\n"


@pytest.mark.parametrize(
    ("key", "value", "arg"),
    [
        ("dns.mode", "none", "--port=0"),
        ("dns.mode", "dynamic", "--dhcp-ignore-names=tag:unfit"),
        ("dns.search", "a.b, c", "--dhcp-option-force=119,a.b,c"),
        ("dns.domain", "pod", "--local=/pod/"),
        ("ipv4.dhcp.expiry", "30m", "--dhcp-range=10.1.2.0,static,255.255.255.0,30m"),
        ("ipv4.dhcp.gateway", "10.1.2.254", "--dhcp-option-force=3,10.1.2.254"),
        ("bridge.mtu", "1400", "--dhcp-option-force=26,1400"),
        ("ipv6.dhcp", "false", "--dhcp-range=::,constructor:br-x,ra-only"),
        ("ipv6.dhcp.stateful", "true", "--dhcp-range=fd42:1::,static,64,1h"),
    ],
)
def test_every_dhcp_and_dns_key_reaches_the_server(key: str, value: str, arg: str) -> None:
    """A key that is accepted and ignored would be a lie."""
    config = {**NETWORK.config, "ipv6.address": "fd42:1::1/64", key: value}
    assert arg in dnsmasq.argv(replace(NETWORK, config=config), Path("/s"), as_root=False)
    assert arg not in dnsmasq.argv(replace(NETWORK, config={**config, key: ""}), Path("/s"), as_root=False)


def test_who_names_the_guests_is_who_dns_mode_says() -> None:
    dynamic = replace(NETWORK, config={**NETWORK.config, "dns.mode": "dynamic"})
    assert dnsmasq.dhcp_entry(dynamic, NIC_C1) == "00:16:3e:00:00:01,10.1.2.9\n"
    assert dnsmasq.hosts_entry(dynamic, NIC_C1) == ""


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        (
            "ipv4.nat.address",
            "192.0.2.1",
            "ip saddr 10.1.2.0/24 ip daddr != 10.1.2.0/24 snat ip to 192.0.2.1",
        ),
        ("ipv4.routing", "false", 'meta nfproto ipv4 oifname "br-x" drop'),
    ],
)
def test_every_firewall_key_reaches_the_rules(key: str, value: str, rule: str) -> None:
    config = {**NETWORK.config, key: value}
    assert f"  {rule}\n" in render.nft_rules(replace(NETWORK, config=config))
    assert rule not in render.nft_rules(NETWORK)


def test_a_filtered_nic_may_send_only_what_is_its_own() -> None:
    """LXD's meaning: an IP filter implies the MAC filter, and both leave only ARP and IP."""
    options = {"security.ipv4_filtering": "true", "security.ipv6_filtering": "true"}
    nic = replace(NIC_C1, host_name="vethx", options=options)

    rules = filters.rules_of(nic)

    target = "{ 0xfd420000000000000000000000000009, 0xfe8000000000000002163efffe000001 }"
    assert rules == [
        f'iifname "vethx" {rule}'
        for rule in (
            "ether saddr != 00:16:3e:00:00:01 drop",
            "ether type arp arp saddr ether != 00:16:3e:00:00:01 drop",
            "ether type ip udp dport 67 @th,288,48 != 0x00163e000001 drop",
            "ether type ip6 icmpv6 type 136 @th,192,64 != 0x020100163e000001 drop",
            "ether type ip6 ip6 saddr != :: icmpv6 type 135 @th,192,64 != 0x010100163e000001 drop",
            "ether type ip6 icmpv6 type 133 @th,64,64 != 0x010100163e000001 drop",
            "ether type 8021q vlan id 0 drop",
            "ether type 8021ad vlan id 0 drop",
            "ether type { 8021q, 8021ad } drop",
            "ether type arp arp saddr ip != { 10.1.2.9 } drop",
            "ether type ip udp dport 68 drop",
            "ether type ip ip saddr 0.0.0.0 ip daddr 255.255.255.255 udp dport 67 accept",
            "ether type ip ip saddr != { 10.1.2.9 } drop",
            "ether type ip6 icmpv6 type 134 drop",
            "ether type ip6 udp dport 546 drop",
            "ether type ip6 udp dport 547 @th,64,8 12 drop",
            f"ether type ip6 icmpv6 type 136 @th,64,128 != {target} drop",
            f"ether type ip6 ip6 saddr :: icmpv6 type 135 @th,64,128 != {target} drop",
            "ether type ip6 ip6 saddr :: icmpv6 type { 133, 135, 143 } accept",
            "ether type ip6 ip6 saddr != { fd42::9, fe80::216:3eff:fe00:1 } drop",
            "ether type != { arp, ip, ip6 } drop",
        )
    ]
    assert "table bridge podium_br_2dx {" in render.nft_rules(NETWORK, [nic])
    assert "table bridge podium_br_2dx {" not in render.nft_rules(NETWORK, [NIC_C1])


def test_a_filtered_nic_without_an_address_sends_nothing_of_that_family() -> None:
    nic = replace(NIC_C1, ipv4="", host_name="vethx", options={"security.ipv4_filtering": "true"})
    assert filters.rules_of(nic)[-2:] == [
        'iifname "vethx" ether type arp drop',
        'iifname "vethx" ether type ip drop',
    ]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hwaddr", "00:16:3e:00:00:01\nx"),
        ("hwaddr", "00:16:3e:00:00:01,set:x"),
        ("hwaddr", "01:00:00:00:00:00"),
        *(("name", text) for text in ("..", "a/b", "eth0\n", "x" * 16)),
        *(("mtu", text) for text in ("67", "65536", "1e3", "-1500", "\u0661\u0665\u0660\u0660")),
        ("ipv4.address", "10.1.2.3\n"),
        ("security.mac_filtering", "perhaps"),
        ("vlan", "4095"),
        ("bogus", "1"),
    ],
)
def test_a_nic_option_that_could_do_harm_or_nothing_is_refused(key: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"{re.escape(key)}|Device IP address"):
        nic_keys.check({"type": "nic", "network": "br-x", key: value}, {"br-x": "bridge"})


def test_raw_lines_for_dnsmasq_lie_in_a_file() -> None:
    raw = replace(NETWORK, config={**NETWORK.config, "raw.dnsmasq": "log-queries"})
    argv = dnsmasq.argv(raw, Path("/s/br-x"), as_root=False)
    assert argv[1] == "--conf-file=/s/br-x/dnsmasq.raw"
    assert not [arg for arg in argv if "log-queries" in arg]


@pytest.mark.parametrize("options", [{}, {"network": "b", "parent": "c"}, {"network": "b", "mtu": "1400"}])
def test_a_nic_names_its_network_once_and_nothing_the_network_decides(options: dict[str, str]) -> None:
    with pytest.raises(ValueError):
        nic_keys.check({"type": "nic", **options}, {"b": "bridge"})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tunnel.a.protocol", "ipip"),
        ("bridge.driver", "openvswitch"),
        ("ipv4.dhcp.ranges", "10.1.2.9"),
        ("ipv4.dhcp.expiry", "1h,set:x"),
        ("dns.search", "a b"),
        ("ipv4.routes", "10.0.0.1/8"),
        ("bridge.hwaddr", "x"),
    ],
)
def test_a_network_key_is_refused_with_its_name(key: str, value: str) -> None:
    with pytest.raises(Invalid) as caught:
        KEYS.check({key: value})
    assert key in caught.value.message


def test_keys_that_would_have_no_effect_together_are_refused() -> None:
    for config in (
        {"ipv4.routes": "10.9.0.0/16"},
        {"ipv6.address": "fd42::1/64", "ipv6.dhcp.ranges": "fd42::5-fd42::9"},
        {"ipv4.address": "10.1.2.1/24", "ipv4.dhcp.ranges": "10.1.3.5-10.1.3.9"},
    ):
        with pytest.raises(Invalid):
            bridge.check_together(config)


def test_an_address_that_is_still_to_be_chosen_is_no_error() -> None:
    """`ipv4.address=auto` on a network with ranges: they are looked at again once it has one."""
    auto = {"ipv4.address": "auto", "ipv6.address": "auto", "ipv6.dhcp.stateful": "true"}
    bridge.check_together({**auto, "ipv4.dhcp.ranges": "10.1.3.5-10.1.3.9", "ipv4.routes": "10.9.0.0/16"})
    bridge.check_together({**auto, "ipv4.address": "10.1.2.1/24", "ipv6.dhcp.ranges": "fd42::5-fd42::9"})


def test_addresses_come_from_the_ranges_only() -> None:
    config = {**NETWORK.config, "ipv4.dhcp.ranges": "10.1.2.10-10.1.2.11,10.1.2.20-10.1.2.20"}
    ranges, taken = bridge.ranges_of(config, "ipv4"), set[str]()
    for _ in range(3):
        taken.add(addresses.free_ipv4(IPv4Interface("10.1.2.1/24"), taken, set(), Random(1), ranges))
    assert taken == {"10.1.2.10", "10.1.2.11", "10.1.2.20"}


@pytest.mark.parametrize("text", ["10.9.9.9", "10.1.2.1", "nonsense"])
def test_a_static_address_must_fit_the_network(text: str) -> None:
    with pytest.raises(Invalid):
        addresses.checked_static(IPv4Interface("10.1.2.1/24"), text, "br-x")


def test_every_address_is_handed_out_once_and_then_the_subnet_is_full() -> None:
    bridge, taken = IPv4Interface("10.1.2.1/29"), set[str]()
    for _ in range(5):
        taken.add(addresses.free_ipv4(bridge, taken, set(), Random(1)))
    assert taken == {f"10.1.2.{i}" for i in range(2, 7)}
    with pytest.raises(LimitReached):
        addresses.free_ipv4(bridge, taken, set(), Random(1))


@pytest.mark.parametrize("subnet", ["10.1.2.1/30", "10.1.2.1/31", "10.1.2.1/32"])
def test_a_subnet_too_small_for_guests_is_full_not_broken(subnet: str) -> None:
    bridge, taken = IPv4Interface(subnet), {"10.1.2.2"}
    with pytest.raises(LimitReached):
        addresses.free_ipv4(bridge, taken, set(), Random(1))


@pytest.mark.parametrize("subnet", ["fd42::1/127", "fd42::1/128"])
def test_the_smallest_ipv6_subnets_are_full_too(subnet: str) -> None:
    bridge = IPv6Interface(subnet)
    with pytest.raises(LimitReached):
        addresses.free_ipv6(bridge, set(), Random(1), addresses.whole(bridge.network))


def test_a_subnet_in_use_is_not_chosen() -> None:
    taken = [IPv4Network("10.0.0.0/9")]
    assert int(addresses.free_ipv4_subnet(taken, Random(3)).split(".")[1]) >= 128


def test_the_guest_forms_its_address_from_its_mac() -> None:
    assert addresses.slaac(IPv6Network("fd42::/64"), "00:16:3e:00:00:01") == "fd42::216:3eff:fe00:1"


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("bogus", "1", 'Invalid option for network "br-x" option "bogus"'),
        ("ipv4.address", "foo", "invalid CIDR address: foo"),
        ("ipv4.address", "10.1.2.1", "invalid CIDR address: 10.1.2.1"),
        ("ipv4.address", "10.1.2.1/33", "invalid CIDR address: 10.1.2.1/33"),
        ("ipv4.address", "10.1.2.0/24", 'Not a usable IPv4 address "10.1.2.0/24"'),
        ("ipv4.address", "fd00::1/64", 'Not an IPv4 address "fd00::1/64"'),
        ("ipv6.address", "10.1.2.1/24", 'Not an IPv6 address "10.1.2.1/24"'),
        ("ipv6.address", "fe80::1%eth0/64", "invalid CIDR address: fe80::1%eth0/64"),
        (
            "ipv4.dhcp.ranges",
            "10.1.2.5",
            'Item "10.1.2.5": IP range must contain start and end IP addresses',
        ),
        ("ipv4.dhcp.ranges", "10.1.2.5-foo", 'Item "10.1.2.5-foo": Not an IPv4 address "foo"'),
        ("ipv4.routes", "10.9.0.1/24", 'Item "10.9.0.1/24": Not an IPv4 network address "10.9.0.1/24"'),
        ("bridge.mtu", "99999", 'Out of MTU range (1280-16384) "99999"'),
        ("bridge.hwaddr", "foo", "Invalid MAC address, must be 6 bytes of hex separated by colons"),
        ("ipv4.nat", "maybe", 'Invalid value for a boolean "maybe"'),
    ],
)
def test_what_is_wrong_with_a_key_is_said_in_the_words_of_lxd(key: str, value: str, said: str) -> None:
    with pytest.raises(Invalid) as caught:
        KEYS.check({key: value}, of="br-x")
    whole = said if key == "bogus" else f'Invalid value for network "br-x" option "{key}": {said}'
    assert str(caught.value) == whole


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, Told("10.1.2.1", ("10.1.2.1",), ("lxd",))),
        ({"ipv6.address": "fd42::1/64"}, Told("10.1.2.1", ("10.1.2.1", "fd42::1"), ("lxd",))),
        ({"ipv4.dhcp.gateway": "10.1.2.9"}, Told("10.1.2.9", ("10.1.2.1",), ("lxd",))),
        ({"dns.search": "a.test,b.test"}, Told("10.1.2.1", ("10.1.2.1",), ("a.test", "b.test"))),
        ({"dns.mode": "none"}, Told("10.1.2.1", (), ("lxd",))),
        ({"ipv4.dhcp": "false"}, None),
        ({"ipv4.address": "none"}, None),
    ],
)
def test_what_dhcp_tells_is_known_without_it(config: dict[str, str], expected: Told | None) -> None:
    """Applications have no DHCP client, and get the same from outside."""
    assert told(Network("br", config={"ipv4.address": "10.1.2.1/24", **config})) == expected


def test_the_bound_of_both_directions_goes_before_those_of_each() -> None:
    """As with LXD: who sets limits.max on top of a profile's limits.ingress means it."""
    options = {"limits.ingress": "10Mbit", "limits.max": "3Mbit"}
    assert rates_of(NicReservation(options=options)) == Rates(3_000_000, 3_000_000)
    assert rates_of(NicReservation(options={"limits.egress": "5Mbit"})) == Rates(0, 5_000_000)
