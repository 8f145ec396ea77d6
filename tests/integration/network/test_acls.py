"""ACLs between live namespaces: what is blocked is blocked, what is allowed passes, in every direction."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.errors import WrongState
from core.netrecords import AclRule, AddressSet
from tests.integration.network.guests import BEYOND, INSIDE, OUTSIDE, Site, connected

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs CAP_NET_ADMIN")
FIRST, SECOND, BRIDGE = (f"{INSIDE}.{last}" for last in (10, 11, 1))


def allow(**what: str) -> AclRule:
    return AclRule(action="allow", **what)


WEB = allow(protocol="tcp", destination_port="80")


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(tmp_path)
    try:
        await made.start()
        for number in (0, 1):
            await made.plug(number)
            for port in (80, 81):
                made.guests[number].serve(port)
        made.outside.serve(80)
        made.outside.serve(81)
        yield made
    finally:
        await made.close()


async def test_without_acls_all_reach_all(site: Site) -> None:
    """The control: what the others find closed would be open."""
    assert site.outside.ask(FIRST, 81) == OUTSIDE
    assert site.guests[0].ask(OUTSIDE, 81) == FIRST
    assert site.guests[0].ask(SECOND, 81) == FIRST


async def test_the_acl_of_a_network_bounds_both_directions(site: Site) -> None:
    await site.acl("web", ingress=(WEB,), egress=(allow(protocol="udp", destination=f"{BEYOND}.0/24"),))
    await site.set(security_acls="web")

    assert site.outside.ask(FIRST, 80) == OUTSIDE
    assert site.outside.ask(FIRST, 81) == ""
    assert site.guests[0].ask(OUTSIDE, 80) == ""
    assert site.guests[0].ask(OUTSIDE, 80, udp=True) == FIRST


async def test_among_instances_one_direction_is_enough_but_not_for_a_nic_with_its_own(site: Site) -> None:
    """What LXD 5.0.2 does where the kernel shows bridged packets to the IP firewall."""
    await site.acl("out", egress=(allow(),))
    await site.set(security_acls="out")
    assert site.guests[1].ask(FIRST, 80) == SECOND
    await site.acl("web", ingress=(allow(protocol="tcp", destination_port="81"),))
    await site.plug(0, security_acls="web")
    assert site.guests[1].ask(FIRST, 80) == ""
    assert site.guests[1].ask(FIRST, 81) == SECOND


async def test_the_acl_of_a_nic_bounds_what_its_neighbours_may_do(site: Site) -> None:
    """LXD 5.0 has none on a bridge. The neighbour itself is as free as it was."""
    await site.acl("web", ingress=(WEB,), egress=(allow(protocol="udp"),))
    await site.plug(0, security_acls="web")

    assert site.guests[1].ask(FIRST, 80) == SECOND
    assert site.guests[1].ask(FIRST, 81) == ""
    assert site.guests[1].ask(FIRST, 81, udp=True) == ""
    assert site.guests[0].ask(SECOND, 81) == ""
    assert site.guests[0].ask(SECOND, 81, udp=True) == FIRST
    assert site.outside.ask(FIRST, 81) == ""
    assert site.outside.ask(SECOND, 81) == OUTSIDE


async def test_drop_wins_over_reject_and_both_over_allow(site: Site) -> None:
    closed = (AclRule("reject", source=f"{BEYOND}.0/24"), AclRule("drop", source=SECOND), allow())
    await site.acl("mixed", ingress=closed)
    await site.plug(0, security_acls="mixed", security_acls_default_ingress_action="allow")

    assert site.guests[1].ask(FIRST, 80) == ""
    assert site.outside.ask(FIRST, 80) == ""


async def test_acls_as_subjects_are_who_has_them(site: Site) -> None:
    """Who comes and goes is in or out at once."""
    await site.acl("clients", egress=(allow(),))
    await site.acl("servers", ingress=(allow(source="clients"),))
    await site.plug(0, security_acls="servers")
    assert site.guests[1].ask(FIRST, 80) == ""
    await site.plug(1, security_acls="clients")
    assert site.guests[1].ask(FIRST, 80) == SECOND
    await site.plug(1)
    assert site.guests[1].ask(FIRST, 80) == ""


async def test_an_address_set_changes_at_once_what_rules_mean(site: Site) -> None:
    await site.sets.create(AddressSet("default", "friends", addresses=(OUTSIDE,)))
    await site.acl("web", ingress=(allow(source="$friends"),))
    await site.plug(0, security_acls="web")
    assert site.outside.ask(FIRST, 80) == OUTSIDE
    assert site.guests[1].ask(FIRST, 80) == ""
    wanted = AddressSet(addresses=(f"{INSIDE}.0/24",))
    await site.sets.update("default", "friends", wanted, expected_revision=0)
    assert site.outside.ask(FIRST, 80) == ""
    assert site.guests[1].ask(FIRST, 80) == SECOND
    with pytest.raises(WrongState, match="Cannot delete an address set that is in use"):
        await site.sets.delete("default", "friends")


async def test_inside_and_outside_are_told_apart(site: Site) -> None:
    await site.acl("inner", ingress=(allow(source="@internal"),), egress=(allow(destination="@external"),))
    await site.plug(0, security_acls="inner")

    assert site.guests[1].ask(FIRST, 80) == SECOND
    assert site.outside.ask(FIRST, 80) == ""
    assert site.guests[0].ask(OUTSIDE, 80) == FIRST
    assert site.guests[0].ask(SECOND, 80) == ""


async def test_who_has_acls_speaks_only_as_itself(site: Site) -> None:
    """Rules tell guests by their addresses, so nobody with rules may have others."""
    await site.acl("all", ingress=(allow(),), egress=(allow(),))
    await site.plug(0, security_acls="all")
    await site.plug(1, security_acls="all")
    assert site.guests[1].ask(FIRST, 80) == SECOND
    site.guests[1].run("ip", "address", "add", f"{INSIDE}.50/24", "dev", "eth0")
    with site.guests[1].socket() as forged:
        forged.bind((f"{INSIDE}.50", 0))
        with pytest.raises(OSError, match=r"timed out|unreachable"):
            forged.connect((FIRST, 80))


async def test_a_connection_goes_on_when_rules_close_behind_it(site: Site) -> None:
    await site.acl("web", ingress=(WEB,))
    await site.plug(0, security_acls="web")
    with connected(site.guests[1], FIRST, 80) as is_alive:
        assert is_alive()
        await site.acl("web")
        assert is_alive()
        assert site.guests[1].ask(FIRST, 80) == ""


async def test_nothing_slips_through_while_rules_are_swapped(site: Site) -> None:
    """Datagrams without a pause, and two dozen changes meanwhile: none arrives."""
    await site.acl("shut", ingress=(allow(protocol="udp", destination_port="9"),))
    await site.plug(0, security_acls="shut")
    arrived, stop = 0, threading.Event()
    listening = site.guests[0].socket(2)
    listening.bind(("0.0.0.0", 7000))
    listening.setblocking(False)
    sending = site.guests[1].socket(2)

    def flood() -> None:
        while not stop.is_set():
            try:
                sending.sendto(b"x", (FIRST, 7000))
            except OSError:
                continue

    sender = threading.Thread(target=flood)
    sender.start()
    try:
        for number in range(8):
            await site.acl("shut", ingress=(allow(protocol="udp", destination_port=str(10 + number)),))
            await site.set(security_acls="shut" if number % 2 else "")
            while True:
                try:
                    listening.recv(10)
                except BlockingIOError:
                    break
                arrived += 1
    finally:
        stop.set()
        await asyncio.to_thread(sender.join)
    assert arrived == 0


async def test_rules_deleted_by_hand_return(site: Site) -> None:
    await site.acl("web", ingress=(WEB,))
    await site.plug(0, security_acls="web")
    table = site.name
    site.host._nft.run(f"flush chain inet podium_{table} igr")
    assert site.guests[1].ask(FIRST, 81) == SECOND
    await site.networks.reconcile()
    assert site.guests[1].ask(FIRST, 81) == ""


async def test_what_rules_log_can_be_read(site: Site) -> None:
    await site.acl("web", ingress=(AclRule("drop", "logged", protocol="tcp", destination_port="81"), allow()))
    await site.plug(0, security_acls="web")
    assert site.guests[1].ask(FIRST, 81) == ""
    await asyncio.sleep(0.4)
    [entry] = [e.record for e in site.acls.entries("default")]
    line = (await site.host.logged(entry.id)).decode().splitlines()[0]
    for part in (f'"src": "{SECOND}"', f'"dst": "{FIRST}"', '"dst_port": "81"', '"action": "drop"'):
        assert part in line
