"""The archive of a whole instance, as LXD's backups are. Other servers are sent the same."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from core.compression import Compression
from core.errors import NotFound
from core.records import Instance, Snapshot
from services.runtime.domain import backupfile
from services.runtime.domain.backupfile import CONTAINER, SNAPSHOTS, Frozen
from services.runtime.domain.expand import Expanded, expand
from services.runtime.domain.lifecycle import UP
from services.runtime.kernel.archives import pack_tar
from services.runtime.kernel.trees import Root
from services.runtime.usecases.host import Host
from services.runtime.usecases.instances.abouts import AboutInstances
from services.runtime.usecases.peers import About
from services.runtime.usecases.transfers.pack import ROOT, Packs

# Files, and the roots beside them, by path.
Spread = tuple[dict[str, bytes], dict[str, Root]]


class Archives:
    def __init__(self, host: Host, packs: Packs, abouts: AboutInstances) -> None:
        self._abouts = abouts
        self._host = host
        self._store = host.store
        self._packs = packs

    async def write(
        self, instance: Instance, target: int, compression: Compression, *, instance_only: bool
    ) -> None:
        """Write the archive of *instance* into descriptor *target*. Raises: NotFound, Internal."""
        snapshots = [] if instance_only else self._snapshots(instance)
        files = await self._files(instance, snapshots)
        async with self._held(instance) as source:
            roots = {f"{CONTAINER}/{ROOT}": await self._packs.root_of(source)}
            for snapshot in snapshots:
                roots[f"{SNAPSHOTS}/{snapshot.name}/{ROOT}"] = await self._root_of(snapshot)
            names = [backupfile.INDEX, *([SNAPSHOTS] if snapshots else []), CONTAINER]
            async with self._packs.tree(files, roots) as tree:
                await pack_tar(tree, names, compression, target)

    async def write_snapshot(
        self, instance: Instance, snapshot: Snapshot, target: int, compression: Compression
    ) -> None:
        """Write the archive of a snapshot as that of an instance without any."""
        was = replace(snapshot.instance, name=instance.name, project=instance.project)
        frozen = replace(self._frozen(snapshot), name=instance.name, instance=was)
        files = backupfile.files(frozen, [], self._store.pool(instance.pool).record, [])
        files |= _beside(CONTAINER, was, await self._abouts.of_snapshot(snapshot))
        roots = {f"{CONTAINER}/{ROOT}": await self._root_of(snapshot)}
        async with self._packs.tree(files, roots) as tree:
            await pack_tar(tree, [backupfile.INDEX, CONTAINER], compression, target)

    @asynccontextmanager
    async def spread(self, instance: Instance, snapshot: Snapshot | None) -> AsyncIterator[Spread]:
        """Give what the archive of an instance or of one snapshot would hold, as LXD has it on its disk."""
        if snapshot:
            was = replace(snapshot.instance, name=instance.name, project=instance.project)
            files = _beside("", was, await self._abouts.of_snapshot(snapshot))
            yield files, {ROOT: await self._root_of(snapshot)}
            return
        files = _beside("", instance, await self._abouts.of(instance))
        async with self._held(instance) as source:
            yield files, {ROOT: await self._packs.root_of(source)}

    def _snapshots(self, instance: Instance) -> list[Snapshot]:
        entries = self._store.instance_snapshots(instance)
        return [entry.record for entry in entries if entry.record.status == "Created"]

    async def _root_of(self, snapshot: Snapshot) -> Root:
        return await self._packs.root_of(replace(snapshot.instance, id=snapshot.id))

    @asynccontextmanager
    async def _held(self, instance: Instance) -> AsyncIterator[Instance]:
        """Give what is to be read: a running instance as of one moment, where its pool can do that."""
        driver = self._host.driver_of(instance.pool)
        if self._store.observed_of(instance).record.status not in UP or not driver.is_instant:
            yield instance
            return
        still = replace(instance, id=str(uuid.uuid4()))
        try:
            await driver.clone_volume(instance.pool, still.id, self._host.volume_of(instance))
            yield still
        finally:
            await asyncio.shield(self._host.remove_volume(still.pool, still.id))

    async def _files(self, instance: Instance, snapshots: list[Snapshot]) -> dict[str, bytes]:
        observed = self._store.observed_of(instance).record
        profiles = self._store.profiles_of(instance.project, instance.profiles)
        frozen = Frozen(
            instance.name,
            instance,
            observed.volatile,
            self._host.expanded(instance),
            last_used_at=observed.last_used_at,
        )
        pool = self._store.pool(instance.pool).record
        files = backupfile.files(frozen, [self._frozen(s) for s in snapshots], pool, profiles)
        files |= _beside(CONTAINER, instance, await self._abouts.of(instance))
        for snapshot in snapshots:
            about = await self._abouts.of_snapshot(snapshot)
            files |= _beside(f"{SNAPSHOTS}/{snapshot.name}", instance, about)
        return files

    def _frozen(self, snapshot: Snapshot) -> Frozen:
        # Profiles that are gone since say nothing any more.
        expanded = Expanded(dict(snapshot.instance.config), dict(snapshot.instance.devices))
        with contextlib.suppress(NotFound):
            profiles = self._store.profiles_of(snapshot.instance.project, snapshot.instance.profiles)
            expanded = expand(profiles, snapshot.instance)
        return Frozen(
            snapshot.name,
            snapshot.instance,
            snapshot.volatile,
            expanded,
            snapshot.created_at,
            snapshot.expires_at,
            snapshot.last_used_at,
        )


def _beside(folder: str, instance: Instance, about: About) -> dict[str, bytes]:
    """Return metadata.yaml and templates by path; a plain metadata.yaml where nothing came with the root."""
    before = f"{folder}/" if folder else ""
    found = {f"{before}templates/{name}": text for name, text in about.templates.items()}
    return {f"{before}metadata.yaml": backupfile.metadata(instance, about.metadata), **found}
