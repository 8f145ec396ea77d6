"""Where others may reach this host, as `GET /1.0` and trust tokens tell it."""

from __future__ import annotations

import json
import subprocess

from gateway.interfaces import host_addresses
from gateway.lxd.views.server import addresses


def told_by_ip() -> set[str]:
    """Ask iproute2 the same question."""
    said = subprocess.run(["ip", "-j", "address"], capture_output=True, check=True).stdout
    every = [a for link in json.loads(said) for a in link["addr_info"]]
    return {a["local"] for a in every if a["scope"] == "global"}


def test_addresses_of_the_host_are_those_that_iproute2_shows() -> None:
    """A token with loopback's address alone would be of no use on another machine."""
    assert {str(ip) for ip in host_addresses()} <= told_by_ip()
    assert bool(host_addresses()) == bool(told_by_ip())


def test_a_wildcard_is_told_as_the_addresses_of_the_host() -> None:
    """As LXD: `:8443` says nothing to who wants to connect."""
    assert addresses(":8443") == addresses("[::]:8443")
    assert all(a.endswith(":8443") and not a.startswith(("127.", "[::")) for a in addresses(":8443"))
    assert not [a for a in addresses("0.0.0.0:8443") if a.startswith("[")]


def test_a_given_address_is_told_as_it_is() -> None:
    """Who set it knows how to be reached."""
    assert addresses("192.0.2.9:8443") == ["192.0.2.9:8443"]
    assert addresses("") == []
