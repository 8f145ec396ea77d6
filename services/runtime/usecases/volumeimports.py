"""Custom volumes that come as archives. The image service has converted them; here they are copied in."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from core.errors import Unsupported
from core.names import volume_snapshot_name
from core.operations.operation import Context, Operation, Step, Story
from core.records import Volume, VolumeSnapshot
from core.state import keys
from services.runtime.domain.idmaps import PRIVILEGED
from services.runtime.domain.volumes import VolumeRef
from services.runtime.kernel import mountapi
from services.runtime.ports import VolumeKind
from services.runtime.usecases.host import Host
from services.runtime.usecases.volumeclaims import VolumeClaims
from services.runtime.usecases.volumes import Volumes, bound_of

_CUSTOM = VolumeKind.CUSTOM


class VolumeImports:
    def __init__(self, host: Host, claims: VolumeClaims, volumes: Volumes) -> None:
        self._host = host
        self._store = host.store
        self._claims = claims
        self._volumes = volumes
        claims.runner.register(
            Story("volume.import", "Creating custom volume from backup",
                  (Step("copy", self._copy, volumes.remove_folders), Step("settle", self._settle)),
                  on_failure=volumes.forget),
        )  # fmt: skip

    async def accept(self, ref: VolumeRef, ticket: str) -> Operation:
        """Make a volume of what was uploaded; ref.name "": as the archive says.

        Raises: Invalid, NotFound, AlreadyExists, Unsupported.
        """
        return await self._volumes.again(lambda: self._accept(ref, ticket))

    async def _accept(self, ref: VolumeRef, ticket: str) -> Operation:
        arrived = await self._host.images.take(ref.project, ticket)
        if arrived.kind != "custom":
            raise Unsupported("NO_VOLUME", "The backup is of an instance; import it as one")
        entry = arrived.instance
        config = {key: value for key, value in entry.config.items() if not key.startswith("volatile.")}
        ref = replace(ref, name=ref.name or entry.name)
        volume, txn = self._volumes.plan_new(ref, config, entry.description)
        folders = {volume.id: (entry.base_dir, entry.shift)}
        for found in arrived.snapshots:
            snapshot = VolumeSnapshot(
                id=str(uuid.uuid4()),
                volume_id=volume.id,
                name=volume_snapshot_name(found.name),
                description=found.description,
                config=config,
                created_at=found.created_at,
                expires_at=found.expires_at,
                status="Pending",
            )
            txn.put(keys.volume_snapshot(volume.id, snapshot.name), snapshot)
            folders[snapshot.id] = (found.base_dir, found.shift)
        input = {"base": arrived.fingerprint, "project": ref.project, "folders": folders}
        return await self._claims.accept("volume.import", volume, txn, input=input)

    async def _copy(self, ctx: Context) -> None:
        volume, base = self._claims.of(ctx), ctx.input["base"]
        home = self._store.home_of(ctx.input["project"], "images")
        prepared = await self._host.images.prepare(home, base)
        driver = self._host.driver_of(volume.pool)
        try:
            for id, (folder, shift) in ctx.input["folders"].items():
                size = bound_of(volume) if id == volume.id else 0
                source = await self._host.rootfs.ensure_image(base, prepared.squashfs, folder)
                async with _unshifted(source, shift) as path:
                    await driver.clone_volume(volume.pool, id, path, kind=_CUSTOM, size=size)
        finally:
            await self._host.rootfs.drop_image(base)

    async def _settle(self, ctx: Context) -> None:
        volume: Volume = self._claims.of(ctx)
        for entry in self._store.snapshots_of_volume(volume):
            key = keys.volume_snapshot(volume.id, entry.record.name)
            ctx.txn.put(key, replace(entry.record, status="Created"))
        self._volumes.made(ctx, volume)


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
