"""Two live guests on a bridge: one forges what it can, the other one sees what gets through."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from core.netrecords import AclRule, ForwardPort, NetworkAcl, NetworkForward
from core.records import Network, NicReservation
from core.state.memory import MemoryStore
from services.network.domain.addresses import link_local
from services.network.domain.render import table_name
from services.network.kernel.host import LinuxHost
from services.network.store import NetworkStore
from services.network.usecases.acls import Acls
from services.network.usecases.listeners import Listeners, forward_kind
from services.network.usecases.networks import Networks
from services.network.usecases.nics import Nics, Owner, Wanted
from tests.integration.network import forge
from tests.subnets import lone, net4, net6

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs CAP_NET_ADMIN")
_FORGE = [sys.executable, "-m", "tests.integration.network.forge"]
ROOT = Path(__file__).resolve().parents[3]
OTHER_MAC, OTHER4, OTHER6 = "00:16:3e:99:99:99", f"{net4(2)}.200", f"{net6(2)}::9999"


class Bridge:
    """A network in a store in memory, and two namespaces plugged into it."""

    def __init__(self, folder: Path) -> None:
        self.name = f"pt{secrets.token_hex(4)}"
        self.store, self.host = NetworkStore(MemoryStore()), LinuxHost(folder)
        self.networks, self.nics = Networks(self.store, self.host), Nics(self.store, self.host)
        self.folder, self.acls = folder, Acls(self.store, self.networks, self.host)
        self.forwards = Listeners(self.store, self.networks, self.host, forward_kind(self.store))
        self.guests = [subprocess.Popen(["unshare", "-n", "sleep", "90"]) for _ in range(3)]

    def id(self, number: int) -> str:
        """Names of interfaces are made of it, and they are the host's."""
        return f"{self.name}-{number}"

    async def plug(self, number: int, **options: str) -> NicReservation:
        wanted = [Wanted("eth0", {"network": self.name, **options})]
        [nic] = await self.nics.reserve(Owner(self.id(number), "default", f"c{number}"), wanted)
        await self.nics.plug(self.id(number), self.guests[number].pid)
        self.inside(number, "ip", "link", "set", "eth0", "up")
        return nic

    def inside(self, number: int, *argv: str) -> None:
        subprocess.run(self._enter(number, *argv), check=True, timeout=20, cwd=ROOT)

    def _enter(self, number: int, *argv: str) -> list[str]:
        return ["nsenter", "-t", str(self.guests[number].pid), "-n", *argv]

    def passed(self, frames: list[bytes]) -> set[int]:
        """Send *frames* from the first guest and return which ones the second one saw."""
        listener = self._listen(self._enter(1), "eth0")
        self.inside(0, *_FORGE, "send", "eth0", *(frame.hex() for frame in frames))
        time.sleep(0.3)
        return _heard(listener)

    @contextlib.contextmanager
    def forging(self, number: int, frames: list[bytes]) -> Iterator[set[int]]:
        """Send *frames* from a guest again and again; in the end the set tells what others saw."""
        seen = set[int]()
        listeners = [self._listen(self._enter(1 - number), "eth0"), self._listen([], self.name)]
        flood = [*self._enter(number), *_FORGE, "flood", "eth0", *(frame.hex() for frame in frames)]
        with subprocess.Popen(flood, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as flooding:
            assert flooding.stdout
            assert flooding.stdout.readline() == b"ready\n"
            yield seen
            flooding.communicate(timeout=20)
        assert flooding.returncode == 0
        for listener in listeners:
            seen |= _heard(listener)

    def _listen(self, enter: list[str], interface: str) -> subprocess.Popen[bytes]:
        argv, pipe = [*enter, *_FORGE, "listen", interface], subprocess.PIPE
        listener = subprocess.Popen(argv, stdin=pipe, stdout=pipe, cwd=ROOT)
        assert listener.stdout
        assert listener.stdout.readline() == b"ready\n"
        return listener


def _heard(listener: subprocess.Popen[bytes]) -> set[int]:
    with listener:
        output, _ = listener.communicate(timeout=20)
    return {int(number) for number in output.split()}


@pytest.fixture
async def bridge(tmp_path: Path) -> AsyncIterator[Bridge]:
    made = Bridge(tmp_path)
    await made.store.start()
    try:
        config = {"ipv4.address": f"{net4(2)}.1/24", "ipv6.address": f"{net6(2)}::1/64"}
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
        forge.ipv4(mac, "0.0.0.0", ports=(68, 67), body=forge.dhcp(mac)),
        forge.neighbour(mac, nic.ipv6, 136, nic.ipv6, mac),
        forge.extended(forge.neighbour(mac, nic.ipv6, 136, nic.ipv6, mac)),
        forge.neighbour(mac, local, 135, OTHER6, mac),
        forge.neighbour(mac, "::", 135, nic.ipv6, mac),
        forge.icmpv6(mac, local, 133, bytes(4) + forge.option(1, mac)),
        forge.icmpv6(mac, nic.ipv6, 128, bytes(8)),
        forge.udp6(mac, local, (546, 547), bytes([1, 0, 0, 0])),
    ]


def _forged_macs(nic: NicReservation) -> list[bytes]:
    mac, local, nonce = nic.hwaddr, link_local(nic.hwaddr), forge.option(14, nic.hwaddr)
    target = bytes(4) + ip_address(nic.ipv6).packed
    return [
        forge.ipv4(OTHER_MAC, nic.ipv4),
        forge.arp(OTHER_MAC, mac, nic.ipv4),
        forge.arp(mac, OTHER_MAC, nic.ipv4),
        forge.neighbour(mac, nic.ipv6, 136, nic.ipv6, OTHER_MAC),
        forge.neighbour(mac, nic.ipv6, 135, OTHER6, OTHER_MAC),
        forge.icmpv6(mac, nic.ipv6, 136, target + nonce + forge.option(2, OTHER_MAC)),
        forge.icmpv6(mac, local, 133, bytes(4) + forge.option(1, OTHER_MAC)),
        forge.ipv4(mac, "0.0.0.0", ports=(68, 67), body=forge.dhcp(OTHER_MAC)),
        forge.vlan(forge.arp(mac, OTHER_MAC, nic.ipv4), 0),
        forge.vlan(forge.vlan(forge.arp(mac, mac, OTHER4), 0), 0),
    ]


def _forged_ipv4(nic: NicReservation) -> list[bytes]:
    mac = nic.hwaddr
    return [
        forge.arp(mac, mac, OTHER4),
        forge.arp(mac, mac, OTHER4, hardware=6),
        forge.ipv4(mac, OTHER4),
        forge.ipv4(mac, nic.ipv4, ports=(67, 68)),
        forge.vlan(forge.ipv4(mac, nic.ipv4)),
    ]


def _forged_ipv6(nic: NicReservation) -> list[bytes]:
    mac, local, other = nic.hwaddr, link_local(nic.hwaddr), link_local(OTHER_MAC)
    return [
        forge.neighbour(mac, nic.ipv6, 136, OTHER6, mac),
        forge.hidden(mac, nic.ipv6, OTHER6),
        forge.neighbour(mac, "::", 135, OTHER6, mac),
        forge.icmpv6(mac, OTHER6, 128, bytes(8)),
        forge.router(mac, local),
        forge.extended(forge.router(mac, local)),
        forge.icmpv6(mac, other, 133, bytes(4) + forge.option(1, mac)),
        forge.udp6(mac, local, (547, 546)),
        forge.udp6(mac, other, (546, 547), bytes([1, 0, 0, 0])),
        forge.udp6(mac, local, (546, 547), bytes([12, 0, 0, 0])),
        forge.vlan(forge.icmpv6(mac, nic.ipv6, 128, bytes(8))),
    ]


def _forged_addresses(nic: NicReservation) -> list[bytes]:
    return [*_forged_ipv4(nic), *_forged_ipv6(nic)]


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


@pytest.mark.parametrize(("on", "off"), [("ipv4", "ipv6"), ("ipv6", "ipv4")])
async def test_one_ip_filter_leaves_the_other_family_alone(bridge: Bridge, on: str, off: str) -> None:
    nic = await bridge.plug(0, **{f"security.{on}_filtering": "true"})
    forged = {"ipv4": _forged_ipv4(nic), "ipv6": _forged_ipv6(nic)}
    # What is in a tag might be of either.
    frames = [*_own(nic), *forged[off][:-1]]
    assert bridge.passed([*frames, *_forged_macs(nic), *forged[on]]) == set(range(len(frames)))


async def test_subnets_that_are_routed_to_a_guest_are_its_own(bridge: Bridge) -> None:
    routes = {"ipv4.routes": f"{lone(32)}/30", "ipv6.routes": f"{net6(3)}::/64"}
    filters = {"security.ipv4_filtering": "true", "security.ipv6_filtering": "true"}
    nic = await bridge.plug(0, **filters, **routes)
    mac, behind = nic.hwaddr, f"{net6(3)}::77"
    frames = [
        forge.ipv4(mac, lone(33)),
        forge.arp(mac, mac, lone(33)),
        forge.icmpv6(mac, behind, 128, bytes(8)),
        forge.neighbour(mac, behind, 136, behind, mac),
    ]
    assert bridge.passed([*frames, *_forged_addresses(nic), forge.ipv4(mac, lone(36))]) == {0, 1, 2, 3}


async def test_forgers_reach_nothing_while_rules_change_in_every_way(bridge: Bridge) -> None:
    """Two guests send all they can forge without a pause; neither the other nor the host sees any."""
    all_on = {f"security.{what}_filtering": "true" for what in ("mac", "ipv4", "ipv6")}
    await bridge.nics.release(bridge.id(1))
    first, second = await bridge.plug(0, **all_on), await bridge.plug(1, **all_on)
    frames, too = ([*_own(n), *_forged_macs(n), *_forged_addresses(n)] for n in (first, second))
    own = set(range(len(_own(first))))
    with bridge.forging(0, frames) as seen, bridge.forging(1, too) as seen_too:
        await _regenerate_in_every_way(bridge)
    assert (seen, seen_too) == (own, own)

    argv = ["nft", "delete", "table", "bridge", table_name(bridge.name)]
    subprocess.run(argv, check=True, timeout=10)
    assert bridge.passed(frames) > own
    await bridge.networks.reconcile()
    assert bridge.passed(frames) == own


async def _regenerate_in_every_way(bridge: Bridge) -> None:
    async def change(**config: str) -> None:
        named = {key.replace("_", "."): value for key, value in config.items()}
        await bridge.networks.update(bridge.name, named, "", merge=True, expected_revision=0)

    acl = NetworkAcl(project="default", name="fa", ingress=(AclRule("allow"),), egress=(AclRule("allow"),))
    await bridge.acls.create(acl)
    await change(security_acls="fa")
    await bridge.acls.update("default", "fa", replace(acl, ingress=()), expected_revision=0)
    await bridge.plug(2, **{"security.acls": "fa"})
    await bridge.nics.release(bridge.id(2))
    await change(security_acls="")
    await bridge.plug(2, **{"security.mac_filtering": "true"})
    await bridge.nics.release(bridge.id(2))
    port = ForwardPort("tcp", "80", "80", f"{net4(2)}.9")
    await bridge.forwards.create(NetworkForward(bridge.name, lone(66), ports=(port,)))
    await change(ipv6_nat="true", bridge_mtu="1400", ipv4_firewall="false")
    await bridge.forwards.delete(bridge.name, lone(66))
    await bridge.networks.reconcile()
    restarted = LinuxHost(bridge.folder)
    try:
        await Networks(bridge.store, restarted).reconcile()
    finally:
        restarted.close()


async def test_the_filters_of_one_survive_a_change_for_another_and_a_restart(bridge: Bridge) -> None:
    """Rules are replaced as a whole; what was closed must not open with the next guest."""
    nic = await bridge.plug(0, **{"security.ipv4_filtering": "true"})
    forged = [forge.arp(nic.hwaddr, nic.hwaddr, OTHER4), forge.ipv4(OTHER_MAC, nic.ipv4)]
    await bridge.plug(1, **{"security.mac_filtering": "true"})
    assert bridge.passed(forged) == set()
    await bridge.nics.release(bridge.id(1))
    await bridge.plug(1)
    assert bridge.passed(forged) == set()
    await bridge.networks.reconcile()
    assert bridge.passed(forged) == set()
