"""Recorded output: whole as long as it is small, and bounded whatever a guest does."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from services.runtime.usecases.inside import recording
from services.runtime.usecases.inside.recording import Recording


async def _record(folder: Path, id: str, data: bytes) -> Recording:
    made = Recording(folder, id)
    await asyncio.to_thread(_say, made.outputs["1"], data)
    os.close(made.outputs["2"])
    await made.finish()
    await made.close()
    return made


def _say(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    os.close(fd)


async def test_what_a_command_said_is_kept(tmp_path: Path) -> None:
    data = os.urandom(3 << 20)
    made = await _record(tmp_path, "a", data)
    assert made.names == {"1": "exec_a.stdout", "2": "exec_a.stderr"}
    assert (tmp_path / "exec_a.stdout").read_bytes() == data
    assert (tmp_path / "exec_a.stderr").read_bytes() == b""


async def test_a_command_that_never_stops_talking_fills_no_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its end is still waited for: it must not block on a pipe that nobody reads."""
    monkeypatch.setattr(recording, "MOST_BYTES", 1000)
    await _record(tmp_path, "a", bytes(2 << 20))
    assert (tmp_path / "exec_a.stdout").stat().st_size == 1000


async def test_the_oldest_records_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "_MOST_KEPT", 4)
    for number in range(5):
        await _record(tmp_path, str(number), b"x")
        for file in tmp_path.glob(f"exec_{number}.*"):
            os.utime(file, (number, number))
    assert (tmp_path / "exec_4.stdout").exists()
    assert not (tmp_path / "exec_0.stdout").exists()
    assert len(list(tmp_path.iterdir())) <= 6
