"""`podium doctor` and `podium network map`: what they make of a member's answers."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from cli.doctor import described, finding
from cli.networkmap import nodes, svg, text


def _warning(message: str) -> dict[str, object]:
    return {
        "severity": "high", "type": "Kernel setting stops instances from working", "status": "new",
        "entity_url": "/1.0/networks/br0", "last_message": message,
    }  # fmt: skip


def test_a_finding_is_told_apart_from_the_commands_that_help():
    found = finding(
        _warning("A is off, so B. Run: sysctl -w a=1 && iptables -I 'DOCKER-USER' -i br0 -j ACCEPT")
    )
    assert found.what == "A is off, so B."
    assert found.commands == (
        ("sysctl", "-w", "a=1"),
        ("iptables", "-I", "DOCKER-USER", "-i", "br0", "-j", "ACCEPT"),
    )
    assert described(1, found)[0] == "1. [high] Kernel setting stops instances from working (networks/br0)"
    assert described(1, found)[-1] == "   $ iptables -I DOCKER-USER -i br0 -j ACCEPT"


@pytest.mark.parametrize(
    "message",
    ["It is so", "X. Run: rm -rf /", "X. Run: sysctl -w a=1 && sh -c evil", "X. Run: sysctl 'a", "Run: "],
)
def test_what_is_no_known_command_is_never_run(message: str):
    """Messages hold names that others chose; a person reads them then."""
    assert finding(_warning(message)).commands == ()
    assert finding(_warning(message)).what == message


NETWORKS = [
    {"name": "br0", "type": "bridge", "status": "Created"},
    {"name": "br1", "type": "bridge", "status": "Errored"},
]
ALLOCATIONS = [
    {"network": "br0", "type": "network", "addresses": "10.1.2.1/24",
     "used_by": "/1.0/networks/br0", "nat": True},
    {"network": "br0", "type": "network-forward", "addresses": "192.0.2.1/32",
     "used_by": "/1.0/networks/br0/forwards/192.0.2.1", "nat": False},
    {"network": "br0", "type": "instance", "addresses": "10.1.2.9/32",
     "used_by": "/1.0/instances/<c1>?project=p", "nat": True},
    {"network": "br0", "type": "instance", "addresses": "fd42::9/128",
     "used_by": "/1.0/instances/<c1>?project=p", "nat": False},
]  # fmt: skip


def test_the_map_shows_networks_and_who_is_on_them():
    assert text(nodes(NETWORKS, ALLOCATIONS)) == (
        "host\n"
        "├─ br0 (bridge) 10.1.2.1/24 NAT\n"
        "│  ├─ instance <c1>  10.1.2.9, fd42::9\n"
        "│  └─ forward  192.0.2.1\n"
        "└─ br1 (bridge)  [Errored]\n"
    )


def test_the_picture_is_well_formed_whatever_names_there_are():
    picture = ElementTree.fromstring(svg(nodes(NETWORKS, ALLOCATIONS)))
    words = [element.text for element in picture.iter() if element.text and element.text.strip()]
    assert "instance <c1>" in words
    assert "br0 (bridge) 10.1.2.1/24 NAT" in words
