"""Forwards as rules: what was asked for and nothing else."""

from __future__ import annotations

import pytest

from core.errors import Invalid
from services.network.domain.forwards import checked, instance_of, render, table_of

ID = "0b5c8c2e-7c1a-4f0e-9a55-0a3d4c1c2b11"


def test_ports_lead_to_ports_in_order_or_all_to_one() -> None:
    pairs = checked("tcp", "192.0.2.1", [80, 81], "10.1.1.5", [8080, 8081]).ports
    assert pairs == ((80, 8080), (81, 8081))
    assert checked("udp", "192.0.2.1", [53, 54], "10.1.1.5", [5]).ports == ((53, 5), (54, 5))


def test_both_ways_to_the_address_are_translated_and_the_way_back_to_oneself() -> None:
    script = render(ID, [checked("tcp", "2001:db8::1", [80], "fd42::5", [8080])])
    rule = "ip6 daddr 2001:db8::1 tcp dport 80 dnat ip6 to [fd42::5]:8080"
    assert script.count(rule) == 2
    assert "ip6 saddr fd42::5 ip6 daddr fd42::5 tcp dport 8080 masquerade" in script


def test_no_forwards_are_no_table() -> None:
    assert render(ID, []) == f"add table inet {table_of(ID)}\ndelete table inet {table_of(ID)}\n"
    assert instance_of(table_of(ID)) == ID
    assert instance_of("podium_podiumbr0") is None


@pytest.mark.parametrize(
    ("protocol", "listen", "ports", "connect", "targets"),
    [
        ("icmp", "192.0.2.1", [80], "10.1.1.5", [80]),
        ("tcp", "192.0.2.1; flush ruleset", [80], "10.1.1.5", [80]),
        ("tcp", "fe80::1%x", [80], "fd42::5", [80]),
        ("tcp", "192.0.2.1", [80], "fd42::5", [80]),
        ("tcp", "192.0.2.1", [0], "10.1.1.5", [80]),
        ("tcp", "192.0.2.1", [80], "10.1.1.5", [70000]),
        ("tcp", "192.0.2.1", [80, 81], "10.1.1.5", [80, 81, 82]),
        ("tcp", "192.0.2.1", [], "10.1.1.5", [80]),
    ],
)
def test_what_is_no_forward_becomes_no_rule(
    protocol: str, listen: str, ports: list[int], connect: str, targets: list[int]
) -> None:
    """The rules are text that the kernel obeys for the whole host."""
    with pytest.raises(Invalid):
        checked(protocol, listen, ports, connect, targets)


@pytest.mark.parametrize("id", ["", "x; flush ruleset", ID.upper(), f"../{ID}"])
def test_only_ids_name_tables(id: str) -> None:
    with pytest.raises(Invalid):
        table_of(id)
