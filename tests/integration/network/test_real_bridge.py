"""A bridge of this host, with its table and its DNS server, from creation to removal."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from ipaddress import ip_address, ip_interface
from pathlib import Path
from typing import Any

import pytest

from core.errors import AlreadyExists, Invalid, WrongState
from core.records import Network
from core.state import keys
from core.state.memory import MemoryStore
from services.network.domain.render import table_name
from services.network.domain.rulebook import Rulebook
from services.network.kernel.dnsmasq import Dnsmasq
from services.network.kernel.host import LinuxHost
from services.network.store import NetworkStore
from services.network.usecases.networks import Networks
from services.network.usecases.nics import Nics, Owner, Wanted
from services.network.usecases.strays import Strays
from tests.subnets import lone, net4

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs CAP_NET_ADMIN")


class Bench:
    """The use cases over the real kernel, with a store in memory."""

    def __init__(self, folder: Path) -> None:
        self.name, self.folder = f"pt{secrets.token_hex(4)}", folder
        self.store, self.host = NetworkStore(MemoryStore()), LinuxHost(folder)
        self.networks, self.nics = Networks(self.store, self.host), Nics(self.store, self.host)

    async def create(self, **config: str) -> Network:
        wanted = Network(self.name, "default", "bridge", "", {"ipv6.address": "none", **config})
        return (await self.networks.create(wanted)).record

    def pid(self) -> int:
        return int((self.folder / self.name / "dnsmasq.pid").read_text())

    def has_table(self, family: str = "inet") -> bool:
        argv = ["nft", "list", "table", family, table_name(self.name)]
        return subprocess.run(argv, capture_output=True, timeout=10, check=False).returncode == 0

    def handles(self) -> str:
        """The rules with their handles: a rule that was made anew has another one."""
        argv = ["nft", "-a", "list", "table", "inet", table_name(self.name)]
        return subprocess.run(argv, capture_output=True, text=True, timeout=10, check=True).stdout

    def has_chain(self) -> bool:
        return "chain pst" in self.handles()

    def lose_chain(self) -> None:
        argv = ["nft", "delete", "chain", "inet", table_name(self.name), "pst"]
        subprocess.run(argv, timeout=10, check=True)

    def lose_table(self) -> None:
        argv = ["nft", "delete", "table", "inet", table_name(self.name)]
        subprocess.run(argv, timeout=10, check=True)

    async def has_link(self) -> bool:
        return any(link.name == self.name for link in await self.host.links())


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    await made.store.start()
    try:
        yield made
    finally:
        await made.host.ensure_down(made.name)
        await made.store.stop()
        made.host.close()


async def test_a_network_comes_up_serves_names_and_leaves_nothing(bench: Bench) -> None:
    network = await bench.create()
    assert network.status == "Created"
    assert bench.has_table()
    assert await bench.has_link()
    with pytest.raises(AlreadyExists):
        await bench.create()
    [nic] = await bench.nics.reserve(Owner("i1", "default", "c1"), [Wanted("eth0", {"network": bench.name})])
    gateway = network.config["ipv4.address"].split("/")[0]
    assert await resolved("c1.lxd", gateway) == nic.ipv4
    with pytest.raises(Invalid):
        await bench.networks.delete(bench.name)
    await bench.nics.release("i1")
    await bench.networks.delete(bench.name)
    assert not bench.has_table()
    assert not await bench.has_link()
    assert not (bench.folder / bench.name).exists()


async def test_fifty_instances_at_once_get_fifty_addresses(bench: Bench) -> None:
    await bench.create()
    wanted = [Wanted("eth0", {"network": bench.name})]
    asked = (bench.nics.reserve(Owner(f"i{n}", "default", f"c{n}"), wanted) for n in range(50))
    first = [nics[0] for nics in await asyncio.gather(*asked)]
    assert len({nic.ipv4 for nic in first}) == 50
    assert await bench.nics.reserve(Owner("i7", "default", "c7"), wanted) == [first[7]]


async def test_a_second_line_in_a_mac_is_refused_before_anything_is_recorded(bench: Bench) -> None:
    await bench.create()
    options = {"network": bench.name, "hwaddr": "00:16:3e:00:00:01\n00:16:3e:00:00:02,10.0.0.1"}
    with pytest.raises(Invalid):
        await bench.nics.reserve(Owner("i1", "default", "c1"), [Wanted("eth0", options)])
    assert bench.store.nics_of("i1") == []


async def test_a_dead_dns_server_and_lost_rules_return(bench: Bench) -> None:
    await bench.create()
    before = bench.pid()
    os.kill(before, 9)
    await asyncio.to_thread(bench.lose_table)
    await asyncio.to_thread(_wait_until_dead, before)
    await bench.networks.reconcile()
    assert bench.pid() != before
    assert bench.has_table()


async def test_a_living_dns_server_is_adopted_not_restarted(bench: Bench) -> None:
    await bench.create()
    before = bench.pid()
    await bench.networks.reconcile()
    assert bench.pid() == before


async def test_an_overlapping_subnet_is_refused(bench: Bench) -> None:
    network = await bench.create()
    other = Network(f"{bench.name}b", config={"ipv4.address": network.config["ipv4.address"]})
    with pytest.raises(Invalid):
        await bench.networks.create(other)
    assert bench.networks.find(other.name) is None


async def test_a_domain_that_smuggles_an_option_is_refused(bench: Bench) -> None:
    for domain in ("lxd,10.0.0.0/8", "a/1.2.3.4", "a b", ""):
        with pytest.raises(Invalid):
            await bench.create(**{"dns.domain": domain or "."})
    assert bench.networks.find(bench.name) is None


async def test_a_network_cannot_move_onto_a_subnet_in_use(bench: Bench) -> None:
    network = await bench.create()
    with pytest.raises(Invalid):
        await bench.networks.update(
            bench.name, {"ipv4.address": "127.0.0.1/8"}, "", merge=True, expected_revision=0
        )
    again = await bench.networks.update(bench.name, {"user.a": "b"}, "", merge=True, expected_revision=0)
    assert again.record.config["ipv4.address"] == network.config["ipv4.address"]


async def test_a_domain_change_reaches_the_dns_server_and_a_deleted_network_stays_gone(bench: Bench) -> None:
    network = await bench.create()
    gateway = network.config["ipv4.address"].split("/")[0]
    for domain in ("a", "b", "c", "d", "pod"):
        await bench.networks.update(bench.name, {"dns.domain": domain}, "", merge=True, expected_revision=0)
    [nic] = await bench.nics.reserve(Owner("i1", "default", "c1"), [Wanted("eth0", {"network": bench.name})])
    assert await resolved("c1.pod", gateway) == nic.ipv4
    await bench.nics.release("i1")
    await asyncio.gather(bench.networks.delete(bench.name), bench.networks.reconcile())
    assert not await bench.has_link()


async def test_a_second_look_changes_nothing_that_is_right(bench: Bench) -> None:
    """A restart of the service must not flap: same dnsmasq, same rules, same link."""
    await bench.create()
    before = (bench.pid(), bench.handles())
    again = Networks(bench.store, LinuxHost(bench.folder))
    await again.reconcile()
    assert (bench.pid(), bench.handles()) == before
    await asyncio.to_thread(bench.lose_chain)
    await again.reconcile()
    assert bench.handles() != before[1]
    assert bench.has_chain()


async def test_a_bridge_deleted_by_hand_returns_with_nics_and_server(bench: Bench, guest: int) -> None:
    """Its index is another one then: ports have to join again, and DHCP to bind again."""
    await bench.create()
    [nic] = await bench.nics.reserve(Owner("i1", "default", "c1"), [Wanted("eth1", {"network": bench.name})])
    await bench.nics.plug("i1", guest)
    before = bench.pid()
    await asyncio.to_thread(subprocess.run, ["ip", "link", "delete", bench.name], check=True)
    assert not bench.networks.all_serve()
    await bench.networks.reconcile()
    assert bench.networks.all_serve()
    assert bench.pid() != before
    [link] = [link for link in await bench.host.links() if link.name == bench.name]
    assert link.members == (nic.host_name,)


async def test_what_no_record_knows_is_swept(bench: Bench) -> None:
    """A bridge, its table, server and files that a crash left without a record go; others stay."""
    network = await bench.create()
    await bench.nics.reserve(Owner("i1", "default", "c1"), [Wanted("eth0", {"network": bench.name})])
    stray = bench.folder / bench.name / "hosts" / "gone.eth0"
    stray.write_text("10.0.0.9 gone\n")
    await bench.networks.reconcile()
    assert not stray.exists()
    assert (bench.folder / bench.name / "hosts" / "i1.eth0").exists()
    bench.store.nics.apply(keys.nic("i1", "eth0"), None, 10**9)
    bench.store.networks.apply(keys.network(network.name), None, 10**9)
    await bench.networks.reconcile()
    assert not await bench.has_link()
    assert not bench.has_table()
    assert not (bench.folder / bench.name).exists()


async def test_nics_of_an_instance_that_is_gone_are_given_back_at_the_second_look(bench: Bench) -> None:
    await bench.create()
    strays = Strays(bench.store, bench.nics, bench.host)
    await bench.nics.reserve(Owner("i1", "default", "c1"), [Wanted("eth0", {"network": bench.name})])
    await strays.release()
    assert bench.store.nics_of("i1")
    await strays.release()
    assert bench.store.nics_of("i1") == []
    assert bench.store.taken_on(bench.name) == set()


async def test_a_lease_that_no_nic_has_is_given_back(bench: Bench) -> None:
    """A guest's last request may reach the server after our release; foreign MACs are not ours to judge."""
    network = await bench.create()
    wanted = [Wanted("eth0", {"network": bench.name})]
    nic = (await bench.nics.reserve(Owner("i1", "default", "c1"), wanted))[0]
    base = nic.ipv4.rpartition(".")[0]
    held = {nic.ipv4: nic.hwaddr, f"{base}.77": "00:16:3e:00:00:77", f"{base}.78": "02:00:00:00:00:78"}
    server = Dnsmasq(bench.folder)
    await server.stop(bench.name)
    lines = [f"{int(time.time()) + 3600} {mac} {address} * *" for address, mac in held.items()]
    (bench.folder / bench.name / "leases").write_text("\n".join(lines) + "\n")
    await bench.networks.reconcile()
    end = time.monotonic() + 3
    while set(await bench.host.leased(network.name)) != set(held):  # it writes the file anew when it starts
        assert time.monotonic() < end
        await asyncio.sleep(0.05)

    await Strays(bench.store, bench.nics, bench.host).release()

    kept, end = {nic.ipv4, f"{base}.78"}, time.monotonic() + 5
    while time.monotonic() < end and set(await bench.host.leased(network.name)) != kept:
        await asyncio.sleep(0.05)
    assert set(await bench.host.leased(network.name)) == kept


async def test_all_nics_of_an_instance_are_one_commit(bench: Bench) -> None:
    """Launches pay for each commit; and a crash must not leave half of the NICs."""
    await bench.create()
    before = (await bench.store.store.list("")).revision
    wanted = [Wanted(f"eth{n}", {"network": bench.name}) for n in range(3)]
    nics = await bench.nics.reserve(Owner("i1", "default", "c1"), wanted)
    assert len({nic.ipv4 for nic in nics}) == 3
    await bench.nics.reserve(Owner("i1", "default", "c1"), wanted)
    assert (await bench.store.store.list("")).revision == before + 1
    await bench.nics.release("i1")
    assert (await bench.store.store.list("")).revision == before + 2


async def test_a_nic_is_plugged_into_a_running_namespace_and_out_again(bench: Bench, guest: int) -> None:
    """Name, MAC and MTU inside; on the bridge outside; nothing left after release."""
    await bench.create(**{"bridge.mtu": "1400"})
    owner, options = Owner("i1", "default", "c1"), {"network": bench.name, "name": "lan0"}
    [nic] = await bench.nics.reserve(owner, [Wanted("eth1", options)])
    for _ in range(2):
        await bench.nics.plug("i1", guest)
    inside = _links_of(guest)["lan0"]
    assert (inside["address"], inside["mtu"]) == (nic.hwaddr, 1400)
    [bridge] = [link for link in await bench.host.links() if link.name == bench.name]
    assert bridge.members == (nic.host_name,)
    await bench.nics.release("i1")
    assert "lan0" not in _links_of(guest)


async def test_a_live_option_keeps_the_link_and_another_name_replaces_it(bench: Bench, guest: int) -> None:
    await bench.create()
    owner = Owner("i1", "default", "c1")

    async def change(**options: str) -> dict[str, Any]:
        wanted = [Wanted("eth1", {"network": bench.name, **options})]
        await bench.nics.reserve(owner, wanted)
        await bench.nics.plug("i1", guest)
        return _links_of(guest)

    before = (await change())["eth0"]
    same = await change(**{"security.ipv4_filtering": "true"})
    assert same["eth0"]["ifindex"] == before["ifindex"]
    assert bench.has_table("bridge")
    renamed = await change(name="wan0")
    assert "eth0" not in renamed
    assert renamed["wan0"]["address"] == before["address"]
    await change(name="wan0")
    await bench.nics.release("i1")
    assert not bench.has_table("bridge")


async def test_an_interface_of_the_host_is_never_taken_for_a_nic(bench: Bench, guest: int) -> None:
    """host_name comes from users; unplugging must not delete the host's own interface."""
    await bench.create()
    options = {"network": bench.name, "host_name": "lo"}
    await bench.nics.reserve(Owner("i1", "default", "c1"), [Wanted("eth1", options)])
    with pytest.raises(WrongState):
        await bench.nics.plug("i1", guest)
    await bench.nics.release("i1")
    assert any(link.name == "lo" for link in await bench.host.links())


async def test_a_static_address_that_is_taken_is_refused_and_free_again_after_release(bench: Bench) -> None:
    network = await bench.create(**{"ipv4.address": _unused_subnet()})
    static = str(ip_interface(network.config["ipv4.address"]).ip + 5)
    wanted = [Wanted("eth0", {"network": bench.name, "ipv4.address": static})]
    [nic] = await bench.nics.reserve(Owner("i1", "default", "c1"), wanted)
    assert (nic.ipv4, nic.is_static) == (static, True)
    with pytest.raises(Invalid, match="already defined on another NIC"):
        await bench.nics.reserve(Owner("i2", "default", "c2"), wanted)
    await bench.nics.release("i1")
    assert (await bench.nics.reserve(Owner("i2", "default", "c2"), wanted))[0].ipv4 == static


async def test_a_mac_to_be_kept_that_another_instance_has_is_given_anew(bench: Bench) -> None:
    """A backup imported beside its origin could not start, and took the address of the origin from DHCP."""
    await bench.create(**{"ipv4.address": _unused_subnet()})
    options = {"network": bench.name}
    [nic] = await bench.nics.reserve(Owner("i1", "default", "c1"), [Wanted("eth0", options)])
    again = [Wanted("eth0", options, nic.hwaddr)]
    [other] = await bench.nics.reserve(Owner("i2", "default", "c2", at_rest=True), again)
    assert other.hwaddr not in ("", nic.hwaddr)
    [started] = await bench.nics.reserve(Owner("i2", "default", "c2"), again)
    assert (started.hwaddr, started.ipv4 != nic.ipv4) == (other.hwaddr, True)
    assert (await bench.nics.reserve(Owner("i1", "default", "c1"), again))[0] == nic


async def test_a_copy_with_a_static_address_that_is_taken_is_made_and_refused_at_its_start(
    bench: Bench,
) -> None:
    """As LXD does; and whoever is left may start when the other is gone."""
    network = await bench.create(**{"ipv4.address": _unused_subnet()})
    static = str(ip_interface(network.config["ipv4.address"]).ip + 5)
    wanted = [Wanted("eth0", {"network": bench.name, "ipv4.address": static})]
    await bench.nics.reserve(Owner("i1", "default", "c1"), wanted)
    [copied] = await bench.nics.reserve(Owner("i2", "default", "c2", at_rest=True), wanted)
    assert copied.ipv4 == ""
    assert (await bench.nics.reserve(Owner("i2", "default", "c2", at_rest=True), wanted))[0] == copied
    words = f'Failed start validation for device "eth0": IP address "{static}" already defined on another NIC'
    with pytest.raises(Invalid, match=words):
        await bench.nics.reserve(Owner("i2", "default", "c2"), wanted)
    await bench.nics.release("i1")
    assert (await bench.nics.reserve(Owner("i2", "default", "c2"), wanted))[0].ipv4 == static


async def test_instances_move_with_their_network_to_another_subnet(bench: Bench) -> None:
    """Or they would keep an address that DHCP no longer serves and DNS still tells."""
    await bench.create(**{"ipv4.address": _unused_subnet()})
    owner, wanted = Owner("i1", "default", "c1"), [Wanted("eth0", {"network": bench.name})]
    [before] = await bench.nics.reserve(owner, wanted)
    new = _unused_subnet()
    await bench.networks.update(bench.name, {"ipv4.address": new}, "", merge=True, expected_revision=0)
    await bench.nics.refresh()
    [after] = await bench.nics.reserve(owner, wanted)
    assert ip_address(after.ipv4) in ip_interface(new).network
    assert (after.hwaddr, bench.store.taken_on(bench.name)) == (before.hwaddr, {after.ipv4})
    assert await resolved("c1.lxd", new.partition("/")[0]) == after.ipv4


async def test_routes_mac_and_ports_follow_the_keys(bench: Bench) -> None:
    """Keys that change the bridge do so live, and their removal takes the effect back."""
    await bench.create()

    async def change(**config: str) -> str:
        await bench.networks.update(bench.name, config, "", merge=True, expected_revision=0)
        show = ["ip", "-o", "route", "show", "dev", bench.name]
        return subprocess.run(show, capture_output=True, text=True, check=True, timeout=10).stdout

    mac = {"bridge.hwaddr": "00:16:3e:aa:bb:cc"}
    net = f"{lone(16)}/30"
    assert net in await change(**{"ipv4.routes": net}, **mac)
    [link] = [link for link in await bench.host.links() if link.name == bench.name]
    assert link.hwaddr == "00:16:3e:aa:bb:cc"
    assert net not in await change(**{"ipv4.routes": ""})


async def test_an_external_interface_becomes_a_port_and_is_let_go_again(bench: Bench) -> None:
    """Only one without addresses: the host would lose those it has."""
    await bench.create()
    names = [f"px{secrets.token_hex(3)}" for _ in range(2)]
    argv = ["ip", "link", "add", names[0], "type", "veth", "peer", "name", names[1]]
    subprocess.run(argv, check=True, timeout=10)
    try:

        async def members(wanted: str) -> tuple[str, ...]:
            config = {"bridge.external_interfaces": wanted}
            await bench.networks.update(bench.name, config, "", merge=True, expected_revision=0)
            return next(link.members for link in await bench.host.links() if link.name == bench.name)

        assert await members(names[0]) == (names[0],)
        assert await members("") == ()
        address = ["ip", "address", "add", f"{lone(9)}/32", "dev", names[0]]
        await asyncio.to_thread(subprocess.run, address, check=True, timeout=10)
        with pytest.raises(Invalid, match="unconfigured"):
            await members(names[0])
    finally:
        subprocess.run(["ip", "link", "delete", names[0]], check=True, timeout=10)


async def test_no_interface_of_the_host_becomes_a_network(bench: Bench) -> None:
    """Renamed onto one, a network would have given it addresses, a MAC and an MTU."""
    await bench.create()
    name = f"px{secrets.token_hex(3)}"
    subprocess.run(["ip", "link", "add", name, "type", "veth"], check=True, timeout=10)
    try:
        with pytest.raises(AlreadyExists, match="already exists"):
            await bench.networks.rename(bench.name, name)
        config = {"ipv4.address": f"{net4(3)}.1/24", "ipv6.address": "none"}
        with pytest.raises(WrongState, match="not a bridge"):
            await bench.host.ensure_up(Network(name, "default", "bridge", "", config), [], Rulebook())
    finally:
        subprocess.run(["ip", "link", "delete", name], check=True, timeout=10)
        await bench.host.ensure_down(name)


@pytest.fixture
def guest() -> Iterator[int]:
    """A process in a network namespace of its own."""
    process = subprocess.Popen(["unshare", "-n", "sleep", "60"])
    own = os.stat("/proc/self/ns/net").st_ino
    end = time.monotonic() + 5
    while time.monotonic() < end and os.stat(f"/proc/{process.pid}/ns/net").st_ino == own:
        time.sleep(0.01)
    yield process.pid
    process.kill()
    process.wait()


def _links_of(pid: int) -> dict[str, dict[str, Any]]:
    argv = ["nsenter", "-t", str(pid), "-n", "ip", "-j", "link"]
    shown = subprocess.run(argv, capture_output=True, check=True, timeout=10).stdout
    return {link["ifname"]: link for link in json.loads(shown)}


def _unused_subnet() -> str:
    return f"10.{secrets.randbelow(256)}.{secrets.randbelow(256)}.1/24"


def _wait_until_dead(pid: int) -> None:
    path = Path(f"/proc/{pid}/cmdline")
    end = time.monotonic() + 5
    while time.monotonic() < end and path.exists() and path.read_bytes():
        time.sleep(0.02)


async def resolved(name: str, server: str) -> str:
    """Return the A record, asked of *server*; dnsmasq notices a new file within moments."""
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    query = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + labels + b"\0\0\x01\0\x01"
    for _ in range(40):
        answer = await asyncio.to_thread(_ask, query, server)
        if answer[7]:
            return ".".join(str(byte) for byte in answer[-4:])
        await asyncio.sleep(0.05)
    return ""


def _ask(query: bytes, server: str) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(3)
        sock.sendto(query, (server, 53))
        return sock.recv(512)


async def test_a_mac_that_another_nic_of_the_network_has_is_refused(bench: Bench) -> None:
    """Two of them would take each other's frames and address."""
    await bench.create(**{"ipv4.address": _unused_subnet()})
    wanted = [Wanted("eth0", {"network": bench.name, "hwaddr": "00:16:3e:77:00:02"})]
    await bench.nics.reserve(Owner("i1", "default", "c1"), wanted)
    with pytest.raises(Invalid, match='Failed add validation for device "eth0": MAC address'):
        await bench.nics.reserve(Owner("i2", "default", "c2"), wanted)
    await bench.nics.release("i1")
    await bench.nics.reserve(Owner("i2", "default", "c2"), wanted)
