"""Zones handed to a real secondary (BIND) and to dig, signed and not."""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from core.netrecords import NetworkZone, ZoneEntry, ZoneRecord
from core.records import Network, NicReservation, ServerConfig
from core.state import keys
from core.state.memory import MemoryStore
from core.state.store import Txn
from services.network.kernel.zoneserver import ZoneServer
from services.network.store import NetworkStore
from services.network.usecases.zones import Zones, ZoneServing
from tests.contract.conftest import free_port
from tests.unit.network.still import StillNetworks

pytestmark = pytest.mark.skipif(not shutil.which("named"), reason="needs bind9 and bind9-dnsutils")
T = TypeVar("T")
SECRET = base64.b64encode(os.urandom(32)).decode()


class Primary:
    def __init__(self) -> None:
        self.store, self.port = NetworkStore(MemoryStore()), free_port()
        self.zones = Zones(self.store, StillNetworks(self.store))
        self.server = ZoneServer(self.zones.answer)

    async def start(self) -> None:
        await self.store.start()
        config = {"ipv4.address": "10.1.2.1/24", "dns.zone.forward": "lab.example"}
        network = Network("br0", config=config)
        nic = NicReservation("i1", "default", "c1", "br0", "eth0", ipv4="10.1.2.9")
        txn = Txn().put(keys.network("br0"), network).put(keys.nic("i1", "eth0"), nic)
        revision = await self.store.store.commit(txn)
        await self.store.nics.wait_for(revision)
        await self.store.networks.catch_up(revision)
        peers = {
            "peers.sec.address": "127.0.0.1",
            "peers.sec.key": SECRET,
            "dns.nameservers": "ns1.lab.example",
        }
        await self.zones.create(NetworkZone("default", "lab.example", "", peers))
        await self.zones.create(
            NetworkZone("default", "open.example", "", {"peers.any.address": "127.0.0.1"})
        )
        await self.record("www", "192.0.2.1")
        await self.server.listen("127.0.0.1", self.port)

    async def record(self, name: str, address: str) -> None:
        entries = (ZoneEntry("A", 0, address),)
        await self.zones.create_record(ZoneRecord("default", "lab.example", name, entries=entries))

    def dig(self, *argv: str) -> list[str]:
        command = [
            "dig",
            "+noall",
            "+answer",
            "+time=2",
            "+tries=1",
            "@127.0.0.1",
            "-p",
            str(self.port),
            *argv,
        ]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=20, check=False
        ).stdout.splitlines()


@pytest.fixture
async def primary() -> AsyncIterator[Primary]:
    made = Primary()
    await made.start()
    yield made
    made.server.close()
    await made.store.stop()


async def _dig(primary: Primary, *argv: str) -> list[str]:
    return await asyncio.to_thread(primary.dig, *argv)


async def test_dig_transfers_with_the_right_key_and_only_then(primary: Primary) -> None:
    key = f"hmac-sha256:lab.example_sec:{SECRET}"
    other = f"hmac-sha256:lab.example_sec:{base64.b64encode(b'x' * 32).decode()}"
    assert any(
        line.startswith("c1.lab.example.") for line in await _dig(primary, "-y", key, "lab.example", "AXFR")
    )
    assert not any("IN" in line.split() for line in await _dig(primary, "lab.example", "AXFR"))
    assert not any("IN" in line.split() for line in await _dig(primary, "-y", other, "lab.example", "AXFR"))
    assert len(await _dig(primary, "open.example", "SOA")) == 1


async def test_an_address_that_is_taken_is_reported_until_it_is_free(primary: Primary) -> None:
    """And the server follows core.dns_address from the moment it changes."""
    other = ZoneServer(primary.zones.answer)
    serving = ZoneServing(primary.store, other)
    following = asyncio.create_task(serving.run())
    try:
        await _configure(primary, f"127.0.0.1:{primary.port}")
        [found] = await _until(serving.troubles)
        assert f"core.dns_address=127.0.0.1:{primary.port}" in found.message
        primary.port = free_port()
        await _configure(primary, f"127.0.0.1:{primary.port}")
        assert await _until(lambda: not serving.troubles())
        assert len(await _dig(primary, "open.example", "SOA")) == 1
    finally:
        following.cancel()
        other.close()


async def _configure(primary: Primary, address: str) -> None:
    config = ServerConfig({"core.dns_address": address})
    revision = await primary.store.store.commit(Txn().put(keys.server_config(), config))
    await primary.store.server.wait_for(revision)


async def _until(look: Callable[[], T]) -> T:
    async with asyncio.timeout(10):
        while not (found := look()):
            await asyncio.sleep(0.02)
    return found


async def test_a_secondary_follows_what_changes(primary: Primary, tmp_path: Path) -> None:
    """BIND checks what it is given: one bad record and it serves nothing."""
    port = free_port()
    (tmp_path / "named.conf").write_text(
        f"""options {{ directory "{tmp_path}"; listen-on-v6 {{ none; }};
            listen-on port {port} {{ 127.0.0.1; }};
            pid-file none; recursion no; notify no; session-keyfile "{tmp_path}/session.key"; }};
        controls {{ }};
        key "lab.example_sec" {{ algorithm hmac-sha256; secret "{SECRET}"; }};
        zone "lab.example" {{ type secondary; file "lab.db"; masterfile-format text; min-refresh-time 1;
            max-refresh-time 1; primaries {{ 127.0.0.1 port {primary.port} key "lab.example_sec"; }}; }};
        """
    )
    argv = ["named", "-f", "-n", "1", "-c", str(tmp_path / "named.conf"), "-L", str(tmp_path / "log")]
    with subprocess.Popen(argv) as named:
        try:
            for name, address in (("c1", "10.1.2.9"), ("www", "192.0.2.1"), ("new", "192.0.2.9")):
                if name == "new":
                    await primary.record(name, address)
                end = time.monotonic() + 20
                ask = [
                    "dig",
                    "+short",
                    "+tries=1",
                    "+time=1",
                    "@127.0.0.1",
                    "-p",
                    str(port),
                    f"{name}.lab.example",
                ]
                while True:
                    done = await asyncio.to_thread(subprocess.run, ask, capture_output=True, text=True)
                    if done.stdout.strip() == address:
                        break
                    assert time.monotonic() < end, (tmp_path / "log").read_text()[-2000:]
                    await asyncio.sleep(0.2)
        finally:
            named.terminate()
