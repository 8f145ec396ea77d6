"""NICs of every type between this host and a namespace: made, changed, taken away, and nothing left."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from core.errors import PodiumError
from core.records import Network, NicReservation
from core.state.memory import MemoryStore
from services.network.kernel import probe
from services.network.kernel.host import LinuxHost
from services.network.kernel.netlink import IPRoute
from services.network.kernel.plugs import Plugs
from services.network.kernel.removal import Remover
from services.network.store import NetworkStore
from services.network.usecases.networks import Networks
from services.network.usecases.nics import Nics, Owner, Wanted
from services.runtime.kernel import netns
from tests.subnets import lone

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs CAP_NET_ADMIN")


def ip(*argv: str, inside: int = 0) -> Any:
    enter = ["nsenter", "-t", str(inside), "-n"] if inside else []
    done = subprocess.run([*enter, "ip", "-j", *argv], capture_output=True, check=True, timeout=20)
    return json.loads(done.stdout or b"[]")


def there(name: str, inside: int = 0) -> dict[str, Any]:
    return next((link for link in ip("-d", "link", inside=inside) if link["ifname"] == name), {})


@dataclass
class Parent:
    """A pair of interfaces: *name* is what NICs hang on, *peer* is the wire behind it."""

    name: str
    peer: str

    def make(self) -> None:
        pair = ("add", self.name, "type", "veth", "peer", "name", self.peer)
        subprocess.run(["ip", "link", *pair], check=True)


@pytest.fixture
def parent() -> Iterator[Parent]:
    word = secrets.token_hex(3)
    made = Parent(f"pn{word}a", f"pn{word}b")
    made.make()
    for name in (made.name, made.peer):
        subprocess.run(["ip", "link", "set", name, "up"], check=True)
    yield made
    subprocess.run(["ip", "link", "del", made.peer], check=False)


class World:
    """The network service with a store in memory, and a guest that is a namespace."""

    def __init__(self, folder: Path) -> None:
        self.store, self.host = NetworkStore(MemoryStore()), LinuxHost(folder)
        self.networks, self.nics = Networks(self.store, self.host), Nics(self.store, self.host)
        self.guest = subprocess.Popen(["unshare", "-n", "sleep", "90"])
        self.id = f"id{secrets.token_hex(4)}"

    @property
    def pid(self) -> int:
        return self.guest.pid

    async def plug(self, **options: str) -> NicReservation:
        wanted = [Wanted("d1", {key.replace("__", "."): value for key, value in options.items()})]
        [nic] = await self.nics.reserve(Owner(self.id, "default", "c1"), wanted)
        await self.nics.plug(self.id, self.pid)
        return nic


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    await made.store.start()
    yield made
    await made.nics.release(made.id)
    made.guest.kill()
    made.guest.wait()
    await made.store.stop()
    made.host.close()


async def test_a_p2p_nic_has_its_routes_and_rates_and_takes_them_along(world: World) -> None:
    """The routes go where the options say, also when they change while it is plugged in."""
    nic = await world.plug(nictype="p2p", ipv4__routes=f"{lone(0)}/30", limits__max="10Mbit")
    assert there("eth0", world.pid)["address"] == nic.hwaddr
    assert [route["dst"] for route in ip("route", "show", "dev", nic.host_name)] == [f"{lone(0)}/30"]
    await world.plug(nictype="p2p", ipv4__routes=f"{lone(4)}/30", limits__max="10Mbit")
    assert [route["dst"] for route in ip("route", "show", "dev", nic.host_name)] == [f"{lone(4)}/30"]
    await world.nics.release(world.id)
    assert not there(nic.host_name)
    assert not there("eth0", world.pid)


async def test_a_route_that_the_host_has_already_is_refused(world: World, parent: Parent) -> None:
    """It would win, and the instance could not be reached. What was made until then goes with the NIC."""
    subprocess.run(["ip", "route", "add", f"{lone(8)}/30", "dev", parent.name], check=True)
    with pytest.raises(PodiumError, match=f"Failed to add route {lone(8)}/30"):
        await world.plug(nictype="p2p", ipv4__routes=f"{lone(8)}/30")


async def test_a_nic_joins_a_bridge_of_somebody_else_and_leaves_it(world: World, parent: Parent) -> None:
    """Isolated from its like, and filtered by rules of its own, which go with it."""
    bridge = f"{parent.name}r"
    subprocess.run(["ip", "link", "add", bridge, "type", "bridge"], check=True)
    try:
        nic = await world.plug(
            nictype="bridged",
            parent=bridge,
            security__port_isolation="true",
            security__ipv4_filtering="true",
            ipv4__address="10.9.8.7",
        )
        link = there(nic.host_name)
        assert link["master"] == bridge
        assert link["linkinfo"]["info_slave_data"]["isolated"]
        rules = subprocess.run(["nft", "list", "ruleset", "bridge"], capture_output=True, check=True).stdout
        assert f'iifname "{nic.host_name}"'.encode() in rules
        await world.nics.release(world.id)
        assert not there(nic.host_name)
        rules = subprocess.run(["nft", "list", "ruleset", "bridge"], capture_output=True, check=True).stdout
        assert nic.host_name.encode() not in rules
    finally:
        subprocess.run(["ip", "link", "del", bridge], check=True)


async def test_a_macvlan_lies_in_the_guest_alone(world: World, parent: Parent) -> None:
    """It is plugged once however often it is asked for; a network gives it parent and MTU."""
    await world.networks.create(
        Network("pnmv0", type="macvlan", config={"parent": parent.name, "mtu": "1300"})
    )
    nic = await world.plug(network="pnmv0")
    link = there("eth0", world.pid)
    assert (link["address"], link["mtu"]) == (nic.hwaddr, 1300)
    assert link["linkinfo"]["info_kind"] == "macvlan"
    assert await world.nics.plug(world.id, world.pid) == []
    with pytest.raises(PodiumError, match="currently in use"):
        await world.networks.delete("pnmv0")
    netns.take_out(Path(f"/proc/{world.pid}/ns/net"), "eth0", "")
    assert not there("eth0", world.pid)
    await world.nics.release(world.id)
    await world.networks.delete("pnmv0")


async def test_a_routed_nic_is_answered_for_on_its_parent(world: World, parent: Parent) -> None:
    """Who asks on the wire for its address is told the host's; all of it ends with the NIC."""
    nic = await world.plug(
        nictype="routed", parent=parent.name, ipv4__address=lone(77), ipv6__address="2001:db8::77"
    )
    assert [a["local"] for a in ip("addr", "show", nic.host_name)[0]["addr_info"] if a["prefixlen"] > 31] == [
        "169.254.0.1",
        "fe80::1",
    ]
    assert [route["dst"] for route in ip("route", "show", "dev", nic.host_name)] == [lone(77)]
    proxies = [entry["dst"] for entry in ip("neigh", "show", "proxy", "dev", parent.name)]
    assert sorted(proxies) == [lone(77), "2001:db8::77"]
    await world.nics.release(world.id)
    assert not there(nic.host_name)
    assert ip("neigh", "show", "proxy", "dev", parent.name) == []


async def test_an_address_that_somebody_has_on_the_wire_is_refused(world: World, parent: Parent) -> None:
    subprocess.run(["ip", "link", "set", parent.peer, "netns", str(world.pid)], check=True)
    subprocess.run(
        ["nsenter", "-t", str(world.pid), "-n", "sh", "-c",
         f"ip addr add {lone(78)}/24 dev {parent.peer}; ip link set {parent.peer} up"],
        check=True,
    )  # fmt: skip
    try:
        with pytest.raises(PodiumError, match=f'IP address "{lone(78)}" in use on parent network'):
            await world.plug(nictype="routed", parent=parent.name, ipv4__address=lone(78))
    finally:
        subprocess.run(["ip", "link", "del", parent.name], check=True)


async def test_an_interface_is_given_and_given_back_as_it_was(
    world: World, parent: Parent, tmp_path: Path
) -> None:
    """Name, MAC and MTU; also when the guest's last process died first, whoever looks after it then."""
    before = there(parent.name)
    options = {"nictype": "physical", "parent": parent.name, "mtu": "1400", "hwaddr": "00:16:3e:11:22:33"}
    await world.plug(**options)
    link = there("eth0", world.pid)
    assert (link["address"], link["mtu"]) == ("00:16:3e:11:22:33", 1400)
    assert not there(parent.name)
    assert await world.nics.plug(world.id, world.pid) == [], "it is inside, which is no error"

    netns.keep(tmp_path / "netns", world.pid)
    world.guest.kill()
    world.guest.wait()
    netns.give_back(tmp_path / "netns", {"eth0": parent.name})
    await world.nics.unplug(world.id)

    after = there(parent.name)
    assert [after[key] for key in ("address", "mtu", "ifindex")] == [
        before[key] for key in ("address", "mtu", "ifindex")
    ]
    assert not (tmp_path / "netns").exists()
    assert world.store.nics_of(world.id)[0].taken == {}


async def test_what_this_kernel_lacks_is_named(world: World, parent: Parent) -> None:
    """Run on kernels without them; elsewhere they are made."""
    asked = [{"nictype": "ipvlan", "parent": parent.name}]
    if not Path("/proc/net/vlan").exists():
        asked.append({"nictype": "macvlan", "parent": parent.name, "vlan": "5"})
    for options in asked:
        with pytest.raises(PodiumError, match=r'Failed to start device "d1": .*CONFIG_'):
            await world.plug(**options)


def test_probes_are_what_the_standards_say() -> None:
    """An answer for another address, or a question for this one, is none for it."""
    mac = bytes.fromhex("00163e112233")
    question = probe.arp_probe(mac, "192.0.2.1")
    answer = question[:28] + bytes([192, 0, 2, 1]) + question[32:]
    assert probe.answers(answer, "192.0.2.1")
    assert not probe.answers(answer, "192.0.2.2")
    assert not probe.answers(question, "192.0.2.1")
    assert not probe.answers(probe.solicitation(mac, "2001:db8::1"), "2001:db8::1")
    assert not probe.answers(b"", "192.0.2.1")


def test_a_host_side_that_is_gone_or_is_not_ours_is_left_alone(parent: Parent) -> None:
    """It may have gone with its guest; and a name says nothing of who made what has it."""
    gone = NicReservation(nictype="p2p", host_name="pnnosuch")
    of_another_bridge = NicReservation(nictype="bridged", host_name=parent.name, bridge="pnnosuchbr")
    no_veth = NicReservation(nictype="p2p", host_name="lo")
    with IPRoute() as netlink:
        plugs = Plugs(netlink, "test")
        for nic in (gone, of_another_bridge, no_veth):
            plugs.remove(nic, [])
        assert there(parent.name)
        with pytest.raises(PodiumError, match="set another host_name"):
            plugs.ensure(no_veth, os.getpid())
        plugs.remove(NicReservation(nictype="p2p", host_name=parent.name), [])
    assert not there(parent.name)
    parent.make()


async def test_a_name_that_is_asked_for_goes_before_one_that_was_given(world: World) -> None:
    """As long as the instance does not run; then it is refused."""
    unnamed, named = Wanted("a", {"nictype": "p2p"}), Wanted("b", {"nictype": "p2p", "name": "eth0"})
    stopped, running = Owner("i1", "default", "c1", at_rest=True), Owner("i1", "default", "c1")

    [first] = await world.nics.reserve(stopped, [unnamed])
    assert first.name == "eth0"
    with pytest.raises(PodiumError, match="Duplicate NIC name"):
        await world.nics.reserve(running, [unnamed, named])
    found = await world.nics.reserve(stopped, [unnamed, named])
    assert [nic.name for nic in found] == ["eth1", "eth0"]
    assert found[0].hwaddr == first.hwaddr
    assert await world.nics.reserve(stopped, [unnamed, named]) == found


def test_what_is_removed_is_seen_by_nobody_and_other_things_stay(parent: Parent) -> None:
    """Not on the host and not at the other end, while the kernel still tidies up."""
    remover = Remover()
    remover.remove(1 << 30, "pnnosuch")
    remover.remove(1, "lo")  # which the kernel refuses to delete
    index = int((Path("/sys/class/net") / parent.name / "ifindex").read_text())
    remover.remove(index, parent.name)
    assert not there(parent.name)
    assert not there(parent.peer)
    assert there("lo")
    parent.make()
    remover.close()
