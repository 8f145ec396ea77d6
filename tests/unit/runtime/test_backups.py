"""Backups on a host without a kernel: names, expiry, and files that follow their records."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from core.compression import Compression
from core.errors import AlreadyExists, Forbidden, Invalid, NotFound
from core.operations.operation import FAILED, SUCCEEDED, Operation
from core.records import Instance
from core.state import keys
from core.state.store import Txn
from services.runtime.usecases.policy import Policy
from services.runtime.usecases.transfers.backups import Backups, WantedBackup
from tests.unit.runtime.conftest import MEMBER, World


class Archives:
    """Writes who it is of; fails when told to."""

    fails = False

    async def write(
        self, instance: Instance, target: int, compression: Compression, *, instance_only: bool
    ) -> None:
        if self.fails:
            raise NotFound("GONE", "What was to be packed is gone")
        os.write(target, instance.name.encode())


@dataclass
class Shelf:
    world: World
    backups: Backups
    archives: Archives
    folder: Path

    async def make(self, name: str = "", **wanted: Any) -> Operation:
        operation = await self.backups.create("default", "web", WantedBackup(name, **wanted))
        return await self.world.done(operation)

    def names(self) -> list[str]:
        return [backup.name for backup in self.backups.list("default", "web")]

    async def files(self) -> list[str]:
        await asyncio.sleep(0.6)
        return sorted(path.name for path in self.folder.iterdir())


@pytest.fixture
async def shelf(world: World, tmp_path: Path) -> Any:
    await world.made()
    archives: Any = Archives()
    folder = tmp_path / "backups"
    backups = Backups(world.host, Policy(world.host, MEMBER), archives, world.runner, folder)
    await backups.start()
    yield Shelf(world, backups, archives, folder)
    await backups.stop()


async def test_names_are_counted_and_taken_once(shelf: Shelf) -> None:
    """As LXD counts: backup0, backup1; a name that is there is refused."""
    assert (await shelf.make()).resources["backups"] == ("backup0",)
    await shelf.make("mine")
    await shelf.make()

    assert shelf.names() == ["backup0", "backup1", "mine"]
    with pytest.raises(AlreadyExists, match='Backup "web/mine" already exists'):
        await shelf.make("mine")
    for name in ("a/b", "..", "x" * 256, "a\nb"):
        with pytest.raises(Invalid):
            await shelf.make(name)


async def test_a_backup_that_fails_leaves_neither_record_nor_file(shelf: Shelf) -> None:
    """Its name is free again at once."""
    shelf.archives.fails = True

    assert (await shelf.make("mine")).state == FAILED

    assert (shelf.names(), await shelf.files()) == ([], [])
    shelf.archives.fails = False
    assert (await shelf.make("mine")).state == SUCCEEDED


async def test_a_renamed_backup_keeps_its_file(shelf: Shelf) -> None:
    """Files are named by ids, so a rename is one write."""
    await shelf.make("old")
    before = await shelf.files()

    await shelf.world.done(await shelf.backups.rename("default", "web", "old", "new"))

    assert (shelf.names(), await shelf.files()) == (["new"], before)
    _, found = shelf.backups.find("default", "web", "new")
    assert [chunk async for chunk in shelf.backups.read(found.record)] == [b"web"]


async def test_backups_go_with_their_instance(shelf: Shelf) -> None:
    """The deletion takes their records; the files follow."""
    await shelf.make()
    await shelf.world.done(await shelf.world.changes.delete("default", "web"))

    assert not shelf.world.host.store.backups.entries()
    assert await shelf.files() == []


async def test_what_has_expired_or_has_no_record_is_removed(shelf: Shelf) -> None:
    """At every start, and while it runs; a restart need not know what died when."""
    await shelf.make("old", expires_at=1.0)
    await shelf.make("kept", expires_at=1e11)
    (shelf.folder / "0000.partial").write_bytes(b"")

    await shelf.backups.stop()
    await shelf.backups.start()

    assert len(await shelf.files()) == 1
    assert shelf.names() == ["kept"]


async def test_a_restricted_project_may_forbid_backups(shelf: Shelf) -> None:
    """An archive carries data out of a project, so restricted ones have none unless they are allowed."""
    store = shelf.world.host.store
    entry = store.projects.get(keys.project("default"))
    assert entry
    config = {"restricted": "true"}
    await store.commit(Txn().put(keys.project("default"), replace(entry.record, config=config)))
    await store.projects.catch_up((await store.list(keys.PROJECTS)).revision)

    with pytest.raises(Forbidden):
        await shelf.make()
