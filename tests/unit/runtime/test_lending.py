"""Pipes lent to a gateway: the real line between the two, real processes, a fake engine."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.errors import NotFound
from core.operations.operation import Operation
from core.operations.runner import Runner
from core.rpc.once import Ticket, receive_ticket
from core.state import codec, keys
from core.state.memory import MemoryStore
from gateway.lent import Lender, Pipes
from gateway.told import Told
from services.runtime.domain.idmaps import id_map
from services.runtime.domain.target import Target
from services.runtime.servicer.lending import Lending
from services.runtime.usecases.inside.exec import Execs
from services.runtime.usecases.inside.session import Command
from tests.fakes.runtime_host import FakeEngine


class Two:
    """A runtime and a gateway, and the line between them."""

    def __init__(self, folder: Path) -> None:
        target = Target("id", "default", "web", "running", pid=1, idmap=id_map(1_000_000), folder=folder)
        engine = FakeEngine()
        engine.pids["id"] = 1
        self.store = MemoryStore()
        self.runner = Runner(self.store, service="runtime", member="m")
        self.execs = Execs(lambda project, name: target, engine, self.runner)
        self.lending = Lending(folder / "line", self.execs)
        self.told = Told()
        self.lender = Lender(folder / "line", self.told)

    async def run(self, *argv: str) -> tuple[Operation, Pipes]:
        name = self.lender.line()
        while name not in self.lending.lines:
            await asyncio.sleep(0.01)
        operation = await self.execs.start("default", "web", Command([*argv]), self.lending.lines[name])
        pipes = self.lender.find(operation.id)
        assert pipes
        return operation, pipes

    async def ended(self, operation: Operation) -> Operation:
        for task in list(self.execs._tasks):
            await asyncio.wait_for(asyncio.shield(task), 5)
        return self.runner.get(operation.id)


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[Two]:
    made = Two(tmp_path)
    await made.lending.start()
    yield made
    made.lender.close()
    await made.execs.stop()
    await made.lending.stop()


def _take_all(operation: Operation, pipes: Pipes) -> None:
    for name in ("0", "1", "2"):
        pipes.take(name, operation.metadata["fds"][name])


async def _all_of(pipes: Pipes, name: str) -> bytes:
    found = b""
    while data := await pipes.readers[name].read():
        found += data
    pipes.done(name, complete=True)
    return found


async def test_a_command_reads_and_writes_through_lent_pipes(two: Two) -> None:
    operation, pipes = await two.run("sh", "-c", "cat; echo no >&2; exit 7")
    _take_all(operation, pipes)

    assert await pipes.input.write(b"in and out")
    pipes.input.close()
    output, errors = await asyncio.gather(_all_of(pipes, "1"), _all_of(pipes, "2"))
    final = await two.ended(operation)

    assert (output, errors) == (b"in and out", b"no\n")
    assert final.metadata["return"] == 7


async def test_a_command_is_not_over_before_its_output_was_sent(two: Two) -> None:
    """Who waits for the operation then has all of it."""
    operation, pipes = await two.run("echo", "hi")
    _take_all(operation, pipes)
    await _all_of(pipes, "2")
    await asyncio.wait_for(pipes.ended.wait(), 5)
    await asyncio.sleep(0.1)
    assert not two.runner.get(operation.id).is_final

    assert await _all_of(pipes, "1") == b"hi\n"
    assert (await two.ended(operation)).state == "succeeded"


async def test_the_gateway_hears_the_outcome_and_the_state_has_it(two: Two) -> None:
    operation, pipes = await two.run("sh", "-c", "exit 3")
    two.told.begun(operation)
    assert await two.store.get(keys.operation(operation.id)) is None
    _take_all(operation, pipes)
    await asyncio.gather(_all_of(pipes, "1"), _all_of(pipes, "2"))
    final = await two.ended(operation)
    await asyncio.sleep(0.01)

    kv = await two.store.get(keys.operation(operation.id))
    assert kv
    assert two.told.find(operation.id) == final == codec.decode(Operation, kv.value)


async def test_a_request_with_a_key_is_recorded_before_it_is_answered(two: Two) -> None:
    """Its second sending, perhaps to another process, must find the first."""
    ticket = Ticket(str(uuid.uuid4()), "digest")
    receive_ticket(ticket)
    try:
        operation, _ = await two.run("true")
    finally:
        receive_ticket(None)

    assert operation.id == ticket.operation_id
    assert await two.store.get(keys.operation(operation.id))


async def test_a_grandchild_that_keeps_the_pipe_does_not_keep_the_command(two: Two) -> None:
    operation, pipes = await two.run("sh", "-c", "echo hi; sleep 30 &")
    _take_all(operation, pipes)

    async with asyncio.timeout(8):
        output, _ = await asyncio.gather(_all_of(pipes, "1"), _all_of(pipes, "2"))

    assert output == b"hi\n"
    assert (await two.ended(operation)).state == "succeeded"


async def test_a_client_that_leaves_takes_a_silent_command_along(two: Two) -> None:
    """Nobody would ever end it: it writes nothing, so no broken pipe tells it."""
    operation, pipes = await two.run("sleep", "1000")
    _take_all(operation, pipes)
    pipes.done("2", complete=False)
    pipes.done("1", complete=False)

    assert (await two.ended(operation)).is_final


async def test_a_gateway_that_dies_takes_its_commands_along(two: Two) -> None:
    operation, pipes = await two.run("sleep", "1000")
    _take_all(operation, pipes)

    two.lender.close()

    assert (await two.ended(operation)).is_final
    assert two.lending.lines == {}


async def test_a_runtime_that_dies_ends_the_channels(two: Two) -> None:
    _, pipes = await two.run("sleep", "1000")

    await two.lending.stop()
    await asyncio.wait_for(pipes.ended.wait(), 5)

    assert await pipes.readers["1"].read() == b""
    assert two.lender.line() == ""


async def test_a_channel_is_taken_once(two: Two) -> None:
    """Two clients with the same secret would tear the output apart."""
    operation, pipes = await two.run("true")
    pipes.take("1", operation.metadata["fds"]["1"])

    with pytest.raises(NotFound):
        pipes.take("1", operation.metadata["fds"]["1"])


async def test_channels_that_never_come_end_the_command(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.runtime.usecases.inside.exec._CONNECT_S", 0.2)
    operation, pipes = await two.run("sleep", "1000")
    pipes.take("0", operation.metadata["fds"]["0"])

    final = await two.ended(operation)

    assert final.state == "failed" and "Timed out" in final.error_message
    await asyncio.wait_for(pipes.ended.wait(), 5)
    assert two.lender.find(operation.id) is None
