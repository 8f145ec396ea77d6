"""Addresses, nft tables and dnsmasq files; no value gets a second line into them."""

from __future__ import annotations

from ipaddress import IPv4Interface, IPv4Network, IPv6Interface
from pathlib import Path
from random import Random

import pytest

from core.errors import Invalid, LimitReached
from core.records import Network, NicReservation
from services.network.domain import addresses, render

NETWORK = Network("br-x", "default", "bridge", "", {"ipv4.address": "10.1.2.1/24", "ipv4.nat": "true"})


def test_the_nft_table_is_replaced_as_a_whole() -> None:
    assert render.nft_rules(NETWORK) == (
        "add table inet podium_br_2dx\n"
        "delete table inet podium_br_2dx\n"
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
    )


def test_dnsmasq_serves_only_its_bridge_and_reads_no_host_configuration() -> None:
    argv = render.dnsmasq_argv(NETWORK, Path("/s/br-x"), as_root=False)
    assert {"--conf-file=", "--no-hosts", "--bind-interfaces", "--interface=br-x"} <= set(argv)
    assert "--dhcp-hostsdir=/s/br-x/dhcp" in argv
    assert "--dhcp-range=10.1.2.0,static,255.255.255.0,1h" in argv
    assert not any(arg.startswith("--user") for arg in argv)


def test_an_instance_is_one_line_for_dhcp_and_one_per_address_for_dns() -> None:
    nic = NicReservation(instance_name="c1", hwaddr="00:16:3e:00:00:01", ipv4="10.1.2.9", ipv6="fd42::9")
    assert render.dhcp_entry(nic) == "00:16:3e:00:00:01,10.1.2.9,c1\n"
    assert render.hosts_entry(nic, "lxd") == "10.1.2.9 c1 c1.lxd\nfd42::9 c1 c1.lxd\n"


@pytest.mark.parametrize("text", ["", "00:16:3e:00:00:01\nx", "00:16:3e:00:00:01,set:x", "01:00:00:00:00:00"])
def test_a_mac_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        addresses.checked_mac(text)


@pytest.mark.parametrize("text", ["", "..", "a/b", "eth0\n", "x" * 16])
def test_an_interface_name_the_kernel_would_not_take_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        addresses.checked_interface(text)


@pytest.mark.parametrize("text", ["", "67", "65536", "1e3", "-1500", "\u0661\u0665\u0660\u0660"])
def test_an_mtu_out_of_range_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        addresses.checked_mtu(text)


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


def test_a_subnet_in_use_is_not_chosen() -> None:
    taken = [IPv4Network("10.0.0.0/9")]
    assert int(addresses.free_ipv4_subnet(taken, Random(3)).split(".")[1]) >= 128


def test_the_guest_forms_its_address_from_its_mac() -> None:
    assert addresses.slaac(IPv6Interface("fd42::1/64"), "00:16:3e:00:00:01") == "fd42::216:3eff:fe00:1"
