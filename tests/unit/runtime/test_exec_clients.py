"""Commands whose clients come and go; real processes, a fake engine."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.errors import Invalid, WrongState
from core.operations.operation import Operation
from core.operations.runner import Runner
from core.state.memory import MemoryStore
from protos.podium.runtime.v1 import exec_pb2 as pb
from services.runtime.domain.idmaps import id_map
from services.runtime.domain.target import Target
from services.runtime.kernel.gate import Gate, refuse_waiting
from services.runtime.ports import ExecPlan
from services.runtime.servicer.exec import ExecServicer
from services.runtime.usecases.inside.exec import Execs
from services.runtime.usecases.inside.session import Command
from tests.fakes.runtime_host import FakeEngine


@pytest.fixture
def target(tmp_path: Path) -> Target:
    return Target("id", "default", "web", "running", pid=1, idmap=id_map(1_000_000), folder=tmp_path)


def an_engine() -> FakeEngine:
    """In which the instance of *target* runs."""
    engine = FakeEngine()
    engine.pids["id"] = 1
    return engine


async def _ended(runner: Runner, execs: Execs, operation: Operation) -> Operation:
    for task in list(execs._tasks):
        await task
    return runner.get(operation.id)


async def test_a_command_whose_client_is_gone_before_it_begins_never_does(target: Target) -> None:
    """All channels were connected for a moment; nobody would ever end what starts now."""
    runner = Runner(MemoryStore(), service="runtime", member="m")
    execs = Execs(lambda project, name: target, an_engine(), runner)
    operation = await execs.start("default", "web", Command(["sleep", "1000"]))
    session = execs.session(operation.id)

    session.kill()
    for secret in list(session.secrets):
        session.connect(secret)
    final = await _ended(runner, execs, operation)

    assert final.state == "failed" and "went away" in final.error_message


async def test_a_command_tells_how_it_ended(target: Target) -> None:
    runner = Runner(MemoryStore(), service="runtime", member="m")
    execs = Execs(lambda project, name: target, an_engine(), runner)
    operation = await execs.start("default", "web", Command(["sh", "-c", "exit 7"], channels=False))

    final = await _ended(runner, execs, operation)

    assert final.state == "succeeded" and final.metadata["return"] == 7


@pytest.mark.parametrize(("has", "begins"), [(28, True), (29, False)])
async def test_a_command_that_the_limit_of_processes_keeps_from_beginning_says_so(
    target: Target, has: int, begins: bool
) -> None:
    """lxc-attach could tell only by a status that any command may have."""
    runner = Runner(MemoryStore(), service="runtime", member="m")
    full = replace(target, config={"limits.processes": "30"})
    execs = Execs(lambda project, name: full, an_engine(), runner, count=lambda id: has)
    said = r"29 processes.*limits\.processes is 30"
    with nullcontext() if begins else pytest.raises(WrongState, match=said):
        operation = await execs.start("default", "web", Command(["true"], channels=False))
        assert (await _ended(runner, execs, operation)).metadata["return"] == 0


async def test_a_command_begins_when_its_client_is_there(target: Target) -> None:
    """It is started at once, to be ready; but nothing of it runs before all channels are connected."""
    runner = Runner(MemoryStore(), service="runtime", member="m")
    execs = Execs(lambda project, name: target, an_engine(), runner)
    mark = target.folder / "mark"
    operation = await execs.start("default", "web", Command(["touch", str(mark)]))
    session = execs.session(operation.id)
    await asyncio.sleep(0.2)
    assert not mark.exists()

    for secret in list(session.secrets):
        session.connect(secret)
    for name in ("1", "2"):
        session.sent[name].set()
    final = await _ended(runner, execs, operation)

    assert final.metadata["return"] == 0 and mark.exists()
    assert list(target.folder.glob("*.gate")) == []


async def test_a_client_that_never_comes_leaves_no_process(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.runtime.usecases.inside.exec._CONNECT_S", 0.1)
    runner = Runner(MemoryStore(), service="runtime", member="m")
    execs = Execs(lambda project, name: target, an_engine(), runner)
    operation = await execs.start("default", "web", Command(["sleep", "1000"]))
    session = execs.session(operation.id)

    final = await _ended(runner, execs, operation)

    assert final.state == "failed" and "Timed out" in final.error_message
    assert session._status and await session._status != 0
    assert list(target.folder.glob("*.gate")) == []


def test_what_waits_at_a_gate_since_a_crash_is_sent_away(tmp_path: Path) -> None:
    """Its owner was killed; nobody else would ever open the gate or end it."""
    (tmp_path / "id").mkdir()
    gate = Gate(tmp_path / "id", "x", b"go")
    argv = an_engine().exec_argv(
        "id", ExecPlan(("touch", f"{tmp_path}/mark"), {}), terminal=False, config=gate.path
    )
    with subprocess.Popen(argv) as process:
        while process.poll() is None:
            refuse_waiting(tmp_path)
            if not gate.path.exists():
                break
        assert process.wait(5) != 0

    assert not (tmp_path / "mark").exists()


async def test_a_program_that_cannot_be_started_fails_its_operation(target: Target) -> None:
    """Too many processes, or liblxc not installed: the client is told at once, not after a time-out."""
    runner = Runner(MemoryStore(), service="runtime", member="m")
    engine = an_engine()
    engine.exec_argv = lambda id, plan, *, terminal, config=None: ["/no/such/program"]  # type: ignore[method-assign]
    execs = Execs(lambda project, name: target, engine, runner)

    operation = await execs.start("default", "web", Command(["true"]))
    final = await _ended(runner, execs, operation)

    assert final.state == "failed" and "could not be started" in final.error_message
    assert list(target.folder.glob("*.gate")) == []


async def test_a_command_that_cannot_be_written_down_leaves_no_gate(target: Target) -> None:
    """`lxc exec --env =x`: liblxc's program takes no variable without a name."""
    engine = an_engine()

    def refuse(id: str, plan: ExecPlan, *, terminal: bool, config: Path | None = None) -> list[str]:
        raise Invalid("BAD_NAME", "Invalid name ''")

    engine.exec_argv = refuse  # type: ignore[method-assign]
    runner = Runner(MemoryStore(), service="runtime", member="m")
    execs = Execs(lambda project, name: target, engine, runner)

    with pytest.raises(Invalid):
        await execs.start("default", "web", Command(["true"]))

    assert list(target.folder.glob("*.gate")) == []


async def test_a_client_whose_command_failed_may_connect_all_the_same(target: Target) -> None:
    """The stock client that is refused a channel says "bad handshake", and never why the command failed."""
    runner = Runner(MemoryStore(), service="runtime", member="m")
    engine = an_engine()
    engine.exec_argv = lambda id, plan, *, terminal, config=None: ["/no/such/program"]  # type: ignore[method-assign]
    execs = Execs(lambda project, name: target, engine, runner)
    operation = await execs.start("default", "web", Command(["true"]))
    await asyncio.sleep(0.1)

    session = execs.session(operation.id)
    for secret in _fds(operation).values():
        session.connect(secret)
    final = await _ended(runner, execs, operation)

    assert final.state == "failed" and "could not be started" in final.error_message


@pytest.mark.parametrize("gone", ["0", "1", "2"])
async def test_a_client_that_never_heard_that_it_was_connected_is_not_waited_for(
    target: Target, gone: str
) -> None:
    """The call may be cancelled between the service's connecting and its first answer."""
    runner = Runner(MemoryStore(), service="runtime", member="m")
    execs = Execs(lambda project, name: target, an_engine(), runner)
    servicer = ExecServicer(execs, lambda project, name: target, runner)
    operation = await execs.start("default", "web", Command(["sh", "-c", "sleep 0.2"]))
    channels = {name: _connect(servicer, operation, secret) for name, secret in _fds(operation).items()}
    for name in ("0", "1", "2"):
        await anext(channels[name])
        if name == gone:
            await channels[name].aclose()

    reading = [asyncio.create_task(_read_out(channels[name])) for name in ("0", "1", "2") if name != gone]
    final = await asyncio.wait_for(_ended(runner, execs, operation), 8)

    assert final.is_final
    for task in reading:
        task.cancel()


def _fds(operation: Operation) -> dict[str, str]:
    return dict(operation.metadata["fds"])


def _connect(servicer: ExecServicer, operation: Operation, secret: str) -> Any:
    async def requests() -> AsyncIterator[pb.ConnectChannelRequest]:
        yield pb.ConnectChannelRequest(open=pb.ChannelOpen(operation_id=operation.id, secret=secret))
        await asyncio.sleep(3600)

    return servicer.ConnectChannel(requests(), None)


async def _read_out(channel: Any) -> None:
    async for _ in channel:
        pass


async def test_a_client_that_connects_half_its_channels_ends_its_command(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command begins with the first channel, to be quick; without the others it must not go on."""
    monkeypatch.setattr("services.runtime.usecases.inside.exec._CONNECT_S", 0.3)
    runner = Runner(MemoryStore(), service="runtime", member="m")
    execs = Execs(lambda project, name: target, an_engine(), runner)
    operation = await execs.start("default", "web", Command(["sleep", "1000"]))
    session = execs.session(operation.id)
    session.connect(session.fds["0"])

    final = await _ended(runner, execs, operation)

    assert final.state == "failed" and "Timed out" in final.error_message
    assert session._status and await session._status < 0


async def test_a_channel_that_comes_and_goes_before_the_next_one_counts(target: Target) -> None:
    """A short command is over before its client has connected all channels."""
    runner = Runner(MemoryStore(), service="runtime", member="m")
    execs = Execs(lambda project, name: target, an_engine(), runner)
    servicer = ExecServicer(execs, lambda project, name: target, runner)
    operation = await execs.start("default", "web", Command(["true"]))
    for name in ("0", "1", "2"):
        channel = _connect(servicer, operation, _fds(operation)[name])
        await anext(channel)
        if name == "0":
            await asyncio.sleep(0.3)
        await asyncio.wait_for(_read_out(channel), 2) if name != "0" else await channel.aclose()

    final = await asyncio.wait_for(_ended(runner, execs, operation), 2)

    assert final.state == "succeeded"


@pytest.mark.parametrize("pid", [0, 2])
async def test_a_command_does_not_enter_what_came_after_its_instance(target: Target, pid: int) -> None:
    """It waited for its client; meanwhile another init, or a host user, has the place of the one it meant."""
    runner, engine = Runner(MemoryStore(), service="runtime", member="m"), an_engine()
    execs = Execs(lambda project, name: target, engine, runner)
    mark = target.folder / "mark"
    operation = await execs.start("default", "web", Command(["touch", str(mark)]))
    session = execs.session(operation.id)

    engine.pids["id"] = pid
    for secret in list(session.secrets):
        session.connect(secret)
    final = await _ended(runner, execs, operation)

    assert final.state == "failed" and "not running" in final.error_message
    assert not mark.exists()
