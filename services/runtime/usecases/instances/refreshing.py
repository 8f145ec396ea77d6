"""What refresh and renew have in common: an instance is brought up to date, snapshots and all.

Those snapshots are the same that have the same name and were taken at the same time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace

from core.operations.operation import Context, Step, Story
from core.records import Instance, Snapshot
from core.state import keys
from core.state.store import Txn
from services.runtime.usecases.claims import Claims
from services.runtime.usecases.host import Host


class Refreshing(ABC):
    """*new*: where its operations keep the ids of the snapshots that they add; "remove" has those that go."""

    def __init__(self, host: Host, claims: Claims, kind: str, *, new: str) -> None:
        self._host = host
        self._store = host.store
        self._claims = claims
        self._new = new
        claims.runner.register(
            Story(
                kind,
                "Creating instance",
                (
                    Step("snapshots", self._snapshots, self._remove_new),
                    Step("root", self._root),
                    Step("settle", self._settle),
                ),
                on_failure=self._as_before,
            )
        )

    def is_possible(self, project: str, name: str) -> bool:
        """Say whether there is one already."""
        return self._store.instances.get(keys.instance(project, name)) is not None

    def _forget(self, txn: Txn, target: Instance, is_there: Callable[[Snapshot], bool]) -> list[str]:
        """Put into *txn* that the snapshots go which the source has not; return their ids."""
        gone = [s for e in self._store.instance_snapshots(target) if not is_there(s := e.record)]
        for snapshot in gone:
            if (key := keys.snapshot(target.id, snapshot.name)) not in txn.puts:
                txn.delete(key)
        return [snapshot.id for snapshot in gone]

    @abstractmethod
    async def _root(self, ctx: Context) -> None:
        """Bring the root up to date."""

    async def _snapshots(self, ctx: Context) -> None:
        """Remove those that the source has not."""
        target, _ = self._claims.of(ctx)
        for id in ctx.input["remove"]:
            await self._host.remove_volume(target.pool, id)

    async def _remove_new(self, ctx: Context) -> None:
        target, _ = self._claims.of(ctx)
        for id in ctx.input[self._new]:
            await self._host.remove_volume(target.pool, id)

    async def _settle(self, ctx: Context) -> None:
        target, observed = self._claims.of(ctx)
        for snapshot in self._pending(ctx):
            ctx.txn.put(keys.snapshot(target.id, snapshot.name), replace(snapshot, status="Created"))
        self._claims.settle(ctx, ctx.txn, observed)
        ctx.txn.emit(ctx.event("instance-updated", "instances", target.name))

    async def _as_before(self, ctx: Context) -> None:
        """Record no snapshot that is not whole."""
        target, observed = self._claims.of(ctx)
        for snapshot in self._pending(ctx):
            ctx.undo_txn.delete(keys.snapshot(target.id, snapshot.name))
        self._claims.settle(ctx, ctx.undo_txn, observed)

    def _pending(self, ctx: Context) -> list[Snapshot]:
        target, _ = self._claims.of(ctx)
        found = (entry.record for entry in self._store.instance_snapshots(target))
        return [snapshot for snapshot in found if snapshot.id in ctx.input[self._new]]
