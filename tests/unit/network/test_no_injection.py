"""Whatever a key or option is set to, it is refused or stays one word of one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.configkeys import nic as nic_keys
from core.configkeys.network import NETWORK
from core.errors import PodiumError
from core.records import Network, NicReservation
from services.network.domain import bridge, dnsmasq, filters, render

_BASE = {"ipv4.address": "10.1.2.1/24", "ipv6.address": "fd42:1::1/64", "ipv6.dhcp.stateful": "true"}
_BASE |= {"ipv4.nat": "true", "ipv6.nat": "true"}
_NASTY = st.text(alphabet="ab1:./-,;{}\"'\\ \n\r\t\0%#=*\u2028é", max_size=24) | st.sampled_from(
    [
        "10.1.2.3-10.1.2.9,set:x",
        "true\nfalse",
        "lxd,10.0.0.0/8",
        "a;b",
        "00:16:3e:00:00:01,ignore",
        "1h\n--x",
        "fd42:1::3%x;y",
        "fd42:1::3%a\nb",
        "fd42:1::3%x y/64",
        "fd42:1::3%a b-fd42:1::4",
        "fd42:2::%a;b/64",
    ]
)
_FLAGS = {f"security.{name}_filtering": "true" for name in ("mac", "ipv4", "ipv6")}


def _accepted(key: str, value: str) -> Network | None:
    config = {**_BASE, key: value}
    try:
        NETWORK.check(config)
        bridge.check_together(config)
    except PodiumError:
        return None
    return Network("br0", config=config)


@pytest.mark.parametrize("key", sorted(NETWORK.keys))
@given(value=_NASTY)
def test_a_network_key_never_becomes_a_line_or_word_of_its_own(key: str, value: str) -> None:
    """CVE-2026-23953 was one line break in a value."""
    network = _accepted(key, value)
    if network is None or value in ("none", "auto"):
        return
    plain = Network("br0", config=_BASE)
    for arg in dnsmasq.argv(network, Path("/s"), as_root=False):
        assert arg.isprintable()
        assert " " not in arg
    for line in render.nft_rules(network).splitlines():
        assert line.isprintable()
        assert line.count(";") == (2 if " hook " in line else 0)
    assert render.nft_rules(network).count("table ") == render.nft_rules(plain).count("table ")
    bridge.plan_bridge(network)


@pytest.mark.parametrize("key", sorted(nic_keys.TYPES[nic_keys.BRIDGED].options))
@given(value=_NASTY)
def test_a_nic_option_never_becomes_a_line_or_word_of_its_own(key: str, value: str) -> None:
    options = {"type": "nic", "network": "br0", **_FLAGS, key: value}
    try:
        nic_keys.check(options, {"br0": "bridge"})
    except ValueError:
        return
    nic = NicReservation(
        instance_name="c1",
        hwaddr=options.get("hwaddr") or "00:16:3e:00:00:01",
        host_name=options.get("host_name") or "veth0",
        ipv4=_or("10.1.2.3", options.get("ipv4.address", "")),
        ipv6=_or("fd42:1::3", options.get("ipv6.address", "")),
        options=options,
    )
    network = Network("br0", config=_BASE)
    assert dnsmasq.dhcp_entry(network, nic).rstrip("\n").isprintable()
    assert dnsmasq.dhcp_entry(network, nic).count(",") <= 3
    for rule in filters.rules_of(nic):
        assert rule.isprintable()
        assert ";" not in rule


def _or(default: str, asked: str) -> str:
    return default if asked in ("", "none") else asked
