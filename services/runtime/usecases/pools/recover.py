"""Bring back the records of what lies in pools and is not recorded (any more), from the notes beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from core.configkeys.devices import disk
from core.configkeys.storage import check_pool
from core.errors import Invalid, PodiumError, Stale, WrongState
from core.events import Event
from core.logs import get_logger
from core.names import instance_name, pool_name, volume_name
from core.records import Instance, InstanceObserved, Pool, Volume
from core.rpc.identity import current_identity
from core.state import keys
from core.state.store import Txn
from services.runtime.domain import idmaps, noted
from services.runtime.domain.noted import Note
from services.runtime.ports import StorageDriver, VolumeKind
from services.runtime.storage import notes
from services.runtime.usecases.host import Host
from services.runtime.usecases.instances import ids
from services.runtime.usecases.instances.volatile import when_down
from services.runtime.usecases.policy import Policy
from services.runtime.usecases.volumes.claims import event, key_of

log = get_logger(__name__)
_DRIVER_OF_FILE = {".img": "btrfs", ".zfs": "zfs", ".lvm": "lvm"}


@dataclass(frozen=True)
class WantedPool:
    """A pool to look into: one that is recorded, or one that is to be found by driver and source."""

    name: str
    driver: str = ""
    description: str = ""
    config: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """What was found in a pool and is not recorded."""

    pool: Pool
    note: Note

    @property
    def kind(self) -> str:
        return "container" if self.note.kind == noted.INSTANCE else "custom"

    @property
    def project(self) -> str:
        return self._record.project

    @property
    def name(self) -> str:
        return self._record.name

    @property
    def snapshots(self) -> int:
        return len(self.note.snapshots) + len(self.note.volume_snapshots)

    @property
    def _record(self) -> Instance | Volume:
        return self.note.instance if self.note.kind == noted.INSTANCE else self.note.volume


@dataclass(frozen=True)
class Report:
    """problems: what must be there before the records can be written."""

    found: tuple[Found, ...] = ()
    problems: tuple[str, ...] = ()
    pools: tuple[Pool, ...] = ()


class Recover:
    def __init__(self, host: Host, policy: Policy, state_dir: Path, member: str) -> None:
        self._host = host
        self._store = host.store
        self._policy = policy
        self._state_dir = state_dir
        self._member = member
        self._turn = asyncio.Lock()

    async def validate(self, wanted: Iterable[WantedPool]) -> Report:
        """Say what is found in the pools. Those that are not recorded are closed again. Raises: Invalid."""
        async with self._turn:
            report = await self._look(wanted)
            await self._close(report)
            return report

    async def restore(self, wanted: Iterable[WantedPool]) -> Report:
        """Write the records of what is found. Raises: Invalid, WrongState when something is missing."""
        async with self._turn:
            report = await self._look(wanted)
            if report.problems:
                await self._close(report)
                raise WrongState("MISSING", "Failed dependency checks: " + "; ".join(report.problems))
            for pool in report.pools:
                await self._record_pool(pool)
            for found in sorted(report.found, key=lambda one: one.kind != "custom"):
                await self._record(found)  # volumes before the instances that name them
            return report

    # --- look ------------------------------------------------------------------------------------

    async def _look(self, wanted: Iterable[WantedPool]) -> Report:
        found, pools = list[Found](), list[Pool]()
        for one in list(wanted) or list(self._left_over()):
            pool = await self._open(one)
            if self._store.pools.get(keys.pool(pool.name)) is None:
                pools.append(pool)
            driver = self._host.driver(pool.driver)
            found += await asyncio.to_thread(self._unknown, pool, driver)
        problems = {problem for one in found for problem in self._problems(one)}
        return Report(tuple(found), tuple(sorted(problems)), tuple(pools))

    def _left_over(self) -> Iterator[WantedPool]:
        """Yield the recorded pools, and those that lie in our own folders without a record."""
        recorded = [entry.record for entry in self._store.pools.entries()]
        for pool in recorded:
            if pool.status == "Created":
                yield WantedPool(pool.name)
        known = {pool.name for pool in recorded}
        for image in sorted((self._state_dir / "disks").glob("*")):
            if image.stem not in known and image.suffix in _DRIVER_OF_FILE:
                yield WantedPool(image.stem, _DRIVER_OF_FILE[image.suffix], config={"source": str(image)})
                known.add(image.stem)
        for folder in sorted((self._state_dir / "pools").glob("*")):
            if folder.name not in known and notes.names(folder):
                yield WantedPool(folder.name, "dir", config={"source": str(folder)})

    async def _open(self, wanted: WantedPool) -> Pool:
        entry = self._store.pools.get(keys.pool(pool_name(wanted.name)))
        if entry is not None:
            if entry.record.status != "Created":
                raise WrongState("POOL_NOT_READY", f"Storage pool {wanted.name!r} cannot be used")
            return entry.record
        driver = self._host.driver(wanted.driver)
        check_pool(wanted.driver, wanted.config)
        if not wanted.config.get("source"):
            raise Invalid("NO_SOURCE", f"Say where the pool {wanted.name!r} lies: source=...")
        await driver.ensure_open(wanted.name, wanted.config)
        note = await asyncio.to_thread(notes.read, driver.folder(wanted.name), noted.POOL)
        told = noted.parse(note) if isinstance(note, dict) else None
        was = told.pool if told else Pool()
        return Pool(
            wanted.name,
            wanted.driver,
            wanted.description or was.description,
            {**was.config, **wanted.config},
            member=self._member,
        )

    async def _close(self, report: Report) -> None:
        for pool in report.pools:
            try:
                await self._host.driver(pool.driver).close_pool(pool.name, pool.config)
            except (PodiumError, OSError) as exc:
                log.warning("pool_not_closed", pool=pool.name, error=str(exc))

    def _unknown(self, pool: Pool, driver: StorageDriver) -> list[Found]:
        """Return what the notes of a pool tell of that is there and not recorded. Blocks."""
        found = list[Found]()
        for plain in notes.read_all(driver.folder(pool.name)).values():
            note = noted.parse(plain)
            if note is None or note.kind == noted.POOL or note.ids & self._known():
                continue
            kind = VolumeKind.CONTAINERS if note.kind == noted.INSTANCE else VolumeKind.CUSTOM
            own = note.instance.id if note.kind == noted.INSTANCE else note.volume.id
            if driver.volume(pool.name, own, kind).exists():
                found.append(Found(pool, _within(note, pool, driver)))
        return sorted(found, key=lambda one: (one.project, one.kind, one.name))

    def _known(self) -> set[str]:
        return {e.record.id for e in self._store.instances.entries()} | {
            e.record.id for e in self._store.volumes.entries()
        }

    def _problems(self, found: Found) -> Iterator[str]:
        """Yield what must be there, or must not, in LXD's words where it has some."""
        project, name = found.project, found.name
        if self._store.projects.get(keys.project(project)) is None:
            yield f'Project "{project}"'
            return
        if found.kind == "custom":
            if self._store.volumes.get(keys.volume(found.pool.name, project, name)):
                yield f'Custom volume "{name}" in project "{project}" already exists'
            return
        if self._store.instances.get(keys.instance(project, name)):
            yield f'Instance "{name}" in project "{project}" already exists'
        home, instance = self._store.home_of(project, "profiles"), found.note.instance
        for profile in instance.profiles:
            if self._store.profiles.get(keys.profile(home, profile)) is None:
                yield f'Profile "{profile}" in project "{home}"'
        networks = self._store.network_types()
        for options in instance.devices.values():
            if options.get("type") == "nic" and options.get("network", "") not in {"", *networks}:
                yield f'Network "{options["network"]}" in project "default"'

    # --- record ----------------------------------------------------------------------------------

    async def _record_pool(self, pool: Pool) -> None:
        who = current_identity().as_dict()
        told = Event("storage-pool-created", "storage-pools", "default", pool.name, who)
        key = keys.pool(pool.name)
        await self._store.commit(Txn().absent(key).put(key, pool).emit(told))

    async def _record(self, found: Found) -> None:
        txn = self._instance(found) if found.kind == "container" else self._volume(found)
        try:
            await self._store.commit(txn)
        except Stale as exc:
            raise WrongState("CHANGED", f"{found.name!r} changed meanwhile; recover again") from exc
        log.info("recovered", kind=found.kind, project=found.project, name=found.name)

    def _instance(self, found: Found) -> Txn:
        note, txn = found.note, Txn()
        instance = replace(note.instance, pool=found.pool.name, member=self._member)
        instance = self._rooted(replace(instance, name=instance_name(instance.name)))
        # As a change of itself: a disk whose source is gone must not keep it from coming back.
        expanded = self._policy.admit(txn, instance, replaces=instance)
        want = idmaps.wanted(expanded.config)
        if self._is_taken(instance.idmap_base) or not idmaps.fits(instance, want):
            instance = ids.decide(self._store, instance, want)
        key = keys.instance(instance.project, instance.name)
        ids.claim(txn, self._member, instance)
        volatile = when_down(dict(note.volatile)) | ids.volatile(instance, expanded.config)
        txn.absent(key).put(key, instance)
        txn.put(
            keys.observed(instance.id),
            InstanceObserved(instance.id, instance.project, instance.name, "stopped", volatile=volatile),
        )
        for snapshot in note.snapshots:
            kept = replace(snapshot, instance=replace(snapshot.instance, pool=found.pool.name))
            txn.put(keys.snapshot(instance.id, snapshot.name), kept)
        who = current_identity().as_dict()
        return txn.emit(Event("instance-created", "instances", instance.project, instance.name, who))

    def _rooted(self, instance: Instance) -> Instance:
        """Return *instance* with a root disk in its pool: that of its profile may be lost, or another."""
        devices = self._host.expanded(instance).devices
        roots = [name for name, options in devices.items() if disk.is_root(options)]
        if len(roots) == 1 and devices[roots[0]].get("pool") == instance.pool:
            return instance
        name = roots[0] if roots else next(n for n in ("root", "root0", "root1") if n not in devices)
        root = {**devices.get(name, {}), "type": "disk", "path": "/", "pool": instance.pool}
        return replace(instance, devices={**instance.devices, name: root})

    def _is_taken(self, base: int) -> bool:
        return any(entry.record.base == base for entry in self._store.idmaps.entries())

    def _volume(self, found: Found) -> Txn:
        note, txn = found.note, Txn()
        volume = replace(note.volume, pool=found.pool.name, status="Created", operation="")
        volume_name(volume.name)
        self._policy.admit_volume(txn, volume, is_new=True)
        txn.absent(key_of(volume)).put(key_of(volume), volume)
        for snapshot in note.volume_snapshots:
            txn.put(keys.volume_snapshot(volume.id, snapshot.name), snapshot)
        return txn.emit(event("storage-volume-created", volume))


def _within(note: Note, pool: Pool, driver: StorageDriver) -> Note:
    """Return *note* with those snapshots that are there, as snapshots of what it is about."""

    def is_there(id: str, kind: VolumeKind) -> bool:
        return driver.volume(pool.name, id, kind).exists()

    snapshots = (replace(s, instance_id=note.instance.id) for s in note.snapshots)
    own = (replace(s, volume_id=note.volume.id) for s in note.volume_snapshots)
    return replace(
        note,
        snapshots=tuple(s for s in snapshots if is_there(s.id, VolumeKind.CONTAINERS)),
        volume_snapshots=tuple(s for s in own if is_there(s.id, VolumeKind.CUSTOM)),
    )
