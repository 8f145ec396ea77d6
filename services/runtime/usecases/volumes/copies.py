"""Copies of custom volumes: into a new one, over one that is there, or in place of the original."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from core.errors import Invalid, NotFound, WrongState
from core.operations.operation import Context, Operation, Step, Story
from core.records import Volume, VolumeSnapshot
from core.state import codec, keys
from core.state.repository import Entry
from core.state.store import Txn
from services.runtime.domain.volumes import VolumeRef
from services.runtime.ports import VolumeKind
from services.runtime.usecases.host import Host
from services.runtime.usecases.volumes.claims import VolumeClaims, event, key_of
from services.runtime.usecases.volumes.custom import Volumes, bound_of

_CUSTOM = VolumeKind.CUSTOM


@dataclass(frozen=True)
class WantedCopy:
    """config None: as the original has it. only: without snapshots. refresh: over what is there already."""

    source: VolumeRef
    target: VolumeRef
    description: str = ""
    config: dict[str, str] | None = None
    only: bool = False
    refresh: bool = False


class VolumeCopies:
    def __init__(self, host: Host, claims: VolumeClaims, volumes: Volumes) -> None:
        self._host = host
        self._store = host.store
        self._claims = claims
        self._volumes = volumes
        claims.runner.register(
            Story("volume.copy", "Copying storage volume",
                  (Step("clone", self._clone, volumes.remove_folders), Step("settle", self._copied)),
                  on_failure=volumes.forget),
            Story("volume.move", "Moving storage volume",
                  (Step("clone", self._clone, volumes.remove_folders), Step("drop", self._moved)),
                  on_failure=volumes.forget),
            Story("volume.refresh", "Refreshing storage volume",
                  (Step("snapshots", self._clone_snapshots, self.unclone),
                   Step("content", self._refresh), Step("settle", self.refreshed)),
                  on_failure=self.as_before),
        )  # fmt: skip

    async def copy(self, wanted: WantedCopy) -> Operation:
        """Raises: Invalid, NotFound, AlreadyExists, Busy."""
        return await self._volumes.again(lambda: self._copy(wanted))

    async def _copy(self, wanted: WantedCopy) -> Operation:
        source = await self._claims.free(lambda: self._volumes.find(wanted.source))
        if wanted.refresh and self.find(wanted.target):
            there = await self._claims.free(lambda: self._volumes.find(wanted.target))
            return await self._accept_refresh(wanted, source, there)
        return await self._accept_new("volume.copy", wanted, source)

    async def move(self, ref: VolumeRef, target: VolumeRef) -> Operation:
        """Move a volume that nothing uses to another pool or project. Raises: as copy()."""
        return await self._volumes.again(lambda: self._move(ref, target))

    async def _move(self, ref: VolumeRef, target: VolumeRef) -> Operation:
        source = await self._claims.free(lambda: self._volumes.find(ref))
        if self._volumes.users(source.record).urls:
            raise WrongState("IN_USE", "The storage volume is still in use", about=ref.name)
        return await self._accept_new("volume.move", WantedCopy(ref, target), source)

    def find(self, ref: VolumeRef) -> Entry[Volume] | None:
        try:
            return self._volumes.find(ref)
        except NotFound:
            return None

    async def _accept_new(self, kind: str, wanted: WantedCopy, source: Entry[Volume]) -> Operation:
        original = source.record
        config = original.config if wanted.config is None else wanted.config
        config = {key: value for key, value in config.items() if not key.startswith("volatile.")}
        volume, txn = self._volumes.plan_new(
            wanted.target, config, wanted.description or original.description
        )
        copies = {volume.id: self._origin(wanted.source, original)}
        if not wanted.only and not wanted.source.snapshot:
            copies |= self._copy_snapshots(txn, volume, self.snapshots(original))
        return await self._claims.accept(
            kind, volume, txn, others=(source,), input=self._input(original, copies)
        )

    def _origin(self, ref: VolumeRef, original: Volume) -> str:
        """Return the id of the folder that is copied. Raises: NotFound."""
        if not ref.snapshot:
            return original.id
        for snapshot in self.snapshots(original):
            if snapshot.name == ref.snapshot:
                return snapshot.id
        raise NotFound("NO_SNAPSHOT", "Storage pool volume not found", about=ref.snapshot[:64])

    def snapshots(self, volume: Volume) -> list[VolumeSnapshot]:
        found = (entry.record for entry in self._store.snapshots_of_volume(volume))
        return [snapshot for snapshot in found if snapshot.status == "Created"]

    def _copy_snapshots(self, txn: Txn, volume: Volume, snapshots: list[VolumeSnapshot]) -> dict[str, str]:
        """Record copies of *snapshots* in *txn*, pending, and return copy to original by folder."""
        copies = {}
        for snapshot in snapshots:
            copy = replace(snapshot, id=str(uuid.uuid4()), volume_id=volume.id, status="Pending")
            txn.put(keys.volume_snapshot(volume.id, copy.name), copy)
            copies[copy.id] = snapshot.id
        return copies

    def _input(self, original: Volume, copies: dict[str, str]) -> dict[str, Any]:
        return {"source": original.id, "pool": original.pool, "copies": copies}

    async def _accept_refresh(
        self, wanted: WantedCopy, source: Entry[Volume], target: Entry[Volume]
    ) -> Operation:
        original, volume = source.record, target.record
        if original.id == volume.id:
            raise Invalid("SAME", "A storage volume cannot be refreshed from itself", about=volume.name)
        if self._volumes.users(volume).running:
            raise WrongState("IN_USE", "Volume is still in use by running instances", about=volume.name)
        txn, input = Txn().unchanged(key_of(volume), target.revision), dict[str, Any]()
        copies = {volume.id: self._origin(wanted.source, original)}
        if not wanted.only and not wanted.source.snapshot:
            missing, dropped = _differing(self.snapshots(original), self.snapshots(volume))
            for snapshot in dropped:
                txn.put(keys.volume_snapshot(volume.id, snapshot.name), replace(snapshot, status="Deleting"))
            copies |= self._copy_snapshots(txn, volume, missing)
            input = {"dropped": [codec.encode(snapshot).decode() for snapshot in dropped]}
        input |= self._input(original, copies)
        return await self._claims.accept("volume.refresh", volume, txn, others=(source,), input=input)

    # --- steps -----------------------------------------------------------------------------------

    async def _clone(self, ctx: Context) -> None:
        volume = self._claims.of(ctx)
        await self._clone_snapshots(ctx)
        driver, source = self._host.driver_of(volume.pool), self._source(ctx, ctx.input["copies"][volume.id])
        await driver.clone_volume(volume.pool, volume.id, source, kind=_CUSTOM, size=bound_of(volume))

    async def _clone_snapshots(self, ctx: Context) -> None:
        volume = self._claims.of(ctx)
        driver = self._host.driver_of(volume.pool)
        for copy, original in ctx.input["copies"].items():
            if copy != volume.id:
                await driver.clone_volume(volume.pool, copy, self._source(ctx, original), kind=_CUSTOM)

    def _source(self, ctx: Context, id: str) -> Path:
        return self._host.driver_of(ctx.input["pool"]).volume(ctx.input["pool"], id, _CUSTOM)

    async def _copied(self, ctx: Context) -> None:
        volume = self._claims.of(ctx)
        self._settle_snapshots(ctx, volume)
        self._volumes.made(ctx, volume)

    def _settle_snapshots(self, ctx: Context, volume: Volume) -> None:
        for entry in self._store.snapshots_of_volume(volume):
            key = keys.volume_snapshot(volume.id, entry.record.name)
            if entry.record.status == "Pending":
                ctx.txn.put(key, replace(entry.record, status="Created"))
            elif entry.record.status == "Deleting":
                ctx.txn.delete(key)

    async def _moved(self, ctx: Context) -> None:
        """Remove the original; its record goes with the commit that makes the copy what it was."""
        volume, original = self._claims.of(ctx), self._claims.by_id(ctx.input["source"])
        await self._volumes.remove_of(original)
        self._settle_snapshots(ctx, volume)
        self._volumes.made(ctx, volume, without=original)
        ctx.txn.emit(event("storage-volume-deleted", original, ctx))

    async def _refresh(self, ctx: Context) -> None:
        volume = self._claims.of(ctx)
        driver, source = self._host.driver_of(volume.pool), self._source(ctx, ctx.input["copies"][volume.id])
        await driver.refresh_volume(volume.pool, volume.id, source, kind=_CUSTOM, size=bound_of(volume))

    async def refreshed(self, ctx: Context) -> None:
        volume = self._claims.of(ctx)
        for snapshot in _dropped(ctx):
            await self._host.driver_of(volume.pool).delete_volume(volume.pool, snapshot.id, kind=_CUSTOM)
        self._settle_snapshots(ctx, volume)
        self._claims.settle(ctx, ctx.txn, volume)
        ctx.txn.emit(event("storage-volume-updated", volume, ctx))

    async def unclone(self, ctx: Context) -> None:
        volume = self._claims.of(ctx)
        for copy in ctx.input["copies"]:
            if copy != volume.id:
                await self._host.driver_of(volume.pool).delete_volume(volume.pool, copy, kind=_CUSTOM)

    async def as_before(self, ctx: Context) -> None:
        """Put back the records of snapshots; the content is whole again when the refresh is repeated."""
        volume, dropped = self._claims.of(ctx), {snapshot.name: snapshot for snapshot in _dropped(ctx)}
        for entry in self._store.snapshots_of_volume(volume):
            key, name = keys.volume_snapshot(volume.id, entry.record.name), entry.record.name
            if name in dropped:
                ctx.undo_txn.put(key, dropped[name])
            elif entry.record.status == "Pending":
                ctx.undo_txn.delete(key)
        self._claims.settle(ctx, ctx.undo_txn, volume)


def _differing(
    wanted: list[VolumeSnapshot], has: list[VolumeSnapshot]
) -> tuple[list[VolumeSnapshot], list[VolumeSnapshot]]:
    """Return what is missing of *wanted*, and what *has* holds beyond it; same name and time is the same."""
    want, there = ({(s.name, s.created_at): s for s in snapshots} for snapshots in (wanted, has))
    return [s for k, s in want.items() if k not in there], [s for k, s in there.items() if k not in want]


def _dropped(ctx: Context) -> list[VolumeSnapshot]:
    return [codec.decode(VolumeSnapshot, text.encode()) for text in ctx.input.get("dropped", ())]
