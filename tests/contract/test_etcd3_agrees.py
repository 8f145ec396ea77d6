"""The etcd3 package, an independent client, sees what our store wrote and the other way round."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path

from core.state.etcd import EtcdStore
from core.state.etcd3_compat import client
from core.state.store import Txn


async def test_each_client_reads_what_the_other_wrote(etcd_endpoint: str) -> None:
    key, other = f"/test/{uuid.uuid4().hex}", client(etcd_endpoint)
    store = EtcdStore(etcd_endpoint)

    await store.commit(Txn().put(key, b"ours"))
    value, meta = await asyncio.to_thread(other.get, key)
    assert value == b"ours"
    await asyncio.to_thread(other.put, key, "theirs")

    kv = await store.get(key)
    assert kv is not None
    assert kv.value == b"theirs"
    assert kv.revision > meta.mod_revision
    await store.close()
    other.close()


def test_it_does_what_administration_needs(etcd_endpoint: str, tmp_path: Path) -> None:
    """Members, status, snapshot, compaction, defragmentation."""
    other = client(etcd_endpoint)
    assert [member.name for member in other.members] == ["default"]
    assert other.status().version.startswith("3.")
    target = tmp_path / "snapshot"
    with target.open("wb") as file:
        other.snapshot(file)
    assert target.stat().st_size > 1000
    other.defragment()
    other.close()
