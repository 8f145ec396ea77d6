"""What a NIC of each type becomes on its host: decided without one."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from core.errors import Invalid, WrongState
from core.records import Network, NicReservation
from services.network.domain import hostside, parents
from services.network.domain.hostside import Route, Vlan
from services.network.domain.nics import Owner, Wanted, decide, is_same_plug, still_fits
from services.network.domain.places import place_of
from services.network.domain.volatile import volatile_of
from services.network.ports import Link

NETWORKS = {
    "br": Network("br", config={"ipv4.address": "10.1.1.1/24"}),
    "mv": Network("mv", type="macvlan", config={"parent": "eth9", "mtu": "1300"}),
}
LINKS = {"eth9": Link("eth9", "", "02:00:00:00:00:09", 1500, True, False, index=9)}


def _nic(at_rest: bool = False, old: NicReservation | None = None, **options: str) -> NicReservation:
    given = {key.replace("__", "."): value for key, value in options.items()}
    place = place_of("d1", given, NETWORKS)
    owner = Owner("i1", "default", "c1", at_rest)
    return decide(
        owner, Wanted("d1", given), place, old, names={"eth0"}, taken=set(), avoid={}, random=Random(1)
    )


def test_a_nic_without_a_name_gets_the_next_one_and_keeps_it() -> None:
    nic = _nic(nictype="p2p")
    assert (nic.name, volatile_of(nic)["name"]) == ("eth1", "eth1")
    assert _nic(old=replace(nic, name="eth7"), nictype="p2p").name == "eth7"
    assert "name" not in volatile_of(_nic(nictype="p2p", name="lan0"))


@pytest.mark.parametrize(("asked", "fits"), [("", True), ("02:00:00:00:00:01", False)])
def test_a_nic_whose_mac_was_set_is_decided_anew(asked: str, fits: bool) -> None:
    """volatile.NAME.hwaddr is what instances keep their MAC by, and may be set like any key of theirs."""
    nic = _nic(nictype="p2p")
    owner, place = Owner("i1", "default", "c1", False), place_of("d1", nic.options, NETWORKS)
    assert still_fits(nic, owner, Wanted("d1", nic.options, asked), place) is fits
    assert still_fits(nic, owner, Wanted("d1", nic.options, nic.hwaddr), place)


def test_a_macvlan_of_a_network_has_the_parent_and_mtu_that_it_says() -> None:
    nic = _nic(network="mv")
    assert (nic.nictype, nic.parent, nic.mtu, nic.ipv4) == ("macvlan", "eth9", 1300, "")
    assert nic.host_name.startswith("mac")
    assert len(nic.host_name) <= 15


def test_an_interface_that_is_given_away_is_remembered_as_it_was() -> None:
    nic = parents.found(_nic(nictype="physical", parent="eth9", mtu="1400"), LINKS)
    assert nic.taken == {"index": "9", "hwaddr": "02:00:00:00:00:09", "mtu": "1500"}
    assert volatile_of(nic) == {
        "host_name": "eth9",
        "name": "eth1",
        "last_state.created": "false",
        "last_state.hwaddr": "02:00:00:00:00:09",
        "last_state.mtu": "1500",
    }
    # While a guest has it, the host has not; a retry must not take that for a missing parent.
    assert parents.found(nic, {}) == nic


@pytest.mark.parametrize("name", ["eth9", "eth1", "dev9"])
def test_an_interface_is_known_again_under_whatever_name_the_kernel_gives_it_back(name: str) -> None:
    nic = parents.found(_nic(nictype="physical", parent="eth9"), LINKS)
    back = replace(LINKS["eth9"], name=name)
    assert parents.returned(nic, [replace(back, name="other", index=3, hwaddr=""), back]) == back


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"nictype": "bridged", "parent": "no"}, 'Parent device "no" doesn\'t exist'),
        ({"nictype": "macvlan", "parent": "no"}, "Parent device 'no' doesn't exist"),
        ({"nictype": "bridged", "parent": "eth9"}, 'Parent device "eth9" is not a bridge'),
        ({"nictype": "sriov", "parent": "eth9"}, 'Parent device "eth9" doesn\'t support SR-IOV'),
    ],
)
def test_what_cannot_be_made_here_says_what_is_missing(options: dict[str, str], sentence: str) -> None:
    with pytest.raises(WrongState) as caught:
        parents.found(_nic(**options), LINKS)
    assert caught.value.message.startswith(f'Failed to start device "d1": {sentence}')


def test_a_routed_nic_is_answered_for_and_routed_to() -> None:
    nic = _nic(
        nictype="routed",
        parent="eth9",
        ipv4__address="192.0.2.10, 192.0.2.11",
        ipv6__address="2001:db8::5",
        ipv4__routes="198.51.100.0/24",
        ipv4__host_table="100",
        host_name="r0",
    )
    side = hostside.plan(nic)
    assert side.addresses == ("169.254.0.1/32", "fe80::1/128")
    assert side.proxies == ("192.0.2.10", "192.0.2.11", "2001:db8::5")
    assert Route("192.0.2.10/32", "r0") in side.routes
    assert Route("192.0.2.10/32", "r0", table=100) in side.routes
    assert Route("198.51.100.0/24", "r0", via="192.0.2.10") in side.routes
    assert [hostside.gateway_of(nic, v) for v in ("ipv4", "ipv6")] == ["169.254.0.1", "fe80::1"]


def test_a_routed_nic_may_have_no_gateway_and_nothing_to_be_answered_on() -> None:
    nic = _nic(nictype="routed", ipv4__address="192.0.2.10", ipv4__gateway="none")
    assert hostside.plan(nic).proxies == ()
    assert hostside.gateway_of(nic, "ipv4") == ""
    assert not hostside.wants_probe(nic, "ipv4")


def test_the_vlans_of_a_port() -> None:
    assert hostside.vlans_of(_nic(network="br", vlan="5", vlan__tagged="7-8")) == (
        Vlan(5, untagged=True),
        Vlan(7),
        Vlan(8),
    )
    assert hostside.vlans_of(_nic(network="br", vlan="none", vlan__tagged="9")) == (Vlan(9),)


def test_routes_lead_to_the_bridge_or_the_other_end() -> None:
    assert hostside.plan(_nic(network="br", ipv4__routes="192.0.2.0/28")).routes == (
        Route("192.0.2.0/28", "br"),
    )
    p2p = _nic(nictype="p2p", host_name="p0", ipv6__routes="2001:db8::/64")
    assert hostside.plan(p2p).routes == (Route("2001:db8::/64", "p0"),)


def test_what_a_routed_guest_has_inside_changes_only_by_plugging_it_again() -> None:
    one = _nic(nictype="routed", ipv4__address="192.0.2.10")
    assert not is_same_plug(one, _nic(nictype="routed", ipv4__address="192.0.2.11"))
    assert is_same_plug(one, _nic(nictype="routed", ipv4__address="192.0.2.10", limits__max="1Mbit"))


def test_a_static_address_outside_the_network_is_refused_with_the_name_of_the_device() -> None:
    with pytest.raises(Invalid, match='not within network "br" subnet'):
        _nic(network="br", ipv4__address="10.9.9.9")


@pytest.mark.parametrize(
    "mac", ["x", "00:16:3e:00:00:01 drop\nflush ruleset\n#", "00:16:3e:00:00:01,10.0.0.1"]
)
def test_a_mac_that_a_request_or_an_archive_brings_is_one(mac: str) -> None:
    """It becomes a word of the host's packet filter, and of what the name server reads."""
    given = {"nictype": "p2p"}
    owner, place, free = Owner("i1", "default", "c1", False), place_of("d1", given, NETWORKS), Random(1)
    for kept, old in ((mac, None), ("", replace(_nic(nictype="p2p"), hwaddr=mac))):
        wanted = Wanted("d1", given, kept)
        with pytest.raises(Invalid, match="Invalid MAC address"):
            decide(owner, wanted, place, old, names=set(), taken=set(), avoid={}, random=free)


def test_another_interface_of_the_name_of_one_that_was_taken_is_let_alone() -> None:
    """Made by somebody while the guest had ours: not given to the guest, nor changed when that ends."""
    nic = parents.found(_nic(nictype="physical", parent="eth9"), LINKS)
    other = Link("eth9", "dummy", "02:00:00:00:00:99", 9000, True, False, index=12)
    assert parents.found(nic, {"eth9": other}) == nic
    assert parents.returned(nic, [other]) is None
    back = replace(LINKS["eth9"], name="dev9")
    assert parents.returned(nic, [other, back]) == back


def test_an_interface_comes_back_with_another_number_or_another_address() -> None:
    """The first when its own is an interface's of the guest, the second when the guest set it."""
    nic = parents.found(_nic(nictype="physical", parent="eth9"), LINKS)
    for back in (replace(LINKS["eth9"], index=17), replace(LINKS["eth9"], hwaddr="02:00:00:00:00:77")):
        assert parents.returned(nic, [back]) == back


def test_no_guest_takes_the_interface_that_the_host_is_reached_by() -> None:
    nic = _nic(nictype="physical", parent="eth9")
    with pytest.raises(WrongState, match="Parent device 'eth9' carries the default route of this host"):
        parents.found(nic, LINKS, {"eth9"})
    assert parents.found(_nic(nictype="macvlan", parent="eth9"), LINKS, {"eth9"})
