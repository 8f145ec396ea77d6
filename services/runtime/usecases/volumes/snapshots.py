"""Snapshots of custom volumes: take, change, rename, delete, and go back to one."""

from __future__ import annotations

import time
import uuid
from dataclasses import replace
from datetime import datetime

from core.errors import AlreadyExists, NotFound, WrongState
from core.events import Event
from core.names import volume_snapshot_name
from core.operations.operation import Context, Operation, Step, Story
from core.records import Volume, VolumeSnapshot
from core.state import codec, keys
from core.state.repository import Entry
from core.state.store import Txn
from services.runtime.domain.snapshots import expiry, next_name
from services.runtime.domain.volumes import VolumeRef, check_new_snapshot
from services.runtime.ports import VolumeKind
from services.runtime.usecases.host import Host
from services.runtime.usecases.policy import Policy
from services.runtime.usecases.volumes.claims import VolumeClaims, event, key_of
from services.runtime.usecases.volumes.custom import Volumes, bound_of

_CUSTOM = VolumeKind.CUSTOM
_PATTERN = "snap%d"


class VolumeSnapshots:
    def __init__(self, host: Host, policy: Policy, claims: VolumeClaims, volumes: Volumes) -> None:
        self._host = host
        self._policy = policy
        self._store = host.store
        self._claims = claims
        self._volumes = volumes
        claims.runner.register(
            Story("volumesnapshot.create", "Creating storage volume snapshot",
                  (Step("clone", self._clone, self._unclone),), on_failure=self._forget),
            Story("volumesnapshot.rename", "Renaming storage volume snapshot",
                  (Step("settle", self._renamed),), on_failure=self._as_before),
            Story("volumesnapshot.delete", "Deleting storage volume snapshot",
                  (Step("remove", self._remove),), on_failure=self._release),
            Story("volume.restore", "Restoring storage volume",
                  (Step("replace", self._replace),), on_failure=self._release),
        )  # fmt: skip

    async def take(self, ref: VolumeRef, *, expires_at: float | None, description: str = "") -> Operation:
        """Take ref.snapshot, or one named by the pattern of the volume.

        *expires_at* None: as snapshots.expiry says; 0.0: never.

        Raises: NotFound, AlreadyExists, Invalid, Busy.
        """
        return await self._volumes.again(lambda: self._take(ref, expires_at, description))

    async def _take(self, ref: VolumeRef, expires_at: float | None, description: str) -> Operation:
        entry = await self._free(ref)
        self._policy.check_snapshots(entry.record.project)
        volume, now = entry.record, datetime.now().astimezone()
        names = {snapshot.record.name for snapshot in self._store.snapshots_of_volume(volume)}
        name = ref.snapshot or next_name(volume.config.get("snapshots.pattern") or _PATTERN, names, now)
        check_new_snapshot(name)
        if name in names:
            raise taken(name)
        if expires_at is None:
            ends = expiry(volume.config.get("snapshots.expiry", ""), now)
            expires_at = ends.timestamp() if ends else 0.0
        record = VolumeSnapshot(
            id=str(uuid.uuid4()),
            volume_id=volume.id,
            name=name,
            description=description or volume.description,
            config=volume.config,
            created_at=time.time(),
            expires_at=expires_at,
            status="Pending",
        )
        key = keys.volume_snapshot(volume.id, name)
        return await self._accept("volumesnapshot.create", entry, name, Txn().absent(key).put(key, record))

    async def update(
        self, ref: VolumeRef, description: str | None, expires_at: float | None, *, revision: int
    ) -> None:
        """Change text and end; None keeps them. Raises: NotFound, Stale."""
        volume, entry = self._volumes.find(ref).record, self.find(ref)
        entry.expect(revision, "snapshot", ref.snapshot)
        old = entry.record
        new = replace(
            old,
            description=old.description if description is None else description,
            expires_at=old.expires_at if expires_at is None else expires_at,
        )
        key = keys.volume_snapshot(volume.id, old.name)
        txn = Txn().unchanged(key, entry.revision).put(key, new)
        await self._store.commit(txn.emit(_told("updated", volume, new)))

    async def rename(self, ref: VolumeRef, new_name: str) -> Operation:
        """Raises: NotFound, AlreadyExists, Invalid, Busy."""
        volume_snapshot_name(new_name)
        return await self._volumes.again(lambda: self._rename(ref, new_name))

    async def _rename(self, ref: VolumeRef, new_name: str) -> Operation:
        entry, old = await self._free(ref), self.find(ref)
        volume = entry.record
        before, after = (keys.volume_snapshot(volume.id, name) for name in (ref.snapshot, new_name))
        if self._store.volume_snapshots.get(after):
            raise AlreadyExists(
                "EXISTS", f"Storage volume snapshot {new_name!r} already exists", about=new_name
            )
        txn = Txn().unchanged(before, old.revision).absent(after).delete(before)
        txn.put(after, replace(old.record, name=new_name))
        return await self._accept(
            "volumesnapshot.rename", entry, new_name, txn, old=codec.encode(old.record).decode()
        )

    async def delete(self, ref: VolumeRef) -> Operation:
        """Raises: NotFound, Busy."""
        return await self._volumes.again(lambda: self._delete(ref))

    async def _delete(self, ref: VolumeRef) -> Operation:
        entry, old = await self._free(ref), self.find(ref)
        key = keys.volume_snapshot(entry.record.id, ref.snapshot)
        txn = Txn().unchanged(key, old.revision).put(key, replace(old.record, status="Deleting"))
        return await self._accept("volumesnapshot.delete", entry, ref.snapshot, txn)

    async def restore(self, ref: VolumeRef) -> Operation:
        """Let the volume hold what its snapshot does, and return the final record."""
        return await self._volumes.again(lambda: self._restore(ref))

    async def _restore(self, ref: VolumeRef) -> Operation:
        entry = await self._free(ref)
        if self._volumes.users(entry.record).running:
            raise WrongState(
                "IN_USE", "Cannot restore custom volume used by running instances", about=ref.name
            )
        self.find(ref)
        return await self._accept("volume.restore", entry, ref.snapshot, Txn(), wait=True)

    def find(self, ref: VolumeRef) -> Entry[VolumeSnapshot]:
        """Raises: NotFound."""
        volume = self._volumes.find(ref).record
        entry = self._store.volume_snapshots.get(keys.volume_snapshot(volume.id, ref.snapshot))
        if entry is None:
            raise NotFound("NO_SNAPSHOT", "Storage pool volume not found", about=ref.snapshot[:64])
        return entry

    async def _free(self, ref: VolumeRef) -> Entry[Volume]:
        return await self._claims.free(lambda: self._volumes.find(ref))

    async def _accept(
        self, kind: str, entry: Entry[Volume], name: str, txn: Txn, *, wait: bool = False, old: str = ""
    ) -> Operation:
        volume = entry.record
        txn.unchanged(key_of(volume), entry.revision)
        return await self._claims.accept(kind, volume, txn, input={"snapshot": name, "old": old}, wait=wait)

    # --- steps -----------------------------------------------------------------------------------

    def _of(self, ctx: Context) -> tuple[Volume, VolumeSnapshot]:
        volume = self._claims.of(ctx)
        entry = self._store.volume_snapshots.get(keys.volume_snapshot(volume.id, ctx.input["snapshot"]))
        if entry is None:
            raise NotFound("NO_SNAPSHOT", "Storage pool volume not found", about=ctx.input["snapshot"])
        return volume, entry.record

    async def _clone(self, ctx: Context) -> None:
        volume, snapshot = self._of(ctx)
        driver = self._host.driver_of(volume.pool)
        source = driver.volume(volume.pool, volume.id, _CUSTOM)
        await driver.clone_volume(volume.pool, snapshot.id, source, kind=_CUSTOM)
        key = keys.volume_snapshot(volume.id, snapshot.name)
        ctx.txn.put(key, replace(snapshot, status="Created"))
        self._claims.settle(ctx, ctx.txn, volume)
        ctx.txn.emit(_told("created", volume, snapshot, ctx))

    async def _unclone(self, ctx: Context) -> None:
        volume, snapshot = self._of(ctx)
        await self._host.driver_of(volume.pool).delete_volume(volume.pool, snapshot.id, kind=_CUSTOM)

    async def _forget(self, ctx: Context) -> None:
        volume, snapshot = self._of(ctx)
        ctx.undo_txn.delete(keys.volume_snapshot(volume.id, snapshot.name))
        self._claims.settle(ctx, ctx.undo_txn, volume)

    async def _renamed(self, ctx: Context) -> None:
        volume, snapshot = self._of(ctx)
        self._claims.settle(ctx, ctx.txn, volume)
        old_name = codec.decode(VolumeSnapshot, ctx.input["old"].encode()).name
        ctx.txn.emit(_told("renamed", volume, snapshot, ctx, old_name=old_name))

    async def _as_before(self, ctx: Context) -> None:
        volume = self._claims.of(ctx)
        old = codec.decode(VolumeSnapshot, ctx.input["old"].encode())
        ctx.undo_txn.delete(keys.volume_snapshot(volume.id, ctx.input["snapshot"]))
        ctx.undo_txn.put(keys.volume_snapshot(volume.id, old.name), old)
        self._claims.settle(ctx, ctx.undo_txn, volume)

    async def _remove(self, ctx: Context) -> None:
        volume, snapshot = self._of(ctx)
        await self._host.driver_of(volume.pool).delete_volume(volume.pool, snapshot.id, kind=_CUSTOM)
        ctx.txn.delete(keys.volume_snapshot(volume.id, snapshot.name))
        self._claims.settle(ctx, ctx.txn, volume)
        ctx.txn.emit(_told("deleted", volume, snapshot, ctx))

    async def _replace(self, ctx: Context) -> None:
        volume, snapshot = self._of(ctx)
        driver = self._host.driver_of(volume.pool)
        source = driver.volume(volume.pool, snapshot.id, _CUSTOM)
        await driver.replace_volume(volume.pool, volume.id, source, kind=_CUSTOM, size=bound_of(volume))
        self._claims.settle(ctx, ctx.txn, volume)
        ctx.txn.emit(event("storage-volume-restored", volume, ctx, snapshot=snapshot.name))

    async def _release(self, ctx: Context) -> None:
        self._claims.settle(ctx, ctx.undo_txn, self._claims.of(ctx))


def taken(name: str) -> AlreadyExists:
    return AlreadyExists("EXISTS", f'Snapshot "{name}" already in use', about=name)


def _told(
    what: str, volume: Volume, snapshot: VolumeSnapshot, ctx: Context | None = None, **context: str
) -> Event:
    part = f"snapshots/{snapshot.name}"
    return event(f"storage-volume-snapshot-{what}", volume, ctx, part=part, **context)
