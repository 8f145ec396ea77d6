"""Tunnels of bridges: what their keys may be, and what comes of them."""

from __future__ import annotations

import pytest

from core.configkeys.network import NETWORK
from core.configkeys.tunnels import Tunnel, check_names, tunnels_of
from core.errors import Invalid
from core.records import Network
from services.network.domain.bridge import mtu_of


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tunnel.a.protocol", "ipip"),
        ("tunnel.a.local", "here"),
        ("tunnel.a.local", "fe80::1%eth0"),
        ("tunnel.a.port", "70000"),
        ("tunnel.a.ttl", "256"),
        ("tunnel.a.id", "x"),
        ("tunnel.a.interface", "eth0; reboot"),
        ("tunnel.a.other", "1"),
        ("tunnel.protocol", "gre"),
        ("tunnel.a/b.protocol", "gre"),
    ],
)
def test_what_could_do_harm_or_nothing_is_refused(key: str, value: str) -> None:
    with pytest.raises(Invalid):
        NETWORK.check({key: value}, of="br0")


def test_a_tunnel_is_one_when_its_keys_are_complete() -> None:
    gre = {"tunnel.g.protocol": "gre", "tunnel.g.local": "192.0.2.1"}
    assert tunnels_of("br0", gre) == ()
    gre["tunnel.g.remote"] = "192.0.2.2"
    assert tunnels_of("br0", gre) == (Tunnel("br0-g", "gre", "192.0.2.1", "192.0.2.2"),)
    group = {"tunnel.v.protocol": "vxlan", "tunnel.v.id": "7", "tunnel.v.ttl": "3"}
    assert tunnels_of("br0", group) == (
        Tunnel("br0-v", "vxlan", "", "239.0.0.1", is_group=True, id=7, ttl=3),
    )


def test_a_bridge_with_tunnels_takes_less_unless_it_is_told() -> None:
    config = {"tunnel.v.protocol": "vxlan"}
    assert mtu_of(Network("br0", config=config)) == 1400
    assert mtu_of(Network("br0", config={**config, "bridge.mtu": "1300"})) == 1300
    assert mtu_of(Network("br0")) == 1500


def test_names_that_are_too_long_together_are_refused() -> None:
    with pytest.raises(Invalid, match="too long"):
        check_names("a-long-name", {"tunnel.four.protocol": "gre"})
    check_names("a-long-name", {"tunnel.two.protocol": "gre"})
