"""The records this service writes, and the caches it answers from."""

from __future__ import annotations

from typing import Any

from core.errors import NotFound
from core.policy.expansion import Expanded, expand
from core.projects import home_of
from core.records import (
    Backup,
    IdmapBlock,
    Instance,
    InstanceObserved,
    Network,
    NicReservation,
    Pool,
    Profile,
    Project,
    ProjectGuard,
    Snapshot,
    Volume,
    VolumeSnapshot,
)
from core.state import codec, keys
from core.state.around import Around
from core.state.cache import Cache
from core.state.repository import Entry
from core.state.store import Store, Txn, Unknown
from services.runtime.memberpools import MemberPools


class RuntimeStore(Around):
    """A store whose own commits are in the caches when commit() returns: we read what we wrote."""

    def __init__(self, inner: Store, member: str = "") -> None:
        super().__init__(inner)
        self.instances = Cache(inner, Instance, keys.INSTANCES)
        self.observed = Cache(inner, InstanceObserved, keys.OBSERVED)
        self.snapshots = Cache(inner, Snapshot, keys.SNAPSHOTS)
        self.backups = Cache(inner, Backup, keys.BACKUPS)
        self.idmaps = Cache(inner, IdmapBlock, keys.IDMAPS)
        self.pools = MemberPools(inner, member)
        self.volumes = Cache(inner, Volume, keys.VOLUMES)
        self.volume_snapshots = Cache(inner, VolumeSnapshot, keys.VOLUME_SNAPSHOTS)
        self.profiles = Cache(inner, Profile, keys.PROFILES)
        self.projects = Cache(inner, Project, keys.PROJECTS)
        self.guards = Cache(inner, ProjectGuard, keys.PROJECT_GUARDS)
        self.nics = Cache(inner, NicReservation, keys.NICS)
        self.networks = Cache(inner, Network, keys.NETWORKS)
        self._own: list[tuple[str, type[Any], Cache[Any]]] = [
            (keys.INSTANCES, Instance, self.instances),
            (keys.OBSERVED, InstanceObserved, self.observed),
            (keys.SNAPSHOTS, Snapshot, self.snapshots),
            (keys.BACKUPS, Backup, self.backups),
            (keys.IDMAPS, IdmapBlock, self.idmaps),
            (keys.POOLS, Pool, self.pools),
            (keys.POOL_COPIES, Pool, self.pools.copies),
            (keys.VOLUMES, Volume, self.volumes),
            (keys.VOLUME_SNAPSHOTS, VolumeSnapshot, self.volume_snapshots),
            (keys.PROJECT_GUARDS, ProjectGuard, self.guards),
        ]
        # By id of the instance, with the very record that it was made of.
        self._expanded: dict[str, tuple[Instance, Expanded]] = {}
        for cache in (self.profiles, self.projects):
            cache.on_change(lambda key, entry: self._expanded.clear())
        self.instances.on_change(lambda key, entry: None if entry else self._expanded.clear())

    async def start(self) -> None:
        for cache in self._caches():
            await cache.start()

    async def stop(self) -> None:
        for cache in self._caches():
            await cache.stop()

    def _caches(self) -> list[Cache[Any]]:
        return [cache for cache in vars(self).values() if isinstance(cache, Cache)]

    @property
    def unknown(self) -> Unknown:
        return self._inner.unknown

    async def commit(self, txn: Txn) -> int:
        revision = await self._inner.commit(txn)
        for key, value in txn.puts.items():
            self._apply(key, value, revision)
        for key in txn.deletes:
            self._apply(key, None, revision)
        return revision

    def _apply(self, key: str, value: bytes | None, revision: int) -> None:
        for prefix, cls, cache in self._own:
            if key.startswith(prefix):
                cache.apply(key, None if value is None else codec.decode(cls, value), revision)

    def instance(self, project: str, name: str) -> Entry[Instance]:
        """Raises: NotFound."""
        entry = self.instances.get(keys.instance(project, name))
        if entry is None:
            raise NotFound("NO_INSTANCE", "Instance not found", about=name)
        return entry

    def find_instance(self, id: str) -> Instance | None:
        """Return the instance of that id, whatever it is called and in whichever project."""
        entry = self.instances.find(lambda instance: instance.id == id)
        return entry.record if entry else None

    def observed_of(self, instance: Instance) -> Entry[InstanceObserved]:
        entry = self.observed.get(keys.observed(instance.id))
        return entry or Entry(InstanceObserved(instance.id, instance.project, instance.name, "error"), 0)

    def instance_snapshots(self, instance: Instance) -> list[Entry[Snapshot]]:
        """Return all snapshots of an instance, half-made ones among them, the oldest first."""
        found = self.snapshots.below(keys.snapshots(instance.id))
        return sorted(found, key=lambda entry: entry.record.created_at)

    def whole_snapshots(self, instance: Instance) -> list[Snapshot]:
        """Return those that are neither being made nor deleted, the oldest first."""
        found = (entry.record for entry in self.instance_snapshots(instance))
        return [snapshot for snapshot in found if snapshot.status == "Created"]

    def snapshot(self, instance: Instance, name: str) -> Entry[Snapshot]:
        """Return a snapshot that is whole, or was until its deletion began. Raises: NotFound."""
        entry = self.snapshots.get(keys.snapshot(instance.id, name))
        if entry is None or entry.record.status == "Pending":
            raise NotFound(
                "NO_SNAPSHOT",
                f'Failed to fetch snapshot "{name}" of instance "{instance.name}" in project '
                f'"{instance.project}": InstanceSnapshot not found',
                about=name,
            )
        return entry

    def backups_of(self, instance: Instance) -> list[Entry[Backup]]:
        return self.backups.below(keys.backups(instance.id))

    def backup(self, instance: Instance, name: str) -> Entry[Backup]:
        """Raises: NotFound, in LXD's words."""
        entry = self.backups.get(keys.backup(instance.id, name))
        if entry is None:
            raise NotFound("NO_BACKUP", "Load backup from database: Instance backup not found", about=name)
        return entry

    def pool(self, name: str) -> Entry[Pool]:
        """Raises: NotFound."""
        entry = self.pools.get(keys.pool(name))
        if entry is None:
            raise NotFound("NO_POOL", "Storage pool not found", about=name)
        return entry

    def volume(self, pool: str, project: str, name: str) -> Entry[Volume]:
        """Return a custom volume as *project* sees it. Raises: NotFound."""
        self.pool(pool)
        entry = self.volumes.get(keys.volume(pool, self.home_of(project, "storage.volumes"), name))
        if entry is None:
            raise NotFound("NO_VOLUME", "Storage pool volume not found", about=name[:64])
        return entry

    def snapshots_of_volume(self, volume: Volume) -> list[Entry[VolumeSnapshot]]:
        """Return the snapshots of a custom volume, the oldest first."""
        found = self.volume_snapshots.below(keys.volume_snapshots(volume.id))
        return sorted(found, key=lambda entry: entry.record.created_at)

    def network_types(self) -> dict[str, str]:
        """Return the types of managed networks by name."""
        return {entry.record.name: entry.record.type for entry in self.networks.entries()}

    def nics_of(self, instance_id: str) -> list[NicReservation]:
        return [entry.record for entry in self.nics.below(keys.nics(instance_id))]

    def home_of(self, project: str, feature: str) -> str:
        """Return the project whose profiles or images *project* uses. Raises: NotFound."""
        return home_of(self.projects, project, feature)

    def expanded(self, instance: Instance) -> Expanded:
        """Return what it is after its profiles were applied; kept, since lists and timers ask for all.

        Raises: NotFound.
        """
        made_of, found = self._expanded.get(instance.id, (None, None))
        if made_of is instance and found:
            return found
        made = expand(self.profiles_of(instance.project, instance.profiles), instance)
        self._expanded[instance.id] = (instance, made)
        return made

    def profiles_of(self, project: str, names: tuple[str, ...]) -> list[Profile]:
        """Raises: NotFound."""
        home = self.home_of(project, "profiles")
        found = []
        for name in names:
            entry = self.profiles.get(keys.profile(home, name))
            if entry is None:
                raise NotFound("NO_PROFILE", f'Profile "{name}" not found', about=name)
            found.append(entry.record)
        return found
