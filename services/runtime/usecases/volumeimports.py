"""Custom volumes that come as archives. The image service has converted them; here they are copied in.

What comes over a volume that is here already (`--refresh`) is copied by what differs.
"""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from core.errors import Unsupported, WrongState
from core.names import volume_snapshot_name
from core.operations.operation import Context, Operation, Step, Story
from core.records import Volume, VolumeSnapshot
from core.state import codec, keys
from core.state.repository import Entry
from core.state.store import Txn
from services.runtime.domain.arrivals import Arrived, ArrivedEntry
from services.runtime.domain.idmaps import PRIVILEGED
from services.runtime.domain.volumes import VolumeRef
from services.runtime.kernel import mountapi
from services.runtime.ports import VolumeKind
from services.runtime.usecases.host import Host
from services.runtime.usecases.volumeclaims import VolumeClaims, key_of
from services.runtime.usecases.volumecopies import VolumeCopies
from services.runtime.usecases.volumes import Volumes, bound_of

_CUSTOM = VolumeKind.CUSTOM


@dataclass(frozen=True)
class WantedVolume:
    """What was asked for. ref.name "", config and description None: as the archive says.

    only: without snapshots. refresh: over what is there already.
    """

    ref: VolumeRef
    ticket: str
    config: dict[str, str] | None = None
    description: str | None = None
    only: bool = False
    refresh: bool = False


class VolumeImports:
    def __init__(self, host: Host, claims: VolumeClaims, volumes: Volumes, copies: VolumeCopies) -> None:
        self._host = host
        self._store = host.store
        self._claims = claims
        self._volumes = volumes
        self._copies = copies
        claims.runner.register(
            Story("volume.import", "Creating custom volume from backup",
                  (Step("copy", self._copy, volumes.remove_folders), Step("settle", self._settle)),
                  on_failure=volumes.forget),
            Story("volume.renew", "Creating storage volume",
                  (Step("snapshots", self._copy_snapshots, copies.unclone),
                   Step("content", self._refresh), Step("settle", copies.refreshed)),
                  on_failure=copies.as_before),
        )  # fmt: skip

    async def accept(self, wanted: WantedVolume) -> Operation:
        """Make a volume of what was uploaded.

        Raises: Invalid, NotFound, AlreadyExists, Unsupported, Busy, WrongState.
        """
        return await self._volumes.again(lambda: self._accept(wanted))

    async def _accept(self, wanted: WantedVolume) -> Operation:
        ref = wanted.ref
        arrived = await self._host.images.take(ref.project, wanted.ticket)
        if arrived.kind != "custom":
            raise Unsupported("NO_VOLUME", "The backup is of an instance; import it as one")
        snapshots = () if wanted.only else arrived.snapshots
        if wanted.refresh and self._copies.find(ref):
            there = await self._claims.free(lambda: self._volumes.find(ref))
            return await self._accept_refresh(wanted, there, replace(arrived, snapshots=snapshots))
        entry = arrived.instance
        config = _own(entry.config if wanted.config is None else wanted.config)
        description = entry.description if wanted.description is None else wanted.description
        ref = replace(ref, name=ref.name or entry.name)
        volume, txn = self._volumes.plan_new(ref, config, description)
        folders = {volume.id: (entry.base_dir, entry.shift)}
        folders |= _recorded(txn, volume, snapshots)
        input = {"base": arrived.fingerprint, "project": ref.project, "folders": folders}
        return await self._claims.accept("volume.import", volume, txn, input=input)

    async def _accept_refresh(
        self, wanted: WantedVolume, target: Entry[Volume], arrived: Arrived
    ) -> Operation:
        volume = target.record
        if self._volumes.users(volume).running:
            raise WrongState("IN_USE", "Volume is still in use by running instances", about=volume.name)
        txn, dropped = Txn().unchanged(key_of(volume), target.revision), list[VolumeSnapshot]()
        folders = {volume.id: (arrived.instance.base_dir, arrived.instance.shift)}
        if not wanted.only:
            has = self._copies.snapshots(volume)
            here = {_same(snapshot.name, snapshot.created_at) for snapshot in has}
            there = {_same(entry.name, entry.created_at) for entry in arrived.snapshots}
            dropped = [snapshot for snapshot in has if _same(snapshot.name, snapshot.created_at) not in there]
            for snapshot in dropped:
                txn.put(keys.volume_snapshot(volume.id, snapshot.name), replace(snapshot, status="Deleting"))
            missing = [
                entry for entry in arrived.snapshots if _same(entry.name, entry.created_at) not in here
            ]
            folders |= _recorded(txn, volume, missing)
        input = {
            "base": arrived.fingerprint,
            "project": wanted.ref.project,
            "folders": folders,
            "copies": list(folders),
            "dropped": [codec.encode(snapshot).decode() for snapshot in dropped],
        }
        return await self._claims.accept("volume.renew", volume, txn, input=input)

    # --- steps -----------------------------------------------------------------------------------

    async def _copy(self, ctx: Context) -> None:
        volume = self._claims.of(ctx)
        driver, size = self._host.driver_of(volume.pool), bound_of(volume)
        async with aclosing(self._arrived(ctx, list(ctx.input["folders"]))) as folders:
            async for id, path in folders:
                bound = size if id == volume.id else 0
                await driver.clone_volume(volume.pool, id, path, kind=_CUSTOM, size=bound)

    async def _copy_snapshots(self, ctx: Context) -> None:
        volume = self._claims.of(ctx)
        driver = self._host.driver_of(volume.pool)
        snapshots = [id for id in ctx.input["folders"] if id != volume.id]
        async with aclosing(self._arrived(ctx, snapshots)) as folders:
            async for id, path in folders:
                await driver.clone_volume(volume.pool, id, path, kind=_CUSTOM)

    async def _refresh(self, ctx: Context) -> None:
        volume = self._claims.of(ctx)
        driver, size = self._host.driver_of(volume.pool), bound_of(volume)
        async with aclosing(self._arrived(ctx, [volume.id])) as folders:
            async for id, path in folders:
                await driver.refresh_volume(volume.pool, id, path, kind=_CUSTOM, size=size)

    async def _arrived(self, ctx: Context, ids: list[str]) -> AsyncGenerator[tuple[str, Path]]:
        """Yield the folders of what arrived for *ids*, each while the caller works with it."""
        base = ctx.input["base"]
        home = self._store.home_of(ctx.input["project"], "images")
        prepared = await self._host.images.prepare(home, base)
        try:
            for id in ids:
                folder, shift = ctx.input["folders"][id]
                source = await self._host.rootfs.ensure_image(base, prepared.squashfs, folder)
                async with _unshifted(source, shift) as path:
                    yield id, path
        finally:
            await self._host.rootfs.drop_image(base)

    async def _settle(self, ctx: Context) -> None:
        volume: Volume = self._claims.of(ctx)
        for entry in self._store.snapshots_of_volume(volume):
            key = keys.volume_snapshot(volume.id, entry.record.name)
            ctx.txn.put(key, replace(entry.record, status="Created"))
        self._volumes.made(ctx, volume)


def _own(config: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in config.items() if not key.startswith("volatile.")}


def _recorded(txn: Txn, volume: Volume, entries: Sequence[ArrivedEntry]) -> dict[str, tuple[str, int]]:
    """Record snapshots that arrived in *txn*, pending, and return where each lies, by its new id."""
    folders = {}
    for entry in entries:
        snapshot = VolumeSnapshot(
            id=str(uuid.uuid4()),
            volume_id=volume.id,
            name=volume_snapshot_name(entry.name),
            description=entry.description,
            config=_own(entry.config) or volume.config,
            created_at=entry.created_at or time.time(),
            expires_at=entry.expires_at,
            status="Pending",
        )
        txn.put(keys.volume_snapshot(volume.id, snapshot.name), snapshot)
        folders[snapshot.id] = (entry.base_dir, entry.shift)
    return folders


def _same(name: str, created_at: float) -> tuple[str, int]:
    """Archives keep microseconds."""
    return name, round(created_at * 1000)


@asynccontextmanager
async def _unshifted(source: Path, shift: int) -> AsyncIterator[Path]:
    """Give the folder with the ids that guests see: LXD's archives hold those of the host."""
    if not shift:
        yield source
        return
    userns = await asyncio.to_thread(mountapi.user_namespace, PRIVILEGED, shift)
    try:
        mount = await asyncio.to_thread(mountapi.shifted, source, userns)
    finally:
        os.close(userns)
    try:
        yield Path(f"/proc/self/fd/{mount}")
    finally:
        os.close(mount)
