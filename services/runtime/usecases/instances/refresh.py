"""Bring a copy up to date with what it was copied from: its snapshots, and of its root what differs."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field, replace
from typing import Any

from core.errors import NotFound
from core.operations.operation import Context, Operation
from core.records import Instance, Snapshot
from core.state import keys
from core.state.store import Txn
from services.runtime.domain import snapshots as rules
from services.runtime.domain.expand import root_of
from services.runtime.usecases.claims import Claims
from services.runtime.usecases.host import Host
from services.runtime.usecases.instances.copy import Copies, Origin
from services.runtime.usecases.instances.refreshing import Refreshing
from services.runtime.usecases.instances.still import Stillness

KIND = "instance.refresh"


@dataclass
class _Plan:
    """What is done to the snapshots of the copy; decided anew at each try to record it."""

    remove: list[str] = field(default_factory=list)
    clone: dict[str, str] = field(default_factory=dict)


class Refresh(Refreshing):
    def __init__(self, host: Host, claims: Claims, copies: Copies, still: Stillness) -> None:
        super().__init__(host, claims, KIND, new="clone")
        self._copies = copies
        self._still = still

    async def accept(self, project: str, name: str, origin: Origin, *, instance_only: bool) -> Operation:
        """Raises: NotFound, WrongState when the copy runs, Busy."""
        source, snapshot = self._copies.find(origin)
        input: dict[str, Any] = {"source": source.id, "source_snapshot": snapshot.id if snapshot else ""}

        def change() -> Txn:
            target = self._store.instance(project, name)
            txn = Txn().unchanged(keys.instance(project, name), target.revision)
            txn.exists(keys.instance(source.project, source.name))
            plan = _Plan()
            if not (instance_only or snapshot):
                plan = self._planned(txn, source, target.record)
            input.update(remove=plan.remove, clone=plan.clone)
            return txn

        return await self._claims.accept(KIND, "refresh", project, name, change=change, input=input)

    def _planned(self, txn: Txn, source: Instance, target: Instance) -> _Plan:
        wanted = self._store.whole_snapshots(source)
        has = (entry.record for entry in self._store.instance_snapshots(target))
        plan, there, here = _Plan(), {_same(each) for each in wanted}, {_same(each) for each in has}
        for snapshot in wanted:
            if _same(snapshot) not in here:
                copy = rules.of_copy(snapshot, target, str(uuid.uuid4()))
                plan.clone[copy.id] = snapshot.id
                txn.put(keys.snapshot(target.id, copy.name), copy)
        plan.remove = self._forget(txn, target, lambda snapshot: _same(snapshot) in there)
        return plan

    # --- steps -----------------------------------------------------------------------------------

    async def _snapshots(self, ctx: Context) -> None:
        await super()._snapshots(ctx)
        target, _ = self._claims.of(ctx)
        source, driver = self._source(ctx), self._host.driver_of(target.pool)
        for new, old in ctx.input["clone"].items():
            async with self._still.of_snapshot(source, old):
                await driver.clone_volume(target.pool, new, self._host.volume_of(replace(source, id=old)))

    async def _root(self, ctx: Context) -> None:
        target, _ = self._claims.of(ctx)
        source, snapshot = self._source(ctx), ctx.input["source_snapshot"]
        folder = self._host.volume_of(replace(source, id=snapshot or source.id))
        size = root_of(self._host.expanded(target).devices).size
        still = self._still
        async with still.of_snapshot(source, snapshot) if snapshot else still.of(source, target.pool):
            driver = self._host.driver_of(target.pool)
            await driver.refresh_volume(target.pool, target.id, folder, size=size)
        was = self._was(source, snapshot)
        ctx.scratch["target"] = replace(
            target, image=was.image, base_dir=was.base_dir, base_shift=was.base_shift
        )
        await self._host.seed(ctx.scratch["target"], await self._host.lower(ctx.scratch["target"]))

    def _was(self, source: Instance, snapshot_id: str) -> Instance:
        for snapshot in self._store.whole_snapshots(source):
            if snapshot.id == snapshot_id:
                return snapshot.instance
        return source

    async def _settle(self, ctx: Context) -> None:
        target = ctx.scratch["target"]
        ctx.txn.put(keys.instance(target.project, target.name), target)
        await super()._settle(ctx)

    def _source(self, ctx: Context) -> Instance:
        if found := self._store.find_instance(ctx.input["source"]):
            return found
        raise NotFound("NO_INSTANCE", "The source instance was deleted meanwhile", about=ctx.input["name"])


def _same(snapshot: Snapshot) -> tuple[str, float]:
    return snapshot.name, snapshot.created_at
