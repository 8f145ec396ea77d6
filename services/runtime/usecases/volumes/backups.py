"""Backups of custom volumes: archives as LXD's, that lie here until they are fetched, deleted, or expire.

Records, files and their sweep are those of the backups of instances (../transfers/backups.py); what is
packed differs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
import uuid
from collections.abc import AsyncGenerator
from dataclasses import replace

from core.compression import parse_compression
from core.errors import AlreadyExists, NotFound, Stale, Unavailable
from core.operations.operation import Context, Operation, Step, Story
from core.records import Backup, Volume
from core.state import keys
from core.state.repository import Entry
from core.state.store import Txn
from services.runtime.domain.volumes import VolumeRef
from services.runtime.usecases.host import Host
from services.runtime.usecases.policy import Policy
from services.runtime.usecases.transfers.backups import Backups, WantedBackup, backup_name, next_name
from services.runtime.usecases.volumes.archives import VolumeArchives
from services.runtime.usecases.volumes.claims import VolumeClaims, event, key_of
from services.runtime.usecases.volumes.custom import Volumes

_CREATE, _DELETE, _RENAME = "volumebackup.create", "volumebackup.delete", "volumebackup.rename"


class VolumeBackups:
    def __init__(
        self,
        host: Host,
        policy: Policy,
        claims: VolumeClaims,
        volumes: Volumes,
        archives: VolumeArchives,
        backups: Backups,
    ) -> None:
        self._host = host
        self._store = host.store
        self._policy = policy
        self._runner = claims.runner
        self._volumes = volumes
        self._archives = archives
        self._backups = backups
        backups.expire_others = self.expire
        claims.runner.register(
            Story(_CREATE, "Creating custom volume backup", (Step("pack", self._pack, self._unpack),),
                  may_cancel=True, on_failure=self._forget),
            Story(_DELETE, "Deleting custom volume backup", (Step("remove", self._remove),)),
            Story(_RENAME, "Renaming custom volume backup", ()),
        )  # fmt: skip

    async def create(self, ref: VolumeRef, wanted: WantedBackup) -> Operation:
        """Raises: NotFound, Invalid, AlreadyExists, Forbidden."""
        parse_compression(wanted.compression or "gzip").argv()
        volume = self._volumes.find(ref).record
        self._policy.check_backups(volume.project)
        taken = {entry.record.name for entry in self._entries(volume)}
        backup = Backup(
            id=str(uuid.uuid4()),
            instance_id=volume.id,
            name=backup_name(wanted.name or next_name(taken)),
            created_at=time.time(),
            expires_at=wanted.expires_at,
            instance_only=wanted.instance_only,
            compression=wanted.compression,
        )
        key = keys.backup(volume.id, backup.name)
        txn = Txn().exists(key_of(volume)).absent(key).put(key, backup)
        try:
            return await self._accept(_CREATE, volume, backup, txn)
        except Stale:
            why = f'Backup "{volume.name}/{backup.name}" already exists'
            raise AlreadyExists("EXISTS", why, about=backup.name) from None

    async def rename(self, ref: VolumeRef, name: str, new_name: str) -> Operation:
        """Raises: NotFound, AlreadyExists, Invalid."""
        volume, old = self._volumes.find(ref).record, self.find(ref, name)
        new = replace(old.record, name=backup_name(new_name))
        key, new_key = keys.backup(volume.id, name), keys.backup(volume.id, new_name)
        txn = Txn().unchanged(key, old.revision).absent(new_key).delete(key).put(new_key, new)
        try:
            return await self._accept(_RENAME, volume, new, txn)
        except Stale:
            raise AlreadyExists("EXISTS", f'Backup "{ref.name}/{new_name}" already exists') from None

    async def delete(self, ref: VolumeRef, name: str) -> Operation:
        """Raises: NotFound."""
        volume, found = self._volumes.find(ref).record, self.find(ref, name)
        txn = Txn().unchanged(keys.backup(volume.id, name), found.revision)
        txn.put(keys.backup(volume.id, name), replace(found.record, status="Deleting"))
        return await self._accept(_DELETE, volume, found.record, txn)

    def all(self, ref: VolumeRef) -> list[Backup]:
        """Return the whole ones, by name. Raises: NotFound."""
        entries = self._entries(self._volumes.find(ref).record)
        return [entry.record for entry in entries if entry.record.status == "Created"]

    def find(self, ref: VolumeRef, name: str) -> Entry[Backup]:
        """Raises: NotFound."""
        entry = self._store.backups.get(keys.backup(self._volumes.find(ref).record.id, name))
        if entry is None or entry.record.status != "Created":
            raise NotFound("NO_BACKUP", "Storage volume backup not found", about=name[:64])
        return entry

    async def tell_retrieved(self, ref: VolumeRef, backup: Backup) -> None:
        """Let listeners know who took data out; that the state is away must not keep it in."""
        volume = self._volumes.find(ref).record
        told = event("storage-volume-backup-retrieved", volume, part=f"backups/{backup.name}")
        with contextlib.suppress(Unavailable):
            await self._store.commit(Txn().emit(told))

    def read(self, backup: Backup) -> AsyncGenerator[bytes, None]:
        """Yield the archive. Raises: NotFound."""
        return self._backups.read(backup)

    def _entries(self, volume: Volume) -> list[Entry[Backup]]:
        return self._store.backups.below(keys.backups(volume.id))

    async def expire(self, backup: Backup) -> None:
        """Delete a backup of a volume that has expired."""
        for entry in self._store.volumes.entries():
            volume = entry.record
            if volume.id == backup.instance_id:
                await self.delete(VolumeRef(volume.pool, volume.project, volume.name), backup.name)

    async def _accept(self, kind: str, volume: Volume, backup: Backup, txn: Txn) -> Operation:
        resources: dict[str, tuple[str, ...]] = {"storage_volumes": (volume.name,)}
        if kind == _CREATE:
            resources["backups"] = (backup.name,)
        return await self._runner.accept(
            kind,
            project=volume.project,
            resources=resources,
            input={"volume": volume.id, "id": backup.id, "name": backup.name},
            txn=txn,
        )

    # --- steps -----------------------------------------------------------------------------------

    async def _pack(self, ctx: Context) -> None:
        async with self._backups.places:
            await self._packed(ctx)

    async def _packed(self, ctx: Context) -> None:
        volume, backup = self._of(ctx)
        partial = self._backups.path(f"{backup.id}.partial")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(partial, flags, 0o600)
        try:
            compression = parse_compression(backup.compression or "gzip")
            await self._archives.write(volume, file, compression, only=backup.instance_only)
            size = os.fstat(file).st_size
        finally:
            os.close(file)
        await asyncio.to_thread(partial.rename, self._backups.path(backup.id))
        key = keys.backup(volume.id, backup.name)
        ctx.txn.exists(key).put(key, replace(backup, status="Created", size=size))
        ctx.txn.emit(event("storage-volume-backup-created", volume, ctx, part=f"backups/{backup.name}"))

    async def _unpack(self, ctx: Context) -> None:
        for name in (ctx.input["id"], f"{ctx.input['id']}.partial"):
            self._backups.path(name).unlink(missing_ok=True)

    async def _forget(self, ctx: Context) -> None:
        ctx.undo_txn.delete(keys.backup(ctx.input["volume"], ctx.input["name"]))

    async def _remove(self, ctx: Context) -> None:
        await self._unpack(ctx)
        ctx.txn.delete(keys.backup(ctx.input["volume"], ctx.input["name"]))
        with contextlib.suppress(NotFound):
            part = f"backups/{ctx.input['name']}"
            ctx.txn.emit(event("storage-volume-backup-deleted", self._volume(ctx), ctx, part=part))

    def _volume(self, ctx: Context) -> Volume:
        found = (entry.record for entry in self._store.volumes.entries())
        volume = next((volume for volume in found if volume.id == ctx.input["volume"]), None)
        if volume is None:
            raise NotFound("NO_VOLUME", "Storage pool volume not found")
        return volume

    def _of(self, ctx: Context) -> tuple[Volume, Backup]:
        entry = self._store.backups.get(keys.backup(ctx.input["volume"], ctx.input["name"]))
        if entry is None:
            raise NotFound("NO_BACKUP", "Storage volume backup not found")
        return self._volume(ctx), entry.record
