"""What is in the way of networks is named, with the command that helps; what is not is left alone."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network
from typing import Any

import pytest

from core.records import Network
from services.network.domain import conflicts
from services.network.domain.conflicts import Conflict, Listener, Seen

NETWORK = Network("br0", config={"ipv4.address": "10.1.2.1/24"})
QUIET = Seen({}, (), (), {}, frozenset({"br0"}))


def _chain(name: str, **more: str) -> dict[str, Any]:
    return {"chain": {"family": "ip", "table": "filter", "name": name, **more}}


def _rule(chain: str, *expr: dict[str, Any]) -> dict[str, Any]:
    return {"rule": {"family": "ip", "table": "filter", "chain": chain, "expr": list(expr)}}


def _is(key: str, value: str) -> dict[str, Any]:
    return {"match": {"op": "==", "left": {"meta": {"key": key}}, "right": value}}


ACCEPT: dict[str, Any] = {"accept": None}
COUNTER: dict[str, Any] = {"counter": {"packets": 0, "bytes": 0}}
# As `nft -j list table ip filter` shows it on a host with Docker 20.10.
DOCKER = [
    _chain("FORWARD", hook="forward", policy="drop"),
    _chain("DOCKER-USER"),
    _rule("FORWARD", COUNTER, {"jump": {"target": "DOCKER-USER"}}),
    _rule("FORWARD", _is("oifname", "docker0"), COUNTER, ACCEPT),
    _rule("DOCKER-USER", COUNTER, {"return": None}),
]


def _found(seen: Seen, network: Network = NETWORK) -> list[Conflict]:
    return conflicts.find([network], seen)


def _behind(rules: list[dict[str, Any]]) -> Seen:
    return replace(QUIET, tables={("ip", "filter"): rules})


def test_a_quiet_host_has_no_conflicts() -> None:
    assert _found(QUIET) == []


def test_dockers_policy_is_named_with_the_commands_that_open_it() -> None:
    [found] = _found(_behind(DOCKER))
    assert (found.type, found.severity, found.subject) == (conflicts.FORWARD, "high", "networks/br0")
    assert "Docker drops" in found.message
    assert (
        "iptables -I DOCKER-USER -i br0 -j ACCEPT && iptables -I DOCKER-USER -o br0 -j ACCEPT"
        in found.message
    )


def test_it_is_over_once_both_directions_are_accepted() -> None:
    """The very commands that the warning names must end it, and half of them must not."""
    incoming = _rule("DOCKER-USER", _is("iifname", "br0"), COUNTER, ACCEPT)
    outgoing = _rule("DOCKER-USER", _is("oifname", "br0"), COUNTER, ACCEPT)
    assert len(_found(_behind([*DOCKER, incoming]))) == 1
    assert _found(_behind([*DOCKER, incoming, outgoing])) == []


def test_accepting_another_bridge_or_a_part_of_the_traffic_does_not_count() -> None:
    both = [
        _rule("FORWARD", _is("iifname", "br1"), ACCEPT),
        _rule("FORWARD", _is("iifname", "br0"), _is("oifname", "eth0"), ACCEPT),
        _rule("FORWARD", _is("oifname", "br0"), {"xt": {"type": "match", "name": "conntrack"}}, ACCEPT),
    ]
    assert len(_found(_behind([*DOCKER, *both]))) == 1


def test_a_firewall_of_nft_gets_commands_of_nft() -> None:
    rules = [_chain("fwd", hook="forward", policy="drop")]
    [found] = _found(replace(QUIET, tables={("inet", "fw"): rules}))
    assert "nft insert rule inet fw fwd iifname br0 accept" in found.message


def test_a_policy_of_another_family_does_not_matter() -> None:
    assert _found(replace(QUIET, tables={("ip6", "filter"): DOCKER})) == []


@pytest.mark.parametrize(
    ("listener", "serving", "is_conflict"),
    [
        (Listener("10.1.2.1", "", 53, "named (process 7)"), False, True),
        (Listener("0.0.0.0", "", 53, "named (process 7)"), False, True),
        (Listener("0.0.0.0", "", 53, "named (process 7)"), True, False),
        (Listener("127.0.0.1", "", 53, "named (process 7)"), False, False),
        (Listener("0.0.0.0", "", 67, "dhcpd (process 7)"), True, True),
        (Listener("0.0.0.0", "virbr0", 67, "dnsmasq (process 7)"), False, False),
        (Listener("0.0.0.0", "br0", 67, "dnsmasq (process 7)"), True, False),
        (Listener("0.0.0.0", "br0", 67, "dnsmasq (process 7)"), False, True),
    ],
)
def test_another_server_is_named_only_where_it_disturbs(
    listener: Listener, serving: bool, is_conflict: bool
) -> None:
    """Once ours is bound to its bridge, only a broadcast port that all hear can come between."""
    seen = replace(QUIET, listeners=(listener,), serving=frozenset({"br0"} if serving else ()))
    found = _found(seen)
    assert bool(found) == is_conflict
    assert all(listener.process in c.message and c.type == conflicts.SERVER for c in found)


def test_an_overlap_names_the_other_interface_and_the_bridge_does_not_overlap_itself() -> None:
    own, other = ("br0", IPv4Network("10.1.2.0/24")), ("tun0", IPv4Network("10.1.0.0/16"))
    assert _found(replace(QUIET, subnets=(own,))) == []
    [found] = _found(replace(QUIET, subnets=(own, other)))
    assert "overlaps 10.1.0.0/16 of tun0" in found.message


def test_low_limits_and_missing_forwarding_come_with_their_command() -> None:
    settings = {"net.ipv4.ip_forward": "0", "fs.inotify.max_user_instances": "128"}
    found = _found(replace(QUIET, settings=settings))
    assert [c.subject for c in found] == ["networks/br0", ""]
    assert "Run: sysctl -w net.ipv4.ip_forward=1" in found[0].message
    assert "Run: sysctl -w fs.inotify.max_user_instances=1048576" in found[1].message


def test_a_network_that_is_not_up_says_why() -> None:
    [found] = _found(QUIET, replace(NETWORK, error="dnsmasq did not start"))
    assert (found.type, found.message) == ("Network unavailable", "dnsmasq did not start")


def test_a_bridge_with_larger_packets_than_the_way_out_is_named() -> None:
    seen = replace(QUIET, uplinks=(("up0", 1400),))
    wide = Network("br0", config={"ipv4.address": "10.1.2.1/24", "bridge.mtu": "9000"})
    [found] = conflicts.find([wide], seen)
    assert (found.type, found.subject) == (conflicts.MTU, "networks/br0")
    assert "up0, the way out, takes 1400" in found.message
    assert found.message.endswith("Run: podium network set br0 bridge.mtu=1400")
    assert conflicts.find([replace(wide, config={"ipv4.address": "10.1.2.1/24"})], seen) == []


@pytest.mark.parametrize(
    ("of_all", "of_first", "ways", "is_conflict"),
    [
        ("0", "1", 2, True),
        ("1", "0", 2, True),
        ("1", "2", 2, False),
        ("2", "1", 2, False),
        ("1", "1", 1, False),
    ],
)
def test_a_strict_check_of_senders_matters_where_there_are_two_ways_out(
    of_all: str, of_first: str, ways: int, is_conflict: bool
) -> None:
    settings = {"net.ipv4.conf.all.rp_filter": of_all, "net.ipv4.conf.up/7.rp_filter": of_first}
    settings["net.ipv4.conf.up1.rp_filter"] = "2"
    seen = replace(QUIET, settings=settings, uplinks=(("up.7", 1500), ("up1", 1500))[:ways])
    found = [c for c in _found(seen) if c.type == conflicts.RP_FILTER]
    assert bool(found) == is_conflict
    assert all(c.message.endswith("Run: sysctl -w net.ipv4.conf.up/7.rp_filter=2") for c in found)
