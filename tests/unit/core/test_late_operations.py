"""Operations that are recorded when they last or end: once, whatever happens to the answers of the state."""

from __future__ import annotations

import asyncio

import pytest

from core.errors import Invalid
from core.operations import late, outcomes
from core.operations.operation import CHANNEL, Operation
from core.operations.runner import Runner
from core.state import codec, keys
from core.state.memory import MemoryStore
from tests.fakes.lossy_store import LossyStore


def a_runner(store: MemoryStore) -> Runner:
    return Runner(store, service="runtime", member="m")


async def stored(store: MemoryStore, id: str) -> Operation | None:
    kv = await store.get(keys.operation(id))
    return codec.decode(Operation, kv.value) if kv else None


def a_command(runner: Runner) -> Operation:
    return runner.begin("instance.exec", "Executing command", project="p", metadata={"command": ["true"]})


async def test_a_short_one_is_written_once_when_it_ends() -> None:
    store = MemoryStore()
    runner = a_runner(store)
    operation = a_command(runner)
    before = await stored(store, operation.id)
    told: list[Operation] = []

    await runner.finish(operation.id, metadata={"return": 3}, before=told.append)

    after = await stored(store, operation.id)
    assert before is None
    assert after == told[0] == runner.get(operation.id)
    assert (after.op_class, after.state, after.metadata["return"]) == (CHANNEL, "succeeded", 3)
    kv = await store.get(keys.operation(operation.id))
    assert kv
    assert runner.revisions[operation.id] == kv.revision == kv.create_revision


async def test_one_that_lasts_is_seen_by_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late, "_AFTER_S", 0.01)
    store = MemoryStore()
    runner = a_runner(store)
    operation = a_command(runner)
    await asyncio.sleep(0.05)

    assert await stored(store, operation.id) == operation
    await runner.fail(operation.id, Invalid("BAD", "no"))
    assert runner.get(operation.id) == await stored(store, operation.id)
    assert runner.get(operation.id).error_message == "no"


@pytest.mark.parametrize("what", ["request", "answer"])
@pytest.mark.parametrize("lasts_s", [0.0, 0.05])
async def test_lost_answers_leave_one_record_of_one_outcome(
    monkeypatch: pytest.MonkeyPatch, lasts_s: float, what: str
) -> None:
    monkeypatch.setattr(late, "_AFTER_S", 0.01)
    store = LossyStore()
    store.lose(what)
    runner = a_runner(store)
    operation = a_command(runner)
    await asyncio.sleep(lasts_s)

    await runner.finish(operation.id)

    assert runner.get(operation.id) == await stored(store, operation.id)
    assert runner.get(operation.id).state == "succeeded"


async def test_a_runner_that_stops_writes_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late, "_AFTER_S", 0.01)
    store = MemoryStore()
    runner = a_runner(store)
    operation = a_command(runner)
    await runner.stop()
    await asyncio.sleep(0.05)

    assert await stored(store, operation.id) is None


def test_an_outcome_crosses_whole() -> None:
    begun = Operation(id="x", state="running", metadata={"command": ["a b"], "fds": {"0": "s"}})
    ended = Operation(
        id="x",
        state="failed",
        metadata={**begun.metadata, "return": 127},
        error_kind="wrong_state",
        error_reason="COMMAND",
        error_message="Befehl nicht gefunden: ä",
        error_about="web",
        updated_at=2.5,
    )
    word = outcomes.encode(ended)

    assert " " not in word
    assert outcomes.applied(begun, word) == ended


@pytest.mark.parametrize("word", ["", "!!", "e30=", "bnVsbA=="])
def test_what_is_no_outcome_is_refused(word: str) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        outcomes.applied(Operation(id="x"), word)
