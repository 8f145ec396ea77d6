"""What a member tells its kernel of guests elsewhere, and whom it takes packets from."""

from __future__ import annotations

from random import Random

import pytest

from core.configkeys.overlay import OVERLAY, changed_for_good
from core.errors import Invalid
from core.netrecords import NetworkForward, TunnelEnd
from core.records import Network, NicReservation
from services.network.domain import fences
from services.network.domain.overlay import Mesh, device_of, free_vni, mesh_of, mtu_over, port_mac, tables
from services.network.domain.rulebook import Rulebook

CONFIG = {"overlay.id": "7", "bridge.mtu": "1450", "ipv4.address": "10.1.2.1/24"}
NETWORK = Network("ov", type="overlay", config=CONFIG)
ENDS = {name: TunnelEnd(name, f"192.0.2.{n}", 1500, "eth0") for n, name in enumerate(("a", "b", "c"), 1)}
FAR = NicReservation(hwaddr="00:16:3e:00:00:09", ipv4="10.1.2.9", member="b")


def _mesh(**ends: TunnelEnd) -> Mesh:
    return mesh_of(NETWORK, "a", ends or ENDS, [FAR], {"a": ("10.1.2.100",), "b": ("10.1.2.101",)})


def test_each_guest_elsewhere_is_told_with_its_member_and_addresses() -> None:
    found = tables(_mesh())

    assert found.forwarding == {FAR.hwaddr: "192.0.2.2", port_mac("ov", "b"): "192.0.2.2"}
    assert found.neighbours == {
        "10.1.2.9": FAR.hwaddr,
        "fe80::216:3eff:fe00:9": FAR.hwaddr,
        "10.1.2.101": port_mac("ov", "b"),
    }
    assert found.sources == {"10.1.2.9": "10.1.2.100", "10.1.2.101": "10.1.2.100"}


def test_a_member_without_an_address_among_members_tells_nothing() -> None:
    mesh = _mesh(b=ENDS["b"])
    assert (mesh.local, mesh.far, mesh.peers) == ("", (), ())
    assert fences.rules(mesh) == fences.Fence()


def test_members_that_speak_another_ip_are_left_out() -> None:
    mesh = _mesh(a=ENDS["a"], b=TunnelEnd("b", "2001:db8::2"))
    assert mesh.far == ()


def test_packets_are_taken_from_members_by_their_interface_and_none_of_guests_pass() -> None:
    found = fences.rules(_mesh())
    assert found.input == [
        "udp dport 4789 @th,96,24 7 ip saddr != { 192.0.2.2, 192.0.2.3 } drop",
        'udp dport 4789 @th,96,24 7 iifname != "eth0" drop',
    ]
    assert found.forward == ["udp dport 4789 @th,96,24 7 ip daddr { 192.0.2.2, 192.0.2.3 } drop"]
    assert fences.rules(_mesh(a=ENDS["a"])).input == ["udp dport 4789 @th,96,24 7 drop"]


def test_what_a_forward_leads_elsewhere_comes_from_the_member() -> None:
    forward = NetworkForward("ov", "198.51.100.1", config={"target_address": "10.1.2.9"})
    near = NetworkForward("ov", "198.51.100.2", config={"target_address": "10.1.2.8"})
    book = Rulebook(forwards=(forward, near), mesh=_mesh())
    assert fences.sources(NETWORK, book) == [
        'oifname "ov" ip daddr { 10.1.2.9 } ct status dnat snat ip to 10.1.2.100'
    ]


def test_the_narrowest_way_bounds_all() -> None:
    assert mtu_over([]) == 1450
    assert mtu_over([TunnelEnd("a", "192.0.2.1", 9000), TunnelEnd("b", "192.0.2.2", 1500)]) == 1450
    assert mtu_over([TunnelEnd("a", "2001:db8::1", 1500)]) == 1430


def test_names_and_numbers_are_stable_and_fit() -> None:
    assert device_of("a-long-name.x") == device_of("a-long-name.x")
    assert len(device_of("a" * 15)) <= 15
    assert port_mac("ov", "a") != port_mac("ov", "b")
    taken = set(range(1, 1000))
    assert free_vni(taken, Random(1)) not in taken


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("overlay.id", "0"),
        ("overlay.id", "16777216"),
        ("overlay.id", "-1"),
        ("overlay.port", "70000"),
        ("overlay.encryption", "rot13"),
        ("bridge.external_interfaces", "eth9"),
        ("tunnel.a.protocol", "vxlan"),
        ("parent", "eth9"),
    ],
)
def test_keys_that_make_no_sense_are_refused(key: str, value: str) -> None:
    with pytest.raises(Invalid):
        OVERLAY.check({key: value}, of="ov")


def test_what_members_agreed_on_stays() -> None:
    assert changed_for_good({"overlay.id": "7"}, {"overlay.id": "8"}) == "overlay.id"
    assert changed_for_good({"overlay.id": "7"}, {"overlay.id": "7", "overlay.port": "4789"}) == ""
