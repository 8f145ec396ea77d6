"""What a gateway knows of commands before the state does."""

from __future__ import annotations

import pytest

from core.operations import outcomes
from core.operations.operation import Operation
from gateway.told import Told


@pytest.fixture
async def told() -> Told:
    return Told()


def a_command(state: str = "running", **more: object) -> Operation:
    return Operation(id="x", state=state, **more)  # type: ignore[arg-type]


async def test_begin_and_end_are_told_in_order(told: Told) -> None:
    heard: list[str] = []
    told.on_change(lambda operation: heard.append(operation.state))
    told.begun(a_command())
    told.ended("x", outcomes.encode(a_command("succeeded", metadata={"return": 0})))

    found = told.find("x")
    assert found
    assert found.metadata == {"return": 0}
    assert heard == ["running", "succeeded"]


async def test_an_outcome_may_come_before_the_answer_that_tells_of_the_begin(told: Told) -> None:
    told.ended("x", outcomes.encode(a_command("failed", error_reason="R", error_message="m")))

    assert told.find("x") is None
    assert told.begun(a_command()).state == "failed"


async def test_with_its_line_every_command_ends_that_has_not(told: Told) -> None:
    told.begun(a_command())
    told.begun(Operation(id="y", state="running"))
    told.ended("y", outcomes.encode(a_command("succeeded")))
    told.lost()

    assert {operation.id: operation.state for operation in told.all()} == {"x": "failed", "y": "succeeded"}
    error = told.all()[0].error()
    assert error
    assert "went away" in error.message


async def test_nothing_is_kept_of_what_the_state_tells(told: Told) -> None:
    told.begun(a_command())
    told.forget("x")

    assert told.find("x") is None
    assert told.all() == []


async def test_nonsense_leaves_a_command_as_it_is(told: Told) -> None:
    told.begun(a_command())
    for word in ("", "%%", "e30=", "bnVsbA=="):
        told.ended("x", word)

    assert told.find("x") == a_command()
