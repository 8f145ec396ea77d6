"""Rates of a NIC measured with real traffic, in both directions."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from ipaddress import ip_interface
from pathlib import Path

import pytest

from core.records import NicReservation
from services.network.domain.shaping import ifb_name
from tests.integration.network.test_filters import Bridge, bridge  # noqa: F401 - a fixture

_SECONDS = 1.5
_FROM_GUEST = """
import socket, sys, time
s, end = socket.create_connection((sys.argv[1], int(sys.argv[2]))), time.monotonic() + float(sys.argv[3])
while time.monotonic() < end: s.sendall(b"x" * 16384)
"""
_TO_GUEST = """
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
while s.recv(1 << 16): pass
"""


class Guest:
    """A guest with an address, and a server on the bridge to measure against."""

    def __init__(self, bridge: Bridge) -> None:  # noqa: F811
        self.bridge = bridge
        self.nic = NicReservation()

    async def plug(self, **options: str) -> None:
        before, self.nic = self.nic, await self.bridge.plug(0, **options)
        if not before.ipv4:
            self.bridge.inside(0, "ip", "addr", "add", f"{self.nic.ipv4}/24", "dev", "eth0")

    async def megabits(self, *, to_guest: bool) -> float:
        return await asyncio.to_thread(self._measure, to_guest)

    def _measure(self, to_guest: bool) -> float:
        network = self.bridge.networks.get(self.bridge.name).record
        address = str(ip_interface(network.config["ipv4.address"]).ip)
        with socket.create_server((address, 0)) as server:
            program, port = _TO_GUEST if to_guest else _FROM_GUEST, str(server.getsockname()[1])
            argv = [sys.executable, "-c", program, address, port, str(_SECONDS)]
            pid = self.bridge.guests[0].pid
            with subprocess.Popen(["nsenter", "-t", str(pid), "-n", *argv]):
                connection, _ = server.accept()
                with connection:
                    return _sent(connection) if to_guest else _received(connection)


def _received(connection: socket.socket) -> float:
    count, began = 0, time.monotonic()
    while data := connection.recv(1 << 16):
        count += len(data)
    return count * 8 / 1e6 / (time.monotonic() - began)


def _sent(connection: socket.socket) -> float:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
    count, began = 0, time.monotonic()
    while time.monotonic() < began + _SECONDS:
        count += connection.send(bytes(1 << 14))
    return count * 8 / 1e6 / (time.monotonic() - began)


@pytest.fixture
async def guest(bridge: Bridge) -> AsyncIterator[Guest]:  # noqa: F811
    yield Guest(bridge)


async def test_each_direction_keeps_its_own_rate_and_both_are_given_back(guest: Guest) -> None:
    """Named from the guest's side: ingress is what it receives. Changed live, the link stays."""
    await guest.plug(**{"limits.ingress": "20Mbit", "limits.egress": "40Mbit"})
    assert 10 < await guest.megabits(to_guest=True) < 26
    assert 25 < await guest.megabits(to_guest=False) < 48
    await guest.plug(**{"limits.max": "80Mbit"})
    assert 50 < await guest.megabits(to_guest=False) < 96
    await guest.plug()
    assert await guest.megabits(to_guest=True) > 200
    assert await guest.megabits(to_guest=False) > 200
    assert not _exists(ifb_name(guest.nic.host_name))


async def test_what_bounded_a_guest_goes_when_the_guest_has_gone(guest: Guest) -> None:
    """The veth goes with the guest's namespace; the other device must be swept."""
    await guest.plug(**{"limits.egress": "40Mbit"})
    name = ifb_name(guest.nic.host_name)
    await guest.bridge.host.remove_unused()
    assert _exists(name)
    await guest.bridge.host._netlink(lambda links: links._ip.link("del", ifname=guest.nic.host_name))
    await guest.bridge.host.remove_unused()
    assert not _exists(name)


def _exists(name: str) -> bool:
    return Path(f"/sys/class/net/{name}").exists()
