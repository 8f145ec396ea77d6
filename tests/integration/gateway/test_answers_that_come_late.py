"""A gateway whose services' answers, lines and records come in any order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from core.operations import outcomes
from core.operations.convert import to_proto
from core.operations.operation import CHANNEL, FAILED, RUNNING, Operation
from core.settings import Settings
from core.state import codec, keys
from core.state.memory import MemoryStore
from core.state.store import Change
from gateway.backend import Backend
from tests.integration.gateway.test_confined_over_tls import _pair


async def test_an_answer_that_comes_after_the_record_of_the_end_brings_nothing_back(tmp_path: Path) -> None:
    (tmp_path / "tls").mkdir()
    _pair(tmp_path / "tls", "server")
    backend = Backend(Settings.from_env({"PODIUM_DIR": str(tmp_path)}), MemoryStore())
    await backend.start()
    begun = Operation(id="x", op_class=CHANNEL, state=RUNNING)
    ended = replace(begun, state=FAILED, error_reason="R", error_message="m")
    backend.told.ended("x", outcomes.encode(ended))
    backend.heard(Change(keys.operation("x"), codec.encode(ended), 7))

    assert backend.accepted(to_proto(begun)).state == "failed"
    assert (await backend.operation("x")).state == "failed"
    await backend.stop()
