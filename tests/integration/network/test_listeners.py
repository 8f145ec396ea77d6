"""Forwards and load balancers between live namespaces: from outside, the host and the bridge."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import AlreadyExists, Invalid
from core.netrecords import Backend, BalancerPort, ForwardPort, NetworkForward, NetworkLoadBalancer
from services.network.kernel.sysctls import ensure_bridged_seen
from services.network.usecases.backends import Backends, connects
from tests.integration.network.guests import INSIDE, OUTSIDE, Site
from tests.subnets import lone

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs CAP_NET_ADMIN")
FIRST, SECOND, GATEWAY = (f"{INSIDE}.{last}" for last in (10, 11, 1))
LISTEN = lone(66)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(tmp_path)
    try:
        await made.start()
        for number in (0, 1):
            await made.plug(number)
            for port in (80, 81, 9001):
                made.guests[number].serve(port)
        yield made
    finally:
        await made.close()


def _port(listen: str, target: str, address: str = FIRST, protocol: str = "tcp") -> ForwardPort:
    return ForwardPort(protocol, listen, target, address)


async def test_ports_lead_where_they_should_for_everybody(site: Site) -> None:
    ports = (_port("8080", "80"), _port("9000-9001", "81,9001"), _port("80", "", SECOND, "udp"))
    await site.forwards.create(NetworkForward(site.name, LISTEN, ports=ports))

    for port in (8080, 9000, 9001):
        assert site.outside.ask(LISTEN, port) == OUTSIDE
    assert site.outside.ask(LISTEN, 80, udp=True) == OUTSIDE
    assert site.outside.ask(LISTEN, 81) == ""
    with socket.create_connection((LISTEN, 8080), 1) as connection:
        connection.send(b"?")
        assert connection.recv(100)
    # From the bridge the answer has to go the same way back, so that the host stands in for who asks.
    assert site.guests[1].ask(LISTEN, 8080) == GATEWAY


async def test_a_guest_reaches_itself_by_its_own_forward(site: Site) -> None:
    """Also one that is plugged in again, and no other than those that a listen address leads to."""
    ensure_bridged_seen()
    await site.forwards.create(NetworkForward(site.name, LISTEN, ports=(_port("8080", "80"),)))
    assert site.guests[0].ask(LISTEN, 8080) == GATEWAY
    nics = {nic.ipv4: Path("/sys/class/net", nic.host_name, "brport/hairpin_mode") for nic in site.plugged()}
    assert {address for address, mode in nics.items() if mode.read_text().strip() == "1"} == {FIRST}
    nics[FIRST].write_text("0")
    assert site.guests[0].ask(LISTEN, 8080) == ""
    await site.nics.plug(site.id(0), site.guests[0].process.pid)
    assert site.guests[0].ask(LISTEN, 8080) == GATEWAY
    await site.forwards.delete(site.name, LISTEN)
    assert nics[FIRST].read_text().strip() == "0"


async def test_what_no_port_tells_goes_to_the_default_until_the_forward_is_gone(site: Site) -> None:
    config = {"target_address": SECOND}
    made = await site.forwards.create(NetworkForward(site.name, LISTEN, "", config, (_port("81", "80"),)))
    assert site.outside.ask(LISTEN, 80) == OUTSIDE
    changed = replace(made.record, config={}, ports=())
    await site.forwards.update(site.name, LISTEN, changed, expected_revision=made.revision)
    assert site.outside.ask(LISTEN, 80) == ""
    await site.forwards.update(site.name, LISTEN, made.record, expected_revision=0)
    assert site.outside.ask(LISTEN, 80) == OUTSIDE
    await site.forwards.delete(site.name, LISTEN)
    assert site.outside.ask(LISTEN, 80) == ""


async def test_an_address_listens_once_and_not_where_a_nic_has_it(site: Site) -> None:
    await site.forwards.create(NetworkForward(site.name, LISTEN))
    with pytest.raises(AlreadyExists):
        await site.forwards.create(NetworkForward(site.name, LISTEN))
    for taken in (LISTEN, FIRST):
        with pytest.raises(Invalid, match="overlaps with another network or NIC"):
            await site.balancers.create(NetworkLoadBalancer(site.name, taken))
    with pytest.raises(Invalid, match="Failed validating firewall address forward"):
        await site.set(ipv4_address="none")


async def test_connections_are_spread_over_who_answers(site: Site) -> None:
    """A backend that is away is left out, and comes back."""
    backends = (Backend("a", "", FIRST, "80"), Backend("b", "", SECOND, "82"))
    check = {"healthcheck": "true", "healthcheck.failure_count": "1", "healthcheck.success_count": "1"}
    ports = (BalancerPort("tcp", "80", ("a", "b")),)
    await site.balancers.create(NetworkLoadBalancer(site.name, LISTEN, "", check, backends, ports))
    assert {site.outside.ask(LISTEN, 80) for _ in range(4)} == {OUTSIDE, ""}

    await Backends(site.store, site.networks, connects).look()
    assert [site.outside.ask(LISTEN, 80) for _ in range(4)] == [OUTSIDE] * 4
    site.guests[1].serve(82)
    await Backends(site.store, site.networks, connects).look()
    assert site.store.down == set()
    assert [site.outside.ask(LISTEN, 80) for _ in range(4)] == [OUTSIDE] * 4
