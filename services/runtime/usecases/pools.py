"""Storage pools: create, change, delete, and who uses them."""

from __future__ import annotations

from dataclasses import replace

from core.configkeys.others import POOL
from core.configkeys.schema import without_empty
from core.errors import AlreadyExists, Invalid, PodiumError, Stale, WrongState
from core.events import Event
from core.names import pool_name
from core.records import Pool
from core.rpc.identity import current_identity
from core.state import keys
from core.state.repository import Entry
from core.state.store import Txn
from services.runtime.usecases.host import Host


def _event(action: str, name: str) -> Event:
    return Event(action, "storage-pools", "default", name, current_identity().as_dict())


class Pools:
    def __init__(self, host: Host, member: str) -> None:
        self._host = host
        self._store = host.store
        self._member = member

    async def create(self, wanted: Pool) -> Entry[Pool]:
        """Record as Pending, make, record as Created; take everything back when that fails."""
        pool_name(wanted.name)
        driver = self._host.driver(wanted.driver)
        config = without_empty(wanted.config)
        POOL.check(config)
        pool = replace(wanted, config=config, status="Pending", member=self._member)
        key = keys.pool(pool.name)
        try:
            await self._store.commit(Txn().absent(key).put(key, pool))
        except Stale as exc:
            raise AlreadyExists("EXISTS", "The storage pool already exists", about=pool.name) from exc
        try:
            made = await driver.create_pool(pool.name, config)
        except PodiumError:
            await self._store.commit(Txn().delete(key))
            raise
        return await self._save(replace(pool, config=made, status="Created"), "storage-pool-created")

    async def update(
        self, name: str, config: dict[str, str], description: str, *, merge: bool, expected_revision: int
    ) -> Entry[Pool]:
        entry = self._store.pool(name)
        if expected_revision and entry.revision != expected_revision:
            raise Stale("STALE", "The storage pool was changed meanwhile; read it again", about=name)
        old = entry.record
        new = without_empty({**old.config, **config} if merge else config)
        POOL.check(new)
        for fixed in ("source", "size"):
            if new.setdefault(fixed, old.config.get(fixed, "")) != old.config.get(fixed, ""):
                raise Invalid("FIXED", f"{fixed} cannot be changed", about=fixed)
        text = (description or old.description) if merge else description
        return await self._save(
            replace(old, config=without_empty(new), description=text), "storage-pool-updated"
        )

    async def delete(self, name: str) -> None:
        pool = self._store.pool(name).record
        if self.users(name):
            raise WrongState("POOL_IN_USE", "The storage pool is currently in use", about=name)
        key = keys.pool(name)
        seen = self._store.instances.revision
        txn = Txn().exists(key).prefix_unchanged(keys.INSTANCES, seen).delete(key)
        await self._store.commit(txn.emit(_event("storage-pool-deleted", name)))
        await self._host.driver(pool.driver).delete_pool(name, pool.config)

    def users(self, name: str) -> list[str]:
        found = [
            ("instances", e.record.project, e.record.name)
            for e in self._store.instances.entries()
            if e.record.pool == name
        ]
        for entry in self._store.profiles.entries():
            if any(d.get("pool") == name for d in entry.record.devices.values()):
                found.append(("profiles", entry.record.project, entry.record.name))
        return [f"{kind}/{n}" + ("" if p == "default" else f"?project={p}") for kind, p, n in found]

    async def _save(self, pool: Pool, action: str) -> Entry[Pool]:
        key = keys.pool(pool.name)
        revision = await self._store.commit(Txn().exists(key).put(key, pool).emit(_event(action, pool.name)))
        return Entry(pool, revision)
