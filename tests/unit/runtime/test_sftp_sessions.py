"""SFTP sessions look at one root, and end when it is not the instance's any more."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import Any

import pytest

from core.errors import LimitReached
from services.runtime.domain.target import Target
from services.runtime.kernel.patience import Descriptor
from services.runtime.sftp import wire
from services.runtime.usecases.inside import sftp
from services.runtime.usecases.inside.sftp import SftpSessions


class Session:
    def __init__(self) -> None:
        self.is_killed = self.is_closed = False

    def kill(self) -> None:
        self.is_killed = True

    async def close(self) -> None:
        self.is_closed = True


class Roots:
    @asynccontextmanager
    async def open(self, target: Target) -> Any:
        root = Descriptor(os.open("/", os.O_PATH))
        yield root
        root.close()


async def start(root: int, idmap: object) -> Session:
    return Session()


def sessions_of(world: Any) -> tuple[SftpSessions, Target]:
    made = SftpSessions(world.host.store, Roots(), start)  # type: ignore[arg-type]
    instance = world.host.store.instance("default", "web").record
    return made, Target(instance.id, "default", "web", world.status())


async def test_a_start_and_a_stop_end_it(world: Any) -> None:
    """What it showed is another root by then: of what runs, or of what does not any more."""
    await world.made()
    sessions, stopped = sessions_of(world)
    async with sessions.open(stopped) as session:
        await world.changed("start")
        assert session.is_killed
    assert session.is_closed

    sessions, running = sessions_of(world)
    async with sessions.open(running) as session:
        await world.changed("freeze")
        assert not session.is_killed
        await world.changed("stop", force=True)
        assert session.is_killed


async def test_a_deletion_ends_it(world: Any) -> None:
    """Its process would hold the file system of what is gone."""
    await world.made()
    sessions, target = sessions_of(world)
    async with sessions.open(target) as session:
        await world.done(await world.changes.delete("default", "web"))
        assert session.is_killed


async def test_sessions_have_a_bound(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is a process: of one instance, and of all."""
    await world.made()
    sessions, target = sessions_of(world)
    monkeypatch.setattr(sftp, "_MOST", 1)
    async with sessions.open(target):
        with pytest.raises(LimitReached):
            await sessions.open(target).__aenter__()
    monkeypatch.setattr(sftp, "_MOST_IN_ALL", 0)
    with pytest.raises(LimitReached):
        await sessions.open(target).__aenter__()


@pytest.mark.parametrize("at", [-(1 << 40), 0, 253402300800, 1 << 56, (1 << 63) - 1])
def test_a_file_of_any_time_can_be_listed(at: int) -> None:
    """A guest sets what it wants, and years beyond 9999 ended the session that listed its folder."""
    found = os.stat_result((0o100644, 1, 1, 1, 0, 0, 0, at, at, at))
    assert wire.name(b"odd", found).startswith(b"\0\0\0\x03odd")
