"""What a store does when its own etcd is away and another member's answers. Both are real, and apart here."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.errors import Unavailable
from core.state.etcd import EtcdStore
from core.state.etcdlines import Others
from core.state.store import Change, Txn
from tests.contract.conftest import free_port, start_etcd


def store_of(own: str, *others: str) -> EtcdStore:
    return EtcdStore(own, others=Others(lambda: others, lambda: None))


@pytest.fixture
async def nobody(etcd_endpoint: str) -> AsyncIterator[EtcdStore]:
    """A store whose own etcd never was there."""
    store = store_of(f"127.0.0.1:{free_port()}", etcd_endpoint)
    yield store
    await store.close()


async def test_reads_and_writes_go_to_another(nobody: EtcdStore) -> None:
    """At once: what was not there did nothing, so a write may be made again too."""
    revision = await nobody.commit(Txn().put("/elsewhere/a", {"x": 1}))

    found = await nobody.get("/elsewhere/a")
    assert found and found.revision == revision
    lease = await nobody.grant(5)
    assert await nobody.renew(lease)


async def test_followers_begin_at_another(nobody: EtcdStore) -> None:
    follower = nobody.follow("/elsewhere/b")
    await anext(follower)
    await nobody.commit(Txn().put("/elsewhere/b", {}))

    change = await asyncio.wait_for(anext(follower), 5)

    assert isinstance(change, Change) and change.key == "/elsewhere/b"


async def test_nobody_at_all_is_told_as_ever() -> None:
    store = store_of(f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}")
    with pytest.raises(Unavailable, match="does not answer"):
        await store.get("/x")
    await store.close()


async def test_a_follower_leaves_an_etcd_that_hangs(etcd_endpoint: str, tmp_path: Path) -> None:
    """Though nobody asks it anything; and the own one is asked again when it is back."""
    client = free_port()
    own = await asyncio.to_thread(start_etcd, str(tmp_path), client, free_port())
    store = store_of(f"127.0.0.1:{client}", etcd_endpoint)
    other = EtcdStore(etcd_endpoint)
    try:
        follower = store.follow("/hangs/")
        await anext(follower)
        os.kill(own.pid, signal.SIGSTOP)
        waiting = asyncio.ensure_future(anext(follower))
        # Far ahead of the first one's revisions, as no real cluster is.
        began = time.monotonic()
        while not waiting.done() and time.monotonic() - began < 8:
            await other.commit(Txn().put("/hangs/x", {}))
            await asyncio.sleep(0.2)
        assert waiting.done() and isinstance(waiting.result(), Change)

        os.kill(own.pid, signal.SIGCONT)
        mark = EtcdStore(f"127.0.0.1:{client}")
        await mark.commit(Txn().put("/only/own", {}))
        while not await store.get("/only/own"):
            assert time.monotonic() - began < 20
            await asyncio.sleep(0.2)
        await mark.close()
    finally:
        own.kill()
        await asyncio.to_thread(own.wait)
        await store.close()
        await other.close()
