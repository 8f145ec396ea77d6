"""A caller that goes away while its operation is being accepted: gRPC cancels the call at any await."""

from __future__ import annotations

import asyncio

import pytest

from core.operations.operation import CHANNEL, Context, Step, Story
from core.operations.runner import Runner
from core.state.memory import MemoryStore
from core.state.store import Txn
from tests.unit.core.test_operations import a_runner, stored


class SlowStore(MemoryStore):
    """Writes at once and answers when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may_answer = asyncio.Event()
        self.has_written = asyncio.Event()

    async def commit(self, txn: Txn) -> int:
        revision = await super().commit(txn)
        self.has_written.set()
        await self.may_answer.wait()
        return revision


async def _nothing(ctx: Context) -> None:
    pass


async def _cancelled_once_written(store: SlowStore, call: asyncio.Task[object]) -> None:
    await store.has_written.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    store.may_answer.set()


async def _until_final(store: MemoryStore, runner: Runner, id: str) -> str:
    async with asyncio.timeout(2):
        while not (await stored(store, id)).is_final:
            await asyncio.sleep(0.01)
    return (await stored(store, id)).state


async def test_an_operation_whose_caller_left_is_carried_out() -> None:
    """It is recorded, so it must not wait for the next start of the service."""
    store = SlowStore()
    runner = a_runner(store, Story("t.go", "Going", (Step("a", _nothing),)))
    call = asyncio.create_task(runner.accept("t.go", id="x"))

    await _cancelled_once_written(store, call)

    assert await _until_final(store, runner, "x") == "succeeded"


async def test_a_channel_whose_caller_left_ends() -> None:
    """Nobody knows of it who could connect to it or end it."""
    store = SlowStore()
    runner = a_runner(store)
    call = asyncio.create_task(runner.open("t.exec", "Executing", op_class=CHANNEL, id="x"))

    await _cancelled_once_written(store, call)

    assert await _until_final(store, runner, "x") == "failed"
