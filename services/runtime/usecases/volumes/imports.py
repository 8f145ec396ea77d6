"""Custom volumes that come as archives. The image service has converted them; here they are copied in.

What came by rsync lies in volumes already: those of a new one, or the next content of one that is here.
"""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
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
from services.runtime.domain.offers import is_same, missing
from services.runtime.domain.volumes import VolumeRef
from services.runtime.kernel import mountapi
from services.runtime.ports import VolumeKind
from services.runtime.usecases.host import Host
from services.runtime.usecases.policy import Policy
from services.runtime.usecases.transfers.renew import Staged
from services.runtime.usecases.volumes.claims import VolumeClaims, key_of
from services.runtime.usecases.volumes.copies import VolumeCopies
from services.runtime.usecases.volumes.custom import Volumes, bound_of

RENEW = "volume.renew"
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
    def __init__(
        self, host: Host, policy: Policy, claims: VolumeClaims, volumes: Volumes, copies: VolumeCopies
    ) -> None:
        self._host = host
        self._policy = policy
        self._store = host.store
        self._claims = claims
        self._volumes = volumes
        self._copies = copies
        claims.runner.register(
            Story("volume.import", "Creating custom volume from backup",
                  (Step("copy", self._copy, volumes.remove_folders), Step("settle", self._settle)),
                  on_failure=volumes.forget),
            Story(RENEW, "Creating storage volume",
                  (Step("content", self._replace, copies.unclone), Step("settle", copies.refreshed)),
                  on_failure=self._as_before),
        )  # fmt: skip

    async def accept(self, wanted: WantedVolume) -> Operation:
        """Make a volume of what was uploaded.

        Raises: Invalid, NotFound, AlreadyExists, Unsupported, Busy, WrongState.
        """
        return await self._volumes.again(lambda: self._accept(wanted))

    async def accept_staged(
        self, wanted: WantedVolume, snapshots: Sequence[ArrivedEntry], staged: Staged
    ) -> Operation:
        """Do the same for what lies in volumes already. Raises: as accept()."""
        entry = ArrivedEntry(wanted.ref.name, "")
        arrived = Arrived("", wanted.ref.pool, entry, tuple(snapshots), "custom")
        return await self._volumes.again(lambda: self._accept_arrived(wanted, arrived, staged))

    @contextmanager
    def expected(self, wanted: WantedVolume) -> Iterator[Volume]:
        """Give the record that a new volume would have, with an id that it may get; it counts meanwhile.

        Raises: Invalid, NotFound, AlreadyExists, Forbidden, LimitReached.
        """
        volume, _ = self._volumes.plan_new(wanted.ref, _own(wanted.config or {}), wanted.description or "")
        with self._policy.expecting(volume):
            yield volume

    def taken_ids(self) -> set[str]:
        """Return the ids of all volumes that a record tells of, or a running operation works with."""
        live = (self._claims.runner.get(id).input for id in self._claims.runner.live_of(RENEW))
        caches = (self._store.volumes, self._store.volume_snapshots)
        recorded = {entry.record.id for cache in caches for entry in cache.entries()}
        return recorded | {str(input.get("staged", "")) for input in live}

    async def _accept(self, wanted: WantedVolume) -> Operation:
        arrived = await self._host.images.take(wanted.ref.project, wanted.ticket)
        if arrived.kind != "custom":
            raise Unsupported("NO_VOLUME", "The backup is of an instance; import it as one")
        return await self._accept_arrived(wanted, arrived, None)

    async def _accept_arrived(
        self, wanted: WantedVolume, arrived: Arrived, staged: Staged | None
    ) -> Operation:
        ref = wanted.ref
        arrived = replace(arrived, snapshots=()) if wanted.only else arrived
        if staged and wanted.refresh and self._copies.find(ref):
            there = await self._claims.free(lambda: self._volumes.find(ref))
            return await self._accept_refresh(wanted, there, arrived, staged)
        entry = arrived.instance
        config = _own(entry.config if wanted.config is None else wanted.config)
        description = entry.description if wanted.description is None else wanted.description
        ref = replace(ref, name=ref.name or entry.name)
        id = staged.id if staged else ""
        volume, txn = self._volumes.plan_new(ref, config, description, id=id)
        folders = {volume.id: (entry.base_dir, entry.shift)}
        folders |= _recorded(txn, volume, arrived.snapshots, staged)
        input = {"base": arrived.fingerprint, "project": ref.project, "folders": folders}
        return await self._claims.accept("volume.import", volume, txn, input=input)

    async def _accept_refresh(
        self, wanted: WantedVolume, target: Entry[Volume], arrived: Arrived, staged: Staged
    ) -> Operation:
        volume = target.record
        if self._volumes.users(volume).running:
            raise WrongState("IN_USE", "Volume is still in use by running instances", about=volume.name)
        txn, dropped = Txn().unchanged(key_of(volume), target.revision), list[VolumeSnapshot]()
        made = list[str]()
        if not wanted.only:
            has = self._copies.snapshots(volume)
            wants = missing(arrived.snapshots, [(s.name, s.created_at) for s in has])
            dropped = [s for s in has if not any(is_same(s.name, s.created_at, e) for e in arrived.snapshots)]
            for snapshot in dropped:
                txn.put(keys.volume_snapshot(volume.id, snapshot.name), replace(snapshot, status="Deleting"))
            made += _recorded(txn, volume, wants, staged)
        input = {
            "staged": staged.id,
            "copies": made,
            "dropped": [codec.encode(snapshot).decode() for snapshot in dropped],
        }
        return await self._claims.accept(RENEW, volume, txn, input=input)

    # --- steps -----------------------------------------------------------------------------------

    async def _copy(self, ctx: Context) -> None:
        volume = self._claims.of(ctx)
        driver, size = self._host.driver_of(volume.pool), bound_of(volume)
        async with aclosing(self._arrived(ctx, list(ctx.input["folders"]))) as folders:
            async for id, path in folders:
                bound = size if id == volume.id else 0
                await driver.clone_volume(volume.pool, id, path, kind=_CUSTOM, size=bound)

    async def _replace(self, ctx: Context) -> None:
        """Let the volume be the one that arrived, which goes: where it is gone, that was done before."""
        volume, staged = self._claims.of(ctx), ctx.input["staged"]
        driver = self._host.driver_of(volume.pool)
        if staged in await driver.volumes(volume.pool, kind=_CUSTOM):
            folder, size = driver.volume(volume.pool, staged, _CUSTOM), bound_of(volume)
            await driver.replace_volume(volume.pool, volume.id, folder, kind=_CUSTOM, size=size)
            await driver.delete_volume(volume.pool, staged, kind=_CUSTOM)

    async def _as_before(self, ctx: Context) -> None:
        volume = self._claims.of(ctx)
        await self._host.driver_of(volume.pool).delete_volume(volume.pool, ctx.input["staged"], kind=_CUSTOM)
        await self._copies.as_before(ctx)

    async def _arrived(self, ctx: Context, ids: list[str]) -> AsyncGenerator[tuple[str, Path], None]:
        """Yield the folders of what arrived for *ids*, each while the caller works with it.

        Nothing where it came by rsync: it lies in its volumes already.
        """
        base = ctx.input["base"]
        if not base:
            return
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


def _recorded(
    txn: Txn, volume: Volume, entries: Sequence[ArrivedEntry], staged: Staged | None
) -> dict[str, tuple[str, int]]:
    """Record snapshots that arrived in *txn*, pending, and return where each lies, by its new id.

    Raises: WrongState when one was not sent because it was here, and is gone since.
    """
    folders = {}
    for entry in entries:
        id = staged.snapshots.get(entry.name, "") if staged else str(uuid.uuid4())
        if not id:
            why = "A snapshot was deleted while the volume was refreshed; try again"
            raise WrongState("NOT_STILL", why, about=volume.name)
        snapshot = VolumeSnapshot(
            id=id,
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
