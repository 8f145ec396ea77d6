"""What others take from our rules comes back, and what they may add to a DNS server is tried first."""

from __future__ import annotations

import asyncio
import secrets
import subprocess
import uuid
from collections.abc import AsyncIterator

import pytest

from core.errors import Invalid, WrongState
from core.records import ServerConfig
from core.state import keys
from core.state.store import Txn
from services.network.domain import render
from services.network.domain.forwards import checked, table_of
from services.network.kernel.forwards import NftForwards
from services.network.kernel.rulewatch import RuleWatch
from services.network.usecases.drift import Drift
from services.network.usecases.nics import Owner, Wanted
from tests.integration.network.test_real_bridge import Bench, bench, resolved
from tests.subnets import lone

__all__ = ["bench"]


def nft(*argv: str) -> bytes:
    return subprocess.run(["nft", *argv], capture_output=True, check=False, timeout=10).stdout


@pytest.fixture
async def watch() -> AsyncIterator[RuleWatch]:
    made = RuleWatch(render.PREFIX)
    made.open()
    yield made
    made.close()


async def test_a_table_that_somebody_deletes_is_back_at_once(bench: Bench, watch: RuleWatch) -> None:
    """Well before the next look after everything; what we change ourselves is none of it."""
    drift = Drift(bench.store, bench.networks, bench.host, NftForwards(bench.folder / "forwards"))
    await bench.create()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(watch.changed(), 0.3)
    bench.lose_table()
    tables = await asyncio.wait_for(watch.changed(), 1)
    assert tables == {render.table_name(bench.name)}
    await drift.mend(tables)
    assert bench.has_table()


async def test_rules_of_a_nic_or_an_instance_alone_come_back_too(bench: Bench) -> None:
    """Filters on somebody else's bridge, and proxies in NAT mode."""
    forwards, id, bridge = (
        NftForwards(bench.folder / "forwards"),
        str(uuid.uuid4()),
        f"pb{secrets.token_hex(3)}",
    )
    drift = Drift(bench.store, bench.networks, bench.host, forwards)
    subprocess.run(["ip", "link", "add", bridge, "type", "bridge"], check=True, timeout=10)
    guest = subprocess.Popen(["unshare", "-n", "sleep", "30"])
    await asyncio.sleep(0.2)
    try:
        options = {"nictype": "bridged", "parent": bridge, "security.mac_filtering": "true"}
        [nic] = await bench.nics.reserve(Owner(id, "default", "c1"), [Wanted("eth0", options)])
        await bench.nics.plug(id, guest.pid)
        await forwards.set(id, [checked("tcp", lone(40), [80], "10.0.0.9", [80])])
        tables = {("bridge", render.table_name(render.nic_table(nic))), ("inet", table_of(id))}
        before = {table: nft("list", "table", *table) for table in tables}
        assert all(before.values())
        for mend in (drift.mend_lone(), drift.mend({name for _, name in tables})):
            for table in tables:
                nft("delete", "table", *table)
            await mend
            assert {table: nft("list", "table", *table) for table in tables} == before
        await bench.nics.release(id)
        await forwards.set(id, [])
        await drift.mend_lone()
        assert not any(nft("list", "table", *table) for table in tables)
    finally:
        guest.kill()
        guest.wait()
        subprocess.run(["ip", "link", "del", bridge], check=True, timeout=10)


async def test_raw_lines_for_dnsmasq_need_leave_and_are_tried_before_they_stay(bench: Bench) -> None:
    await bench.create()

    async def change(raw: str) -> None:
        config = {"raw.dnsmasq": raw}
        await bench.networks.update(bench.name, config, "", merge=True, expected_revision=0)

    with pytest.raises(Invalid, match="unless it is allowed"):
        await change("log-queries")
    server = ServerConfig(config={"networks.raw_dnsmasq": "true"})
    revision = await bench.store.store.commit(Txn().put(keys.server_config(), server))
    bench.store.server.apply(keys.server_config(), server, revision)
    await change("address=/raw.example/198.51.100.7")
    gateway = bench.networks.get(bench.name).record.config["ipv4.address"].partition("/")[0]
    assert await resolved("raw.example", gateway) == "198.51.100.7"
    with pytest.raises(WrongState, match="did not start"):
        await change("no-such-option")
    assert await resolved("raw.example", gateway) == "198.51.100.7"
    await change("")
    assert await resolved("raw.example", gateway) != "198.51.100.7"
