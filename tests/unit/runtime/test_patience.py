"""Calls into file systems that a guest made, and that never answer."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import TooLate, WrongState
from services.runtime.domain.idmaps import id_map
from services.runtime.kernel.patience import Descriptor, Patience
from services.runtime.kernel.processes import open_root


@pytest.fixture
def stuck() -> Iterator[threading.Event]:
    """An event to wait for; set at the end."""
    event = threading.Event()
    yield event
    event.set()


async def test_a_guest_that_never_answers_is_given_up(stuck: threading.Event) -> None:
    with pytest.raises(TooLate, match="does not answer"):
        await Patience(deadline_s=0.01).call("rogue", stuck.wait)


async def test_a_guest_that_never_answers_holds_up_no_other(stuck: threading.Event) -> None:
    patience = Patience(deadline_s=0.01, most=2)
    for _ in range(2):
        with pytest.raises(TooLate):
            await patience.call("rogue", stuck.wait)

    with pytest.raises(WrongState, match="file operations"):
        await patience.call("rogue", int)
    assert await patience.call("good", int, "7") == 7
    assert await asyncio.to_thread(int, "8") == 8


async def test_what_comes_too_late_is_given_back(stuck: threading.Event) -> None:
    """Nobody else would close the file that was opened after its client had gone."""
    closed = threading.Event()
    with pytest.raises(TooLate):
        await Patience(deadline_s=0.01).call("rogue", stuck.wait, undo=lambda _: closed.set())

    stuck.set()

    assert await asyncio.to_thread(closed.wait, 5)


def test_a_descriptor_in_use_is_closed_after_its_use(tmp_path: Path) -> None:
    """Its number would be the next file's, perhaps another guest's, while a thread still writes to it."""
    (tmp_path / "file").write_text("x")
    file = Descriptor(os.open(tmp_path / "file", os.O_RDONLY))

    def closed_meanwhile(fd: int) -> bytes:
        file.close()
        return os.read(fd, 10)

    assert file.use(closed_meanwhile) == b"x"
    with pytest.raises(ConnectionError):
        file.use(os.fstat)


def test_a_number_that_is_another_process_now_lends_no_root() -> None:
    """Else files for a guest that ended this moment could land in the host's own root."""
    with pytest.raises(ProcessLookupError):
        open_root(os.getpid(), "x", id_map(1000000))
    with pytest.raises(FileNotFoundError):
        open_root(1 << 22, "x", id_map(1000000))
