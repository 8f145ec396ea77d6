"""Two live guests on a bridge: one forges what it can, the other one sees what gets through."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.records import Network, NicReservation
from core.state.memory import MemoryStore
from services.network.domain.addresses import link_local
from services.network.kernel.host import LinuxHost
from services.network.store import NetworkStore
from services.network.usecases.networks import Networks
from services.network.usecases.nics import Nics, Owner, Wanted
from tests.integration.network import forge

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs CAP_NET_ADMIN")
ROOT = Path(__file__).resolve().parents[3]
OTHER_MAC, OTHER4, OTHER6 = "00:16:3e:99:99:99", "10.78.1.200", "fd42:78::9999"


class Bridge:
    """A network in a store in memory, and two namespaces plugged into it."""

    def __init__(self, folder: Path) -> None:
        self.name = f"pt{secrets.token_hex(4)}"
        self.store, self.host = NetworkStore(MemoryStore()), LinuxHost(folder)
        self.networks, self.nics = Networks(self.store, self.host), Nics(self.store, self.host)
        self.guests = [subprocess.Popen(["unshare", "-n", "sleep", "90"]) for _ in range(2)]

    async def plug(self, number: int, **options: str) -> NicReservation:
        wanted = [Wanted("eth0", {"network": self.name, **options})]
        [nic] = await self.nics.reserve(Owner(f"i{number}", "default", f"c{number}"), wanted)
        await self.nics.plug(f"i{number}", self.guests[number].pid)
        self.inside(number, "ip", "link", "set", "eth0", "up")
        return nic

    def inside(self, number: int, *argv: str) -> None:
        subprocess.run(self._enter(number, *argv), check=True, timeout=20, cwd=ROOT)

    def _enter(self, number: int, *argv: str) -> list[str]:
        return ["nsenter", "-t", str(self.guests[number].pid), "-n", *argv]

    def passed(self, frames: list[bytes]) -> set[int]:
        """Send *frames* from the first guest and return which ones the second one saw."""
        module = [sys.executable, "-m", "tests.integration.network.forge"]
        listen = self._enter(1, *module, "listen", "eth0")
        with subprocess.Popen(listen, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as listener:
            assert listener.stdout
            assert listener.stdout.readline() == b"ready\n"
            self.inside(0, *module, "send", "eth0", *(frame.hex() for frame in frames))
            time.sleep(0.3)
            output, _ = listener.communicate(timeout=20)
        return {int(number) for number in output.split()}


@pytest.fixture
async def bridge(tmp_path: Path) -> AsyncIterator[Bridge]:
    made = Bridge(tmp_path)
    await made.store.start()
    try:
        config = {"ipv4.address": "10.78.1.1/24", "ipv6.address": "fd42:78::1/64"}
        await made.networks.create(Network(made.name, config=config))
        await made.plug(1)
        yield made
    finally:
        for guest in made.guests:
            guest.kill()
            guest.wait()
        await made.host.ensure_down(made.name)
        await made.store.stop()
        made.host.close()


def _own(nic: NicReservation) -> list[bytes]:
    """What a guest must be able to send whatever is filtered."""
    mac, local = nic.hwaddr, link_local(nic.hwaddr)
    return [
        forge.arp(mac, mac, nic.ipv4),
        forge.ipv4(mac, nic.ipv4),
        forge.ipv4(mac, "0.0.0.0", ports=(68, 67)),
        forge.neighbour(mac, nic.ipv6, 136, nic.ipv6, mac),
        forge.neighbour(mac, local, 135, OTHER6, mac),
        forge.neighbour(mac, "::", 135, nic.ipv6, mac),
        forge.icmpv6(mac, nic.ipv6, 128, bytes(8)),
    ]


def _forged_macs(nic: NicReservation) -> list[bytes]:
    mac = nic.hwaddr
    return [
        forge.ipv4(OTHER_MAC, nic.ipv4),
        forge.arp(OTHER_MAC, mac, nic.ipv4),
        forge.arp(mac, OTHER_MAC, nic.ipv4),
        forge.neighbour(mac, nic.ipv6, 136, nic.ipv6, OTHER_MAC),
    ]


def _forged_addresses(nic: NicReservation) -> list[bytes]:
    mac = nic.hwaddr
    return [
        forge.arp(mac, mac, OTHER4),
        forge.ipv4(mac, OTHER4),
        forge.neighbour(mac, nic.ipv6, 136, OTHER6, mac),
        forge.neighbour(mac, "::", 135, OTHER6, mac),
        forge.icmpv6(mac, OTHER6, 128, bytes(8)),
        forge.router(mac, link_local(mac)),
        forge.vlan(forge.ipv4(mac, nic.ipv4)),
    ]


async def test_an_unfiltered_guest_may_send_anything(bridge: Bridge) -> None:
    """The control: what the other tests do not see would have been seen."""
    nic = await bridge.plug(0)
    frames = [*_own(nic), *_forged_macs(nic), *_forged_addresses(nic)]
    assert bridge.passed(frames) == set(range(len(frames)))


async def test_with_mac_filtering_only_other_macs_are_stopped(bridge: Bridge) -> None:
    nic = await bridge.plug(0, **{"security.mac_filtering": "true"})
    frames = [*_own(nic), *_forged_addresses(nic)]
    assert bridge.passed([*frames, *_forged_macs(nic)]) == set(range(len(frames)))


async def test_with_both_ip_filters_a_guest_speaks_only_as_itself(bridge: Bridge) -> None:
    """ARP, neighbour and router advertisements, duplicate detection, source addresses, VLAN tags."""
    nic = await bridge.plug(0, **{"security.ipv4_filtering": "true", "security.ipv6_filtering": "true"})
    frames = _own(nic)
    assert bridge.passed([*frames, *_forged_macs(nic), *_forged_addresses(nic)]) == set(range(len(frames)))


async def test_the_filters_of_one_survive_a_change_for_another_and_a_restart(bridge: Bridge) -> None:
    """Rules are replaced as a whole; what was closed must not open with the next guest."""
    nic = await bridge.plug(0, **{"security.ipv4_filtering": "true"})
    forged = [forge.arp(nic.hwaddr, nic.hwaddr, OTHER4), forge.ipv4(OTHER_MAC, nic.ipv4)]
    await bridge.plug(1, **{"security.mac_filtering": "true"})
    assert bridge.passed(forged) == set()
    await bridge.nics.release("i1")
    await bridge.plug(1)
    assert bridge.passed(forged) == set()
    await bridge.networks.reconcile()
    assert bridge.passed(forged) == set()
