"""Snapshots of an instance: take, change, rename and delete. Each has the instance to itself meanwhile."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from core.configkeys.instance import INSTANCE
from core.errors import AlreadyExists, Invalid, NotFound, WrongState
from core.operations.operation import Context, Operation, Step, Story
from core.records import Instance, Snapshot
from core.state import keys
from core.state.repository import Entry
from core.state.store import Txn
from services.runtime.domain import snapshots as rules
from services.runtime.domain.lifecycle import UP
from services.runtime.usecases.claims import Claims
from services.runtime.usecases.host import Host
from services.runtime.usecases.instances.still import Stillness
from services.runtime.usecases.policy import Policy

TAKE, _UPDATE, _RENAME, _DELETE = (f"snapshot.{verb}" for verb in ("create", "update", "rename", "delete"))
_EVENT = "snapshot"


@dataclass(frozen=True)
class WantedSnapshot:
    """name "": as the pattern says. expires_at None: as snapshots.expiry says; 0.0: never.

    scheduled_for: the minute for which a schedule wants it; one that was taken for it is enough.
    """

    name: str = ""
    expires_at: float | None = None
    stateful: bool = False
    scheduled_for: float = 0.0


class Snapshots:
    def __init__(self, host: Host, policy: Policy, claims: Claims, still: Stillness) -> None:
        self._policy = policy
        self._host = host
        self._store = host.store
        self._claims = claims
        self._still = still
        claims.runner.register(
            Story(
                TAKE,
                "Snapshotting instance",
                (Step("clone", self._clone, self._remove_volume),),
                on_failure=self._forget,
            ),
            Story(
                _UPDATE,
                "Updating snapshot",
                (Step("settle", self._settle_update),),
                on_failure=self._as_before,
            ),
            Story(
                _RENAME,
                "Renaming snapshot",
                (Step("settle", self._settle_rename),),
                on_failure=self._as_before,
            ),
            Story(_DELETE, "Deleting snapshot", (Step("remove", self._remove),), on_failure=self._as_before),
        )

    async def take(self, project: str, name: str, wanted: WantedSnapshot) -> Operation:
        """Raises: NotFound, AlreadyExists, Invalid, WrongState, Busy."""
        if wanted.stateful:
            raise await self._no_state(self._store.instance(project, name).record)
        id = str(uuid.uuid4())

        def record() -> Txn:
            self._policy.check_snapshots(project)
            instance = self._store.instance(project, name)
            snapshot = self._decided(id, instance.record, wanted)
            key = keys.snapshot(instance.record.id, snapshot.name)
            return (
                Txn()
                .unchanged(keys.instance(project, name), instance.revision)
                .absent(key)
                .put(key, snapshot)
            )

        return await self._accept(TAKE, project, name, id, record)

    async def _no_state(self, instance: Instance) -> WrongState:
        """Return why the state of its processes cannot be kept, in LXD's words."""
        is_up = self._store.observed_of(instance).record.status in UP
        why = await self._host.checkpoints.obstacle() if is_up else "The instance isn't running"
        return WrongState("NO_STATE", f"Unable to create a stateful snapshot. {why}", about=instance.name)

    def _decided(self, id: str, instance: Instance, wanted: WantedSnapshot) -> Snapshot:
        now, config = datetime.now().astimezone(), self._host.expanded(instance).config
        before = [entry.record for entry in self._store.instance_snapshots(instance)]
        if wanted.scheduled_for and any(s.scheduled_for >= wanted.scheduled_for for s in before):
            raise AlreadyExists("TAKEN", "The scheduled snapshot was taken already", about=instance.name)
        taken = {snapshot.name for snapshot in before}
        name = wanted.name or rules.next_name(INSTANCE.get(config, "snapshots.pattern"), taken, now)
        try:
            rules.snapshot_name(name)
        except Invalid as exc:
            raise Invalid(exc.reason, _failed(name, exc.message), about=name) from None
        if name in taken:
            why = 'Add snapshot info to the database: This "instances_snapshots" entry already exists'
            raise AlreadyExists("EXISTS", _failed(name, why), about=name)
        expires_at = wanted.expires_at
        if expires_at is None:
            after = rules.expiry(config.get("snapshots.expiry", ""), now)
            expires_at = after.timestamp() if after else 0.0
        observed = self._store.observed_of(instance).record
        return Snapshot(
            id=id,
            instance_id=instance.id,
            name=name,
            instance=instance,
            volatile=observed.volatile,
            created_at=time.time(),
            expires_at=expires_at,
            last_used_at=observed.last_used_at,
            scheduled_for=wanted.scheduled_for,
        )

    async def update(
        self, project: str, name: str, snapshot: str, expires_at: float | None, *, expected_revision: int = 0
    ) -> Operation:
        """Change when it expires; None keeps that. Raises: NotFound, Stale, Busy."""

        def new(old: Entry[Snapshot]) -> Snapshot:
            old.expect(expected_revision, "snapshot", snapshot)
            kept = old.record.expires_at if expires_at is None else expires_at
            return replace(old.record, expires_at=kept)

        return await self._change(_UPDATE, project, name, snapshot, new)

    async def rename(self, project: str, name: str, snapshot: str, new_name: str) -> Operation:
        """Raises: NotFound, AlreadyExists, Invalid, Busy."""
        rules.snapshot_name(new_name)

        def new(old: Entry[Snapshot]) -> Snapshot:
            if self._store.snapshots.get(keys.snapshot(old.record.instance_id, new_name)):
                raise AlreadyExists("EXISTS", f"Name '{name}/{new_name}' already in use", about=new_name)
            return replace(old.record, name=new_name)

        return await self._change(_RENAME, project, name, snapshot, new)

    async def delete(self, project: str, name: str, snapshot: str) -> Operation:
        """Raises: NotFound, Busy."""
        return await self._change(
            _DELETE, project, name, snapshot, lambda old: replace(old.record, status="Deleting")
        )

    async def _change(
        self,
        kind: str,
        project: str,
        name: str,
        snapshot: str,
        new: Callable[[Entry[Snapshot]], Snapshot],
    ) -> Operation:
        found = self._store.snapshot(self._store.instance(project, name).record, snapshot)

        def record() -> Txn:
            instance = self._store.instance(project, name).record
            old = self._store.snapshot(instance, snapshot)
            changed = new(old)
            old_key, key = (keys.snapshot(instance.id, each.name) for each in (old.record, changed))
            txn = Txn().exists(keys.instance(project, name)).unchanged(old_key, old.revision)
            if key != old_key:
                txn.absent(key).delete(old_key)
            return txn.put(key, changed)

        return await self._accept(kind, project, name, found.record.id, record, was=found.record)

    async def _accept(
        self,
        kind: str,
        project: str,
        name: str,
        id: str,
        record: Callable[[], Txn],
        was: Snapshot | None = None,
    ) -> Operation:
        input = {"snapshot": id}
        if was:
            input |= {"old_name": was.name, "old_expires_at": str(was.expires_at)}
        return await self._claims.accept(kind, _EVENT, project, name, change=record, input=input)

    # --- steps -----------------------------------------------------------------------------------

    async def _clone(self, ctx: Context) -> None:
        instance, _ = self._claims.of(ctx)
        snapshot = self._of(ctx)
        async with self._still.of(instance, instance.pool):
            driver, source = self._host.driver_of(instance.pool), self._host.volume_of(instance)
            await driver.clone_volume(instance.pool, snapshot.id, source)
        self._settle(ctx, replace(snapshot, status="Created"), "instance-snapshot-created")

    async def _remove_volume(self, ctx: Context) -> None:
        instance, _ = self._claims.of(ctx)
        await self._host.remove_volume(instance.pool, ctx.input["snapshot"])

    async def _settle_update(self, ctx: Context) -> None:
        self._settle(ctx, self._of(ctx), "instance-snapshot-updated")

    async def _settle_rename(self, ctx: Context) -> None:
        old_name = f"{ctx.input['name']}/{ctx.input['old_name']}"
        self._settle(ctx, self._of(ctx), "instance-snapshot-renamed", old_name=old_name)

    async def _remove(self, ctx: Context) -> None:
        instance, observed = self._claims.of(ctx)
        snapshot = self._of(ctx)
        await self._host.remove_snapshot(snapshot)
        self._claims.settle(ctx, ctx.txn, observed)
        ctx.txn.delete(keys.snapshot(instance.id, snapshot.name))
        ctx.txn.emit(ctx.event("instance-snapshot-deleted", "instances", _url(instance, snapshot)))

    def _settle(self, ctx: Context, snapshot: Snapshot, action: str, **context: str) -> None:
        instance, observed = self._claims.of(ctx)
        self._claims.settle(ctx, ctx.txn, observed)
        ctx.txn.put(keys.snapshot(instance.id, snapshot.name), snapshot)
        ctx.txn.emit(ctx.event(action, "instances", _url(instance, snapshot), **context))

    async def _forget(self, ctx: Context) -> None:
        instance, observed = self._claims.of(ctx)
        self._claims.settle(ctx, ctx.undo_txn, observed)
        ctx.undo_txn.delete(keys.snapshot(instance.id, self._of(ctx).name))

    async def _as_before(self, ctx: Context) -> None:
        """A change failed: put back the record. One whose deletion failed may be broken, and stays so."""
        instance, observed = self._claims.of(ctx)
        self._claims.settle(ctx, ctx.undo_txn, observed)
        new = self._of(ctx)
        old = replace(new, name=ctx.input["old_name"], expires_at=float(ctx.input["old_expires_at"]))
        if old.name != new.name:
            ctx.undo_txn.delete(keys.snapshot(instance.id, new.name))
        ctx.undo_txn.put(keys.snapshot(instance.id, old.name), old)

    def _of(self, ctx: Context) -> Snapshot:
        """Return the snapshot an operation is about, whatever it is called by now."""
        for entry in self._store.snapshots.below(keys.snapshots(ctx.input["id"])):
            if entry.record.id == ctx.input["snapshot"]:
                return entry.record
        raise NotFound("NO_SNAPSHOT", "The snapshot is gone", about=ctx.input["name"])


def _failed(name: str, why: str) -> str:
    return f'Failed creating instance snapshot record "{name}": {why}'


def _url(instance: Instance, snapshot: Snapshot) -> str:
    return f"{instance.name}/snapshots/{snapshot.name}"
