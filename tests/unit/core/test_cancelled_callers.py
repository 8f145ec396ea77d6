"""A caller that goes away while its operation is being accepted: gRPC cancels the call at any await."""

from __future__ import annotations

import asyncio

import pytest

from core.operations.operation import CHANNEL, Context, Step, Story
from core.operations.runner import Runner
from core.state.memory import MemoryStore
from tests.fakes.slow_store import SlowStore
from tests.unit.core.test_operations import a_runner, stored


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
