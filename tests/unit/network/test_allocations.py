"""Every address in use is told once, with whose it is."""

from __future__ import annotations

from core.records import Network, NicReservation
from services.network.domain.allocations import Allocation, of_network


def test_networks_instances_and_listeners_are_told() -> None:
    config = {"ipv4.address": "10.1.2.1/24", "ipv4.nat": "true", "ipv6.address": "fd42::1/64"}
    nic = NicReservation(instance_name="c1", project="web", hwaddr="00:16:3e:00:00:01", ipv4="10.1.2.9")
    found = list(of_network(Network("br0", config=config), [nic], ["192.0.2.1"], ["fd99::1"]))
    assert found == [
        Allocation("10.1.2.1/24", "networks/br0", "network", True, "br0"),
        Allocation("fd42::1/64", "networks/br0", "network", False, "br0"),
        Allocation("10.1.2.9/32", "instances/c1?project=web", "instance", True, "br0", nic.hwaddr, "web"),
        Allocation("192.0.2.1/32", "networks/br0/forwards/192.0.2.1", "network-forward", False, "br0"),
        Allocation(
            "fd99::1/128", "networks/br0/load-balancers/fd99::1", "network-load-balancer", False, "br0"
        ),
    ]
