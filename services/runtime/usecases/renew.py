"""Bring an instance up to date with another server's, whose archive has arrived: its root, and its snapshots.

Its configuration stays; clients that want another one write it afterwards, as LXD's do.
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

from core.operations.operation import Context, Operation, Step, Story
from core.records import Instance, Snapshot
from core.state import keys
from core.state.store import Txn
from services.runtime.domain import arrivals
from services.runtime.domain.arrivals import Arrived
from services.runtime.domain.expand import root_of
from services.runtime.usecases.claims import Claims
from services.runtime.usecases.host import Host
from services.runtime.usecases.policy import Policy

KIND = "instance.renew"


class Renewals:
    def __init__(self, host: Host, policy: Policy, claims: Claims) -> None:
        self._host = host
        self._store = host.store
        self._policy = policy
        self._claims = claims
        claims.runner.register(
            Story(
                KIND,
                "Creating instance",
                (
                    Step("snapshots", self._snapshots, self._remove_new),
                    Step("root", self._root),
                    Step("settle", self._settle),
                ),
                on_failure=self._as_found,
            )
        )

    def is_possible(self, project: str, name: str) -> bool:
        """Say whether there is one already."""
        return self._store.instances.get(keys.instance(project, name)) is not None

    async def accept(self, project: str, name: str, arrived: Arrived, *, instance_only: bool) -> Operation:
        """Raises: NotFound, Invalid, WrongState when it runs, Busy."""
        entry = arrived.instance
        base = {"image": arrived.fingerprint, "base_dir": entry.base_dir, "base_shift": entry.shift}
        input: dict[str, Any] = {"base": base}

        def change() -> Txn:
            target = self._store.instance(project, name)
            txn = Txn().unchanged(keys.instance(project, name), target.revision)
            input.update(remove=[], make=[])
            if not instance_only:
                self._plan(txn, input, target.record, arrived)
            return txn

        return await self._claims.accept(KIND, "refresh", project, name, change=change, input=input)

    def _plan(self, txn: Txn, input: dict[str, Any], target: Instance, arrived: Arrived) -> None:
        """Those are the same that have the same name and were taken at the same time."""
        has = [entry.record for entry in self._store.instance_snapshots(target)]
        here = {_same(snapshot.name, snapshot.created_at) for snapshot in has}
        there = {_same(entry.name, entry.created_at) for entry in arrived.snapshots}
        for entry in arrived.snapshots:
            if _same(entry.name, entry.created_at) not in here:
                new = arrivals.snapshot_of(
                    entry, arrived.fingerprint, target, str(uuid.uuid4()), name=arrived.instance.name
                )
                self._policy.admit(Txn(), new.instance, replaces=target)
                txn.put(keys.snapshot(target.id, new.name), new)
                input["make"].append(new.id)
        for snapshot in has:
            if _same(snapshot.name, snapshot.created_at) not in there:
                input["remove"].append(snapshot.id)
                if (key := keys.snapshot(target.id, snapshot.name)) not in txn.puts:
                    txn.delete(key)

    # --- steps -----------------------------------------------------------------------------------

    async def _snapshots(self, ctx: Context) -> None:
        target, _ = self._claims.of(ctx)
        await self._host.lower(self._renewed(ctx, target))
        for id in ctx.input["remove"]:
            await self._host.remove_volume(target.pool, id)
        for id in ctx.input["make"]:
            await self._host.driver_of(target.pool).ensure_volume(target.pool, id)

    async def _remove_new(self, ctx: Context) -> None:
        target, _ = self._claims.of(ctx)
        for id in ctx.input["make"]:
            await self._host.remove_volume(target.pool, id)

    async def _root(self, ctx: Context) -> None:
        """Put an empty layer in the place of the old one: all that there is now lies in the base."""
        target, _ = self._claims.of(ctx)
        driver, empty = self._host.driver_of(target.pool), str(uuid.uuid5(uuid.NAMESPACE_OID, target.id))
        try:
            source = await driver.ensure_volume(target.pool, empty)
            size = root_of(self._host.expanded(target).devices).size
            await driver.replace_volume(target.pool, target.id, source, size=size)
        finally:
            await self._host.remove_volume(target.pool, empty)
        renewed = ctx.scratch["renewed"] = self._renewed(ctx, target)
        await self._host.seed(renewed, await self._host.lower(renewed))

    async def _settle(self, ctx: Context) -> None:
        target, observed = self._claims.of(ctx)
        renewed: Instance = ctx.scratch["renewed"]
        if target.image != renewed.image:
            await self._host.drop_images({target.image}, {target.id, *ctx.input["remove"]})
        ctx.txn.put(keys.instance(renewed.project, renewed.name), renewed)
        for snapshot in self._pending(ctx):
            ctx.txn.put(keys.snapshot(renewed.id, snapshot.name), replace(snapshot, status="Created"))
        self._claims.settle(ctx, ctx.txn, observed)
        ctx.txn.emit(ctx.event("instance-updated", "instances", renewed.name))

    async def _as_found(self, ctx: Context) -> None:
        """Record what there is: the new root if it is in place, and no snapshot that is not whole."""
        target, observed = self._claims.of(ctx)
        for snapshot in self._pending(ctx):
            ctx.undo_txn.delete(keys.snapshot(target.id, snapshot.name))
        if renewed := ctx.scratch.get("renewed"):
            ctx.undo_txn.put(keys.instance(renewed.project, renewed.name), renewed)
        else:
            await self._host.drop_images({ctx.input["base"]["image"]}, set(ctx.input["make"]))
        self._claims.settle(ctx, ctx.undo_txn, observed)

    def _renewed(self, ctx: Context, target: Instance) -> Instance:
        return replace(target, **ctx.input["base"])

    def _pending(self, ctx: Context) -> list[Snapshot]:
        target, _ = self._claims.of(ctx)
        found = (entry.record for entry in self._store.instance_snapshots(target))
        return [snapshot for snapshot in found if snapshot.id in ctx.input["make"]]


def _same(name: str, created_at: float) -> tuple[str, int]:
    """Archives keep microseconds."""
    return name, round(created_at * 1000)
