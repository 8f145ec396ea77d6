"""A bridge of this host, with its table and its DNS server, from creation to removal."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.errors import AlreadyExists, Invalid, WrongState
from core.records import Network
from core.state.memory import MemoryStore
from services.network.domain.render import table_name
from services.network.kernel.host import LinuxHost
from services.network.store import NetworkStore
from services.network.usecases.networks import Networks
from services.network.usecases.nics import Nics, Owner, Wanted

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

    def has_table(self) -> bool:
        argv = ["nft", "list", "table", "inet", table_name(self.name)]
        return subprocess.run(argv, capture_output=True, timeout=10, check=False).returncode == 0

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
    assert await _resolved("c1.lxd", gateway) == nic.ipv4
    with pytest.raises(WrongState):
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
    assert await _resolved("c1.pod", gateway) == nic.ipv4
    await bench.nics.release("i1")
    await asyncio.gather(bench.networks.delete(bench.name), bench.networks.reconcile())
    assert not await bench.has_link()


def _wait_until_dead(pid: int) -> None:
    path = Path(f"/proc/{pid}/cmdline")
    end = time.monotonic() + 5
    while time.monotonic() < end and path.exists() and path.read_bytes():
        time.sleep(0.02)


async def _resolved(name: str, server: str) -> str:
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
