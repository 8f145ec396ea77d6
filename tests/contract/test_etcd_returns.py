"""What followers of a real etcd see when it was away for a while."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import Unavailable
from core.state.etcd import EtcdStore
from core.state.store import Change, Txn
from tests.contract.conftest import free_port, start_etcd


class Restartable:
    """An etcd of its own that a test may stop and start."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.client, self._peer = str(folder), free_port(), free_port()
        self.start()

    def start(self) -> None:
        self._process: subprocess.Popen[bytes] = start_etcd(self._folder, self.client, self._peer)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Restartable]:
    made = Restartable(tmp_path)
    yield made
    made.stop()


async def test_who_can_write_again_soon_reads_what_others_wrote(etcd: Restartable) -> None:
    """Else a delete is refused because the cache does not show yet what its transaction found."""
    store = EtcdStore(f"127.0.0.1:{etcd.client}")
    followers = [store.follow("/a/") for _ in range(6)]
    for follower in followers:
        await anext(follower)
    waiting = [asyncio.ensure_future(anext(follower)) for follower in followers]
    etcd.stop()
    await asyncio.sleep(4)  # their pauses have grown to the longest by now
    await asyncio.to_thread(etcd.start)

    await until_written(store)
    began = time.monotonic()
    changes = await asyncio.wait_for(asyncio.gather(*waiting), 10)

    assert time.monotonic() - began < 0.4
    assert {change.key for change in changes if isinstance(change, Change)} == {"/a/x"}
    await store.close()


async def until_written(store: EtcdStore) -> None:
    while True:
        try:
            await store.commit(Txn().put("/a/x", b"1"))
            return
        except Unavailable:
            await asyncio.sleep(0.05)
