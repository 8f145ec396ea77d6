"""Bring an instance up to date with another server's, that has arrived: its root, and its snapshots.

Its configuration stays; clients that want another one write it afterwards, as LXD's do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from core.errors import WrongState
from core.operations.operation import Context, Operation, Step, Story
from core.records import Instance, Snapshot
from core.state import keys
from core.state.store import Txn
from services.runtime.domain import arrivals
from services.runtime.domain.arrivals import Arrived
from services.runtime.domain.offers import is_same, missing
from services.runtime.usecases.claims import Claims
from services.runtime.usecases.host import Host
from services.runtime.usecases.policy import Policy

KIND = "instance.renew"


@dataclass(frozen=True)
class Staged:
    """Volumes that hold already what arrived: of the instance, and of its snapshots by name."""

    id: str
    snapshots: Mapping[str, str]


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

    async def accept(
        self, project: str, name: str, arrived: Arrived, staged: Staged, *, instance_only: bool
    ) -> Operation:
        """Raises: NotFound, Invalid, WrongState when it runs, Busy."""
        input: dict[str, Any] = {"staged": staged.id}

        def change() -> Txn:
            target = self._store.instance(project, name)
            txn = Txn().unchanged(keys.instance(project, name), target.revision)
            input.update(remove=[], make=[])
            if not instance_only:
                self._plan(txn, input, target.record, arrived, staged)
            return txn

        return await self._claims.accept(KIND, "refresh", project, name, change=change, input=input)

    def _plan(
        self, txn: Txn, input: dict[str, Any], target: Instance, arrived: Arrived, staged: Staged
    ) -> None:
        """Those are the same that have the same name and were taken at the same time.

        Raises: WrongState when one is gone from here that was not sent because it was here.
        """
        has = [entry.record for entry in self._store.instance_snapshots(target)]
        for entry in missing(arrived.snapshots, [(s.name, s.created_at) for s in has]):
            id = staged.snapshots.get(entry.name, "")
            if not id:
                why = "A snapshot was deleted while the instance was refreshed; try again"
                raise WrongState("NOT_STILL", why, about=target.name)
            new = arrivals.snapshot_of(entry, arrived.fingerprint, target, id, name=arrived.instance.name)
            self._policy.admit(Txn(), new.instance, replaces=target)
            txn.put(keys.snapshot(target.id, new.name), new)
            input["make"].append(new.id)
        for snapshot in has:
            if not any(is_same(snapshot.name, snapshot.created_at, entry) for entry in arrived.snapshots):
                input["remove"].append(snapshot.id)
                if (key := keys.snapshot(target.id, snapshot.name)) not in txn.puts:
                    txn.delete(key)

    # --- steps -----------------------------------------------------------------------------------

    async def _snapshots(self, ctx: Context) -> None:
        """Remove those that the source has not; the new ones are there already."""
        target, _ = self._claims.of(ctx)
        for id in ctx.input["remove"]:
            await self._host.remove_volume(target.pool, id)

    async def _remove_new(self, ctx: Context) -> None:
        target, _ = self._claims.of(ctx)
        for id in ctx.input["make"]:
            await self._host.remove_volume(target.pool, id)

    async def _root(self, ctx: Context) -> None:
        """Let the volume be the one that arrived, which goes: where it is gone, that was done before."""
        (target, _), staged = self._claims.of(ctx), ctx.input["staged"]
        driver = self._host.driver_of(target.pool)
        if staged in await driver.volumes(target.pool):
            size, folder = self._host.root_size(target), driver.volume(target.pool, staged)
            await driver.replace_volume(target.pool, target.id, folder, size=size)
            await self._host.remove_volume(target.pool, staged)
        await self._host.seed(target, await self._host.lower(target))

    async def _settle(self, ctx: Context) -> None:
        target, observed = self._claims.of(ctx)
        for snapshot in self._pending(ctx):
            ctx.txn.put(keys.snapshot(target.id, snapshot.name), replace(snapshot, status="Created"))
        self._claims.settle(ctx, ctx.txn, observed)
        ctx.txn.emit(ctx.event("instance-updated", "instances", target.name))

    async def _as_found(self, ctx: Context) -> None:
        """Leave the root as it is, the old or the new one, and record no snapshot that is not whole."""
        target, observed = self._claims.of(ctx)
        await self._host.remove_volume(target.pool, ctx.input["staged"])
        for snapshot in self._pending(ctx):
            ctx.undo_txn.delete(keys.snapshot(target.id, snapshot.name))
        self._claims.settle(ctx, ctx.undo_txn, observed)

    def _pending(self, ctx: Context) -> list[Snapshot]:
        target, _ = self._claims.of(ctx)
        found = (entry.record for entry in self._store.instance_snapshots(target))
        return [snapshot for snapshot in found if snapshot.id in ctx.input["make"]]
