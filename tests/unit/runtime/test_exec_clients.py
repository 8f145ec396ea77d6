"""Commands whose clients come and go; real processes, a fake engine."""

from __future__ import annotations

from core.operations.operation import Operation
from core.operations.runner import Runner
from core.state.memory import MemoryStore
from services.runtime.domain.target import Target
from services.runtime.usecases.exec import Command, Execs
from tests.fakes.runtime_host import FakeEngine

TARGET = Target("id", "default", "web", "running", pid=1)


async def _ended(runner: Runner, execs: Execs, operation: Operation) -> Operation:
    for task in list(execs._tasks):
        await task
    return runner.get(operation.id)


async def test_a_command_whose_client_is_gone_before_it_begins_never_does() -> None:
    """All channels were connected for a moment; nobody would ever end what starts now."""
    runner = Runner(MemoryStore(), service="runtime", member="m")
    execs = Execs(lambda project, name: TARGET, FakeEngine(), runner)
    operation = await execs.start("default", "web", Command(["sleep", "1000"]))
    session = execs.session(operation.id)

    session.kill()
    for secret in list(session.secrets):
        session.connect(secret)
    final = await _ended(runner, execs, operation)

    assert final.state == "failed" and "went away" in final.error_message


async def test_a_command_tells_how_it_ended() -> None:
    runner = Runner(MemoryStore(), service="runtime", member="m")
    execs = Execs(lambda project, name: TARGET, FakeEngine(), runner)
    operation = await execs.start("default", "web", Command(["sh", "-c", "exit 7"], channels=False))

    final = await _ended(runner, execs, operation)

    assert final.state == "succeeded" and final.metadata["return"] == 7
