"""Forwards and load balancers: LXD's words for what they may not say, and the rules that they become."""

from __future__ import annotations

import pytest

from core.errors import Invalid
from core.netrecords import Backend, BalancerPort, ForwardPort, NetworkForward, NetworkLoadBalancer
from core.records import Network
from services.network.domain import balancers, listeners, render
from services.network.domain.rulebook import Rulebook

NETWORK = Network("br0", config={"ipv4.address": "10.1.2.1/24", "ipv6.address": "fd42::1/64"})
LISTEN = "192.0.2.10"


def _forward(*ports: ForwardPort, listen: str = LISTEN, **config: str) -> NetworkForward:
    return NetworkForward("br0", listen, "", config, ports)


def _port(
    listen: str = "80", target: str = "", address: str = "10.1.2.7", protocol: str = "tcp"
) -> ForwardPort:
    return ForwardPort(protocol, listen, target, address)


@pytest.mark.parametrize(
    ("forward", "sentence"),
    [
        (_forward(listen="x"),
         'Failed parsing address forward listen address "x": invalid CIDR address: x/32'),
        (_forward(foo="1"), 'Invalid option "foo"'),
        (_forward(target_address="x"), "Invalid default target address"),
        (_forward(target_address="10.9.9.9"), "Default target address is not within the network subnet"),
        (_forward(target_address="fd42::9"),
         "Cannot mix IP versions in listen address and default target address"),
        (_forward(_port(protocol="sctp")),
         "Invalid port protocol in port specification 0, protocol must be one of: tcp, udp"),
        (_forward(_port(address="x")), "Invalid target address in port specification 0"),
        (_forward(_port(address="10.9.9.9")),
         "Target address is not within the network subnet in port specification 0"),
        (_forward(_port(), target_address="10.1.2.7"),
         "Target address is same as default target address in port specification 0"),
        (_forward(_port("")), "Missing listen port in port specification 0"),
        (_forward(_port("9-8")),
         "Invalid listen port in port specification 0: End port should be higher than start port"),
        (_forward(_port("80"), _port("70-90")),
         'Duplicate listen port 80 for protocol "tcp" in port specification 1'),
        (_forward(_port("80-82", "1-2")),
         "Mismatch of listen port(s) and target port(s) count in port specification 0"),
        (_forward(_port("80", "a")), "Invalid target port in port specification 0"),
    ],
)  # fmt: skip
def test_a_forward_is_refused_in_the_words_of_lxd(forward: NetworkForward, sentence: str) -> None:
    with pytest.raises(Invalid) as refused:
        listeners.checked(forward, NETWORK)
    assert refused.value.message == sentence


def test_ports_come_before_the_default_and_ranges_lead_one_to_one() -> None:
    ports = _port("80,90-91"), _port("81", "8081"), _port("100-101", "200-201")
    forward = _forward(*ports, target_address="10.1.2.9")
    head = "ip daddr 192.0.2.10"
    assert list(listeners.rules(listeners.checked(forward, NETWORK))) == [
        f"{head} tcp dport {{ 80, 90-91 }} dnat ip to 10.1.2.7",
        f"{head} tcp dport {{ 81 }} dnat ip to 10.1.2.7:8081",
        f"{head} tcp dport {{ 100-101 }} dnat ip to 10.1.2.7 : tcp dport map {{ 100 : 200, 101 : 201 }}",
        f"{head} dnat ip to 10.1.2.9",
    ]
    script = render.nft_rules(NETWORK, [], Rulebook(forwards=(forward,)))
    assert script.count(f"{head} dnat ip to 10.1.2.9") == 2
    assert "ip saddr 10.1.2.0/24 ip daddr 10.1.2.0/24 ct status dnat masquerade" in script


def test_a_balancer_leads_to_its_backends_in_turn() -> None:
    backends = (Backend("a", "", "10.1.2.7", "8080"), Backend("b", "", "10.1.2.8", ""))
    ports = (BalancerPort("tcp", "80", ("a", "b")), BalancerPort("tcp", "81", ("a",)))
    balancer = NetworkLoadBalancer("br0", LISTEN, backends=backends, ports=ports)
    both = "map { 0 : 10.1.2.7 . 8080, 1 : 10.1.2.8 . 80 }"
    assert list(balancers.rules(balancers.checked(balancer, NETWORK))) == [
        f"ip daddr 192.0.2.10 tcp dport 80 dnat ip to numgen inc mod 2 {both}",
        "ip daddr 192.0.2.10 tcp dport { 81 } dnat ip to numgen inc mod 1 map { 0 : 10.1.2.7 . 8080 }",
    ]


@pytest.mark.parametrize(
    ("backends", "ports", "sentence"),
    [
        ((Backend("a", "", "x"),), (), 'Invalid target address for backend "a"'),
        ((Backend("", "", "10.1.2.7"),), (), 'The name of backend "" must have 1 to 63 characters'),
        ((), (BalancerPort("tcp", "80", ("a",)),), 'Unknown backend "a" in port specification 0'),
        ((), (BalancerPort("tcp", "80"),), "Missing target backend in port specification 0"),
    ],
)
def test_a_balancer_is_refused_with_what_is_wrong(
    backends: tuple[Backend, ...], ports: tuple[BalancerPort, ...], sentence: str
) -> None:
    with pytest.raises(Invalid) as refused:
        balancers.checked(NetworkLoadBalancer("br0", LISTEN, backends=backends, ports=ports), NETWORK)
    assert refused.value.message == sentence
