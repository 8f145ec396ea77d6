"""ACLs: LXD's words for what they may not hold, and the rules that they become."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core.errors import Invalid
from core.netrecords import AclRule, AddressSet, NetworkAcl
from core.records import Network, NicReservation
from services.network.domain import acllog, acls, filters, render, spans
from services.network.domain.rulebook import Rulebook

NETWORK = Network("br0", config={"ipv4.address": "10.1.2.1/24", "security.acls": "web"})
NIC = NicReservation(
    instance_id="i", network="br0", host_name="veth1", hwaddr="00:16:3e:00:00:01", ipv4="10.1.2.9",
    options={"security.acls": "db"},
)  # fmt: skip
WEB = NetworkAcl(
    "0a0b0c0d", "default", "web", ingress=(AclRule("allow", protocol="tcp", destination_port="80"),)
)


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        (AclRule("foo"), "Action must be one of: allow, drop, reject"),
        (AclRule("allow", "maybe"), "State must be one of: enabled, disabled, logged"),
        (AclRule("allow", protocol="foo"), "Protocol must be one of: icmp4, icmp6, tcp, udp"),
        (AclRule("allow", source="x y"), 'Invalid Source: Invalid subject "x y"'),
        (AclRule("allow", source='"} accept'), 'Invalid Source: Invalid subject ""} accept"'),
        (AclRule("allow", source="fe80::1%a"), 'Invalid Source: Invalid subject "fe80::1%a"'),
        (AclRule("allow", source="10.0.0.9-10.0.0.1"), 'Invalid Source: Invalid subject "10.0.0.9-10.0.0.1"'),
        (AclRule("allow", source="1.1.1.1", destination="fd42::1"),
         "Conflicting IP family types used for Source and Destination"),
        (AclRule("allow", protocol="icmp4", destination_port="1"),
         'Destination port cannot be used with "icmp4" protocol'),
        (AclRule("allow", protocol="icmp4", icmp_type="300"),
         'Invalid ICMP type: Invalid value for an integer "300". Must be between 0 and 255'),
        (AclRule("allow", protocol="icmp6", source="1.1.1.1"),
         'Cannot use IPv4 source addresses with "icmp6" protocol'),
        (AclRule("allow", protocol="tcp", icmp_type="3"), "ICMP type cannot be used with non-ICMP protocol"),
        (AclRule("allow", icmp_type="3"), "ICMP type cannot be used without specifying protocol"),
        (AclRule("allow", source_port="3"), "Source port cannot be used without specifying protocol"),
        (AclRule("allow", protocol="tcp", source_port="a"), 'Invalid Source port: Invalid port number "a"'),
        (AclRule("allow", protocol="udp", destination_port="9-8"),
         "Invalid Destination port: Start port 9 must be lower than end port 8"),
        (AclRule("drop", destination="@external"),
         'Invalid Destination: Named subjects not allowed in "Destination" for "ingress" rules'),
    ],
)  # fmt: skip
def test_a_rule_is_refused_in_the_words_of_lxd(rule: AclRule, sentence: str) -> None:
    with pytest.raises(Invalid) as refused:
        acls.checked(replace(WEB, ingress=(rule,)), {"web"})
    assert refused.value.message == f"Invalid ingress rule 0: {sentence}"


def test_lists_are_brought_into_one_form_before_rules_are_compared() -> None:
    rules = AclRule("allow", source=" 10.0.0.1 , 10.0.0.2"), AclRule("allow", source="10.0.0.1,10.0.0.2")
    assert acls.checked(replace(WEB, ingress=rules[:1]), {"web"}).ingress == rules[1:]
    with pytest.raises(Invalid, match="Duplicate of ingress rule 0"):
        acls.checked(replace(WEB, ingress=rules), {"web"})


def _chain(text: str, name: str) -> list[str]:
    lines = text.splitlines()
    start = lines.index(f" chain {name} {{")
    return [line.strip() for line in lines[start + 1 : lines.index(" }", start)]]


def test_a_network_with_acls_lets_answers_pass_and_asks_for_the_rest() -> None:
    text = render.nft_rules(NETWORK, [], Rulebook({"web": WEB}))
    assert _chain(text, "out")[1:6] == [
        'iifname "br0" ct state established,related accept',
        'oifname "br0" ct state established,related accept',
        'iifname "br0" oifname "br0" jump sib',
        'iifname "br0" oifname != "br0" jump egr',
        'iifname != "br0" oifname "br0" jump igr',
    ]
    assert _chain(text, "in")[1:3] == [
        'iifname "br0" ct state established,related accept',
        'iifname "br0" jump egr',
    ]
    assert _chain(text, "igr")[-2:] == ["meta l4proto tcp tcp dport { 80 } return", "reject"]
    assert _chain(text, "egr")[-1] == "reject"


def test_among_instances_either_direction_may_let_a_packet_pass() -> None:
    """As with LXD, whose one chain holds both; the egress default has the last word."""
    acl = replace(WEB, egress=(AclRule("drop", destination="10.1.2.7"),))
    rules = _chain(render.nft_rules(NETWORK, [NIC], Rulebook({"web": acl})), "sib")
    assert rules == [
        "ether saddr { 00:16:3e:00:00:01 } goto two",
        "ip daddr { 10.1.2.9 } goto two",
        "ip6 daddr { fe80::216:3eff:fe00:1 } goto two",
        "icmp type { 3, 11, 12 } return",
        "icmpv6 type { 1, 2, 3, 4, 135, 136, 143 } return",
        "ip daddr { 10.1.2.7 } drop",
        "meta l4proto tcp tcp dport { 80 } return",
        "reject",
    ]


def test_drop_comes_first_and_allow_last_over_all_acls() -> None:
    first = replace(WEB, ingress=(AclRule("allow"), AclRule("reject", source="10.9.0.0/16")))
    second = replace(WEB, id="1", name="db", ingress=(AclRule("drop", source="10.9.9.9"),))
    network = replace(NETWORK, config={**NETWORK.config, "security.acls": "web,db"})
    rules = _chain(render.nft_rules(network, [], Rulebook({"web": first, "db": second})), "igr")
    assert rules[-4:] == [
        "ip saddr { 10.9.9.9 } drop",
        "ip saddr { 10.9.0.0-10.9.255.255 } reject",
        "return",
        "reject",
    ]


def test_a_nic_has_its_acls_and_those_of_its_network_in_a_block_of_its_own() -> None:
    db = replace(WEB, id="1", name="db", ingress=(AclRule("allow", source="web", protocol="tcp"),))
    book = Rulebook({"web": WEB, "db": db}, {"web": ("10.1.2.7", "fe80::7")})
    rules = _chain(render.nft_rules(NETWORK, [NIC], book), "igr")
    assert rules[-4] == (
        "ip daddr { 10.1.2.9 } goto { meta l4proto tcp tcp dport { 80 } return; "
        "ip saddr { 10.1.2.7 } meta l4proto tcp return; "
        "ip6 saddr { fe80::7 } meta l4proto tcp return; reject; }"
    )
    assert rules[-3].startswith("ip6 daddr { fe80::216:3eff:fe00:1 } goto {")
    assert _chain(render.nft_rules(NETWORK, [NIC], book), "egr")[-2] == (
        "ether saddr 00:16:3e:00:00:01 goto { reject; }"
    )


def test_inside_and_outside_are_spans_of_all_addresses() -> None:
    outer = replace(WEB, egress=(AclRule("allow", destination="@external"),))
    rules = _chain(render.nft_rules(NETWORK, [], Rulebook({"web": outer})), "egr")
    assert rules[-3] == "ip daddr { 0.0.0.0-10.1.1.255, 10.1.3.0-255.255.255.255 } return"


def test_an_address_set_stands_for_its_addresses_at_either_end() -> None:
    rules = AclRule("allow", source="$office", destination="$servers"), AclRule("drop", source="$none")
    acl = acls.checked(replace(WEB, ingress=rules), {"web", "$office", "$servers", "$none"})
    book = Rulebook({"web": acl}, sets={"$office": ("192.0.2.0/24", "fd42::/64"), "$servers": ("10.1.2.5",)})
    assert _chain(render.nft_rules(NETWORK, [], book), "igr")[-2:] == [
        "ip saddr { 192.0.2.0-192.0.2.255 } ip daddr { 10.1.2.5 } return",
        "reject",
    ]
    assert acls.sets_in(acl) == {"office", "servers", "none"}
    with pytest.raises(Invalid, match="Invalid subject"):
        acls.checked(replace(WEB, ingress=rules), {"web"})
    with pytest.raises(Invalid, match="Invalid address"):
        acls.checked_set(AddressSet("default", "s", addresses=("nobody",)))


def test_an_acl_makes_a_nic_speak_as_itself_and_nobody_else_as_it() -> None:
    rules = filters.rules_of(NIC)
    assert 'iifname "veth1" ether saddr != 00:16:3e:00:00:01 drop' in rules
    assert 'iifname != "veth1" ether saddr 00:16:3e:00:00:01 drop' in rules
    assert 'iifname != "veth1" ether type ip ip saddr 10.1.2.9 drop' in rules


def test_what_is_logged_says_which_rule_and_is_bounded() -> None:
    logged = replace(WEB, ingress=(AclRule("drop", "logged", protocol="udp"), AclRule("drop", "disabled")))
    rules = _chain(render.nft_rules(NETWORK, [], Rulebook({"web": logged}, log_group=7)), "igr")
    assert rules[-3:] == [
        "meta l4proto udp limit rate 50/second burst 100 packets "
        'log prefix "podium 0a0b0c0d i0 drop " group 7 snaplen 128',
        "meta l4proto udp drop",
        "reject",
    ]


def test_a_logged_packet_is_told_as_lxd_tells_it() -> None:
    packet = bytes.fromhex("450000280000000040060000 0a010207 0a010209 1f90 0050".replace(" ", ""))
    found = acllog.parse("podium 0a0b0c0d i0 drop ", packet, 0.0)
    assert found is not None
    assert found.line == (
        '{"time": "1970-01-01T00:00:00Z", "proto": "tcp", "src": "10.1.2.7", "dst": "10.1.2.9", '
        '"src_port": "8080", "dst_port": "80", "action": "drop", "rule": "ingress 0"}'
    )
    assert acllog.parse("podium 0a0b0c0d i0 drop ", packet[:9], 0.0) is None
    assert acllog.parse("another's", packet, 0.0) is None


def test_spans_are_merged_since_nft_refuses_what_overlaps() -> None:
    found = [spans.parse_subject(text)[1] for text in ("10.0.0.0/24", "10.0.0.9", "10.0.1.0-10.0.1.3")]
    assert spans.address_set(found, "ipv4") == "{ 10.0.0.0-10.0.1.3 }"
    assert spans.port_set(spans.parse_port(text) for text in ("80", "81-90", "443")) == "{ 80-90, 443 }"
