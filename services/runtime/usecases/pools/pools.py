"""Storage pools: create, change, delete, and who uses them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from urllib.parse import quote

from core.configkeys.schema import without_empty
from core.configkeys.storage import check_pool
from core.errors import AlreadyExists, Invalid, PodiumError, Stale, WrongState
from core.events import Event
from core.failpoints import declare, failpoint
from core.logs import get_logger
from core.names import pool_name
from core.operations.runner import Runner
from core.records import PASSING, Pool
from core.rpc.identity import current_identity
from core.state import keys
from core.state.repository import Entry
from core.state.store import Txn
from services.runtime.domain.volumes import has_images, url
from services.runtime.usecases.host import Host

log = get_logger(__name__)
_ENDING_S = 2.0
_POINTS = ("pool.create.recorded", "pool.create.made", "pool.delete.recorded", "pool.delete.gone")


def _event(action: str, name: str) -> Event:
    return Event(action, "storage-pools", "default", name, current_identity().as_dict())


class Pools:
    def __init__(self, host: Host, runner: Runner, member: str) -> None:
        self._host = host
        self._runner = runner
        self._store = host.store
        self._member = member
        # Whatever is half-made while this is free was left by a crash.
        self._changing = asyncio.Lock()
        declare(*_POINTS)

    async def create(self, wanted: Pool) -> Entry[Pool]:
        """Record as Pending, make, record as Created; take everything back when that fails."""
        async with self._changing:
            return await self._create(wanted)

    async def _create(self, wanted: Pool) -> Entry[Pool]:
        pool_name(wanted.name)
        if not wanted.driver:
            raise Invalid("NO_DRIVER", "No driver provided")
        driver = self._host.driver(wanted.driver)
        check_pool(wanted.driver, wanted.config)
        config = without_empty(wanted.config)
        pool = replace(wanted, config=config, status="Pending", member=self._member)
        key = keys.pool(pool.name)
        if self._store.pools.get(key) is None:
            await driver.check_pool(pool.name, config)
        try:
            await self._store.commit(Txn().absent(key).put(key, pool))
        except Stale as exc:
            raise AlreadyExists(
                "EXISTS", "The storage pool already exists: The record already exists", about=pool.name
            ) from exc
        try:
            failpoint("pool.create.recorded")
            made = await driver.create_pool(pool.name, config)
            failpoint("pool.create.made")
        except (PodiumError, OSError) as exc:
            await self._take_back(pool)
            if isinstance(exc, PodiumError):
                raise
            raise WrongState("STORAGE_FAILED", f"The pool could not be made: {exc}", about=pool.name) from exc
        return await self._save(replace(pool, config=made, status="Created"), "storage-pool-created")

    async def open_all(self) -> None:
        """Mount pools again, as after a reboot; take back half-made and finish half-deleted ones."""
        async with self._changing:
            for pool in filter(self._store.pools.is_ours, self._store.pools.recorded()):
                await (self._take_back if pool.status in PASSING else self._open)(pool)

    async def _open(self, pool: Pool) -> None:
        error = ""
        try:
            await self._host.driver(pool.driver).ensure_open(pool.name, pool.config)
        except (PodiumError, OSError) as exc:
            error = str(exc)
            log.error("pool_not_open", pool=pool.name, error=error)
        new = replace(pool, status="Errored" if error else "Created", error=error)
        if new != self._store.pool(pool.name).record:
            await self._store.commit(Txn().put(keys.pool(pool.name), new))

    async def _take_back(self, pool: Pool) -> None:
        """Remove what there is of a pool that never was, or is to go; one that resists keeps its record."""
        driver = self._host.driver(pool.driver)
        undo = driver.undo_create if pool.status == "Pending" else driver.delete_pool
        try:
            await undo(pool.name, pool.config)
            await self._store.commit(Txn().delete(keys.pool(pool.name)))
        except (PodiumError, OSError) as exc:
            log.error("pool_not_taken_back", pool=pool.name, error=str(exc))

    async def update(
        self, name: str, config: dict[str, str], description: str, *, merge: bool, expected_revision: int
    ) -> Entry[Pool]:
        self._require_own(name)
        async with self._changing:
            return await self._update(name, config, description, merge, expected_revision)

    async def _update(
        self, name: str, config: dict[str, str], description: str, merge: bool, expected_revision: int
    ) -> Entry[Pool]:
        entry = self._store.pool(name)
        entry.expect(expected_revision, "storage pool", name)
        old = entry.record
        new = {**old.config, **config} if merge else dict(config)
        check_pool(old.driver, new)
        if new.get("source") != old.config.get("source"):
            raise Invalid("FIXED", "Pool source cannot be changed when not in pending state", about="source")
        new.setdefault("size", old.config.get("size", ""))
        new, driver = without_empty(new), self._host.driver(old.driver)
        await driver.change_pool(name, old.config, new)
        text = (description or old.description) if merge else description
        return await self._save(replace(old, config=new, description=text), "storage-pool-updated")

    async def delete(self, name: str) -> None:
        self._require_own(name)
        async with self._changing:
            await self._delete(name)

    def _require_own(self, name: str) -> None:
        """Its maker changes it, and the gateway asks that one. Raises: WrongState."""
        self._store.pool(name)
        if not self._store.pools.is_made_here(name):
            raise WrongState("ELSEWHERE", f"Storage pool {name!r} is changed by its own member", about=name)

    async def _delete(self, name: str) -> None:
        """Record that it goes, remove it, forget it: so a crash in between leaves a name to finish by."""
        old = self._store.pool(name).record
        await self._runner.caught_up(_ENDING_S)  # who heard that the last user is gone may be faster than we
        if any(not user.startswith("images/") for user in self.users(name)):
            raise WrongState("POOL_IN_USE", "The storage pool is currently in use", about=name)
        key, seen = keys.pool(name), self._store.instances.revision
        going = old if old.status == "Pending" else replace(old, status="Deleting")
        txn = Txn().exists(key).prefix_unchanged(keys.INSTANCES, seen)
        txn.prefix_unchanged(keys.volumes(name), self._store.volumes.revision)
        await self._store.commit(txn.put(key, going))
        driver = self._host.driver(old.driver)
        try:
            failpoint("pool.delete.recorded")
            await (driver.undo_create if old.status == "Pending" else driver.delete_pool)(name, old.config)
            failpoint("pool.delete.gone")
        except (PodiumError, OSError) as exc:
            await self._open(old)
            if isinstance(exc, PodiumError):
                raise
            raise WrongState("STORAGE_FAILED", f"The pool could not be deleted: {exc}", about=name) from exc
        await self._store.commit(Txn().delete(key).emit(_event("storage-pool-deleted", name)))

    def users(self, name: str) -> list[str]:
        """Return URLs below /1.0: images, instances, profiles, custom volumes and their snapshots."""
        instances = [e.record for e in self._store.instances.entries() if e.record.pool == name]
        images = (
            sorted({i.image for i in instances} - {""}) if has_images(self._store.pool(name).record) else []
        )
        found = [url("images", image, "default") for image in images]
        found += [url("instances", i.name, i.project) for i in instances]
        for instance in instances:
            for taken in self._store.whole_snapshots(instance):
                of = f"instances/{instance.name}/snapshots"
                found.append(url(of, quote(taken.name), instance.project))
        for profile in self._store.profiles.entries():
            if any(d.get("pool") == name for d in profile.record.devices.values()):
                found.append(url("profiles", profile.record.name, profile.record.project))
        for volume in (e.record for e in self._store.volumes.entries(keys.volumes(name))):
            kind = f"storage-pools/{quote(name)}/volumes/custom"
            found.append(url(kind, quote(volume.name), volume.project))
            for snapshot in self._store.snapshots_of_volume(volume):
                of = f"{kind}/{quote(volume.name)}/snapshots"
                found.append(url(of, quote(snapshot.record.name), volume.project))
        return sorted(found)

    async def _save(self, pool: Pool, action: str) -> Entry[Pool]:
        key = keys.pool(pool.name)
        revision = await self._store.commit(Txn().exists(key).put(key, pool).emit(_event(action, pool.name)))
        return Entry(pool, revision)
