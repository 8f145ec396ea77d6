"""Custom volumes: create, change, rename, delete, and who uses them."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from core.errors import AlreadyExists, Busy, NotFound, PodiumError, Stale, WrongState
from core.names import volume_name
from core.operations.operation import Context, Operation, Step, Story
from core.records import Instance, Pool, Volume
from core.state import codec, keys
from core.state.repository import Entry
from core.state.store import Txn
from core.units import parse_bytes
from services.runtime.domain import volumes as rules
from services.runtime.domain.lifecycle import STOPPED
from services.runtime.domain.volumes import Users, VolumeRef
from services.runtime.ports import VolumeKind
from services.runtime.usecases.host import Host
from services.runtime.usecases.policy import Policy
from services.runtime.usecases.volumes.claims import VolumeClaims, event, key_of

T = TypeVar("T")
# Pool, project and name of a volume.
Name = tuple[str, str, str]
_ATTEMPTS = 8
_PAUSE_S = 0.02
_CUSTOM = VolumeKind.CUSTOM


@dataclass(frozen=True)
class NewVolume:
    """What was asked for."""

    ref: VolumeRef
    content_type: str = ""
    description: str = ""
    config: dict[str, str] = field(default_factory=dict)


@dataclass
class _Found:
    """Who names a volume, by kind; *running* as in Users."""

    instances: list[str] = field(default_factory=list)
    profiles: list[str] = field(default_factory=list)
    running: list[str] = field(default_factory=list)


class Volumes:
    def __init__(self, host: Host, policy: Policy, claims: VolumeClaims) -> None:
        self._host = host
        self._policy = policy
        self._store = host.store
        self._claims = claims
        claims.runner.register(
            Story(
                "volume.create",
                "Creating storage volume",
                (Step("make", self._make, self.remove_folders),),
                on_failure=self.forget,
            ),
            Story("volume.update", "Updating storage volume", (Step("bound", self._bound, self._unbound),),
                  on_failure=self._as_before),
            Story("volume.delete", "Deleting storage volume", (Step("remove", self._remove),),
                  on_failure=self._broken),
        )  # fmt: skip

    # --- what is asked for -------------------------------------------------------------------------

    async def create(self, wanted: NewVolume) -> Operation:
        """Make an empty volume and return the final record. Raises: Invalid, NotFound, AlreadyExists."""
        content = rules.check_content(wanted.content_type)

        async def attempt() -> Operation:
            volume, txn = self.plan_new(wanted.ref, wanted.config, wanted.description)
            volume = replace(volume, content_type=content)
            return await self._claims.accept("volume.create", volume, txn, wait=True)

        return await self.again(attempt)

    def plan_new(
        self, ref: VolumeRef, config: dict[str, str], description: str, *, id: str = ""
    ) -> tuple[Volume, Txn]:
        """Return the record of a new volume, pending, and a transaction that holds only if it may be."""
        volume_name(ref.name)
        pool = self.ready_pool(ref.pool)
        home = self._store.home_of(ref.project, "storage.volumes")
        volume = Volume(
            id=id or str(uuid.uuid4()),
            pool=ref.pool,
            project=home,
            name=ref.name,
            description=description,
            config=rules.new_config(pool.record, home, ref.name, config),
            created_at=time.time(),
            status="Pending",
        )
        if self._store.volumes.get(key_of(volume)):
            raise taken(ref.name)
        txn = Txn().absent(key_of(volume))
        self._policy.admit_volume(txn, volume, is_new=True)
        return volume, txn.unchanged(keys.pool(ref.pool), pool.revision)

    def ready_pool(self, name: str) -> Entry[Pool]:
        entry = self._store.pool(name)
        if entry.record.status != "Created":
            why = entry.record.error or "it is being made or deleted"
            raise WrongState("POOL_NOT_READY", f"Storage pool {name!r} cannot be used: {why}", about=name)
        return entry

    async def update(
        self, ref: VolumeRef, config: dict[str, str], description: str | None, *, merge: bool, revision: int
    ) -> Operation:
        """Change keys and text, and return the final record. Raises: Invalid, NotFound, Stale, WrongState."""
        entry = await self._claims.free(lambda: self.find(ref))
        old = entry.record
        entry.expect(revision, "storage volume", ref.name)
        wanted = {**old.config, **config} if merge else config
        pool = self._store.pool(ref.pool).record
        new = replace(
            old,
            config=rules.checked_config(pool, old.project, old.name, wanted),
            description=old.description if description is None else description,
        )
        rules.check_change(old, new, self.users(old))
        txn = Txn().unchanged(key_of(old), entry.revision)
        self._policy.admit_volume(txn, new, is_new=False)
        remembered = {"old": codec.encode(replace(old, operation="")).decode()}
        return await self._claims.accept("volume.update", new, txn, input=remembered, wait=True)

    async def rename(self, ref: VolumeRef, new_name: str) -> None:
        """Give a volume that no running instance uses another name, and tell those that name it."""
        volume_name(new_name)
        await self.again(lambda: self._rename(ref, new_name))

    async def _rename(self, ref: VolumeRef, new_name: str) -> None:
        entry = await self._claims.free(lambda: self.find(ref))
        old, new = entry.record, replace(entry.record, name=new_name)
        if self._store.volumes.get(key_of(new)):
            raise taken(new_name)
        users = self.users(old)
        if users.running:
            raise WrongState("IN_USE", "Volume is still in use by running instances", about=old.name)
        if any(url.startswith("profiles/") for url in users.urls):
            raise WrongState(
                "IN_USE", "Volume is still in use by profiles; detach it there first", about=old.name
            )
        txn = Txn().unchanged(key_of(old), entry.revision).absent(key_of(new))
        txn.prefix_unchanged(keys.INSTANCES, self._store.instances.revision)
        for instance in self._naming(old):
            renamed = _renamed(instance.record, old, new_name)
            txn.put(keys.instance(renamed.project, renamed.name), renamed)
        txn.delete(key_of(old)).put(key_of(new), new)
        await self._store.commit(txn.emit(event("storage-volume-renamed", new, old_name=old.name)))

    async def delete(self, ref: VolumeRef) -> Operation:
        """Delete a volume that nothing uses, with its snapshots, and return the final record."""
        return await self.again(lambda: self._delete(ref))

    async def _delete(self, ref: VolumeRef) -> Operation:
        entry = await self._claims.free(lambda: self.find(ref))
        volume = entry.record
        if self.users(volume).urls:
            raise WrongState("IN_USE", "The storage volume is still in use", about=ref.name)
        txn = Txn().unchanged(key_of(volume), entry.revision)
        txn.prefix_unchanged(keys.INSTANCES, self._store.instances.revision)
        txn.prefix_unchanged(keys.PROFILES, self._store.profiles.revision)
        return await self._claims.accept("volume.delete", replace(volume, status="Deleting"), txn, wait=True)

    # --- what there is -----------------------------------------------------------------------------

    def find(self, ref: VolumeRef) -> Entry[Volume]:
        """Raises: NotFound."""
        return self._store.volume(ref.pool, ref.project, ref.name)

    def users(self, volume: Volume) -> Users:
        return self.all_users().get(_name_of(volume), Users())

    def all_users(self) -> dict[Name, Users]:
        """Return who names which volume, in one pass over all instances and profiles.

        Instances that have it by a profile are told by that profile, unless it names another: one of its own
        project.
        """
        found = defaultdict[Name, _Found](_Found)
        for profile in self._store.profiles.entries():
            for name in self._named(profile.record.project, profile.record.devices):
                found[name].profiles.append(
                    rules.url("profiles", profile.record.name, profile.record.project)
                )
        for entry in self._store.instances.entries():
            record = entry.record
            own = rules.named(record.devices)
            for name in self._named(record.project, self._host.expanded(record).devices):
                if (name[0], name[2]) in own or not found[name].profiles:
                    found[name].instances.append(rules.url("instances", record.name, record.project))
                if self._store.observed_of(record).record.status not in (STOPPED, "error"):
                    found[name].running.append(record.name)
        return {name: Users((*f.instances, *f.profiles), tuple(f.running)) for name, f in found.items()}

    def _named(self, project: str, devices: rules.Devices) -> set[Name]:
        found = rules.named(devices)
        home = self._home(project) if found else ""
        return {(pool, home, name) for pool, name in found}

    def _naming(self, volume: Volume) -> list[Entry[Instance]]:
        """Return the instances that name the volume, by themselves or by a profile."""
        return [
            entry
            for entry in self._store.instances.entries()
            if _name_of(volume)
            in self._named(entry.record.project, self._host.expanded(entry.record).devices)
        ]

    def _home(self, project: str) -> str:
        try:
            return self._store.home_of(project, "storage.volumes")
        except NotFound:
            return ""

    async def usage(self, volume: Volume) -> tuple[int | None, int]:
        """Return bytes used, None where the pool cannot tell, and the bound, 0 without one."""
        driver = self._host.driver_of(volume.pool)
        found = await driver.usage(volume.pool, [volume.id], kind=_CUSTOM)
        return found.get(volume.id), bound_of(volume)

    # --- steps -----------------------------------------------------------------------------------

    async def _make(self, ctx: Context) -> None:
        volume = self._claims.of(ctx)
        driver = self._host.driver_of(volume.pool)
        await driver.ensure_volume(volume.pool, volume.id, kind=_CUSTOM, size=bound_of(volume))
        self.made(ctx, volume)

    def made(self, ctx: Context, volume: Volume, *, without: Volume | None = None) -> None:
        """Put into the outcome that *volume* is there, and *without* no more."""
        if without:
            self._drop(ctx.txn, without)
        self._claims.settle(ctx, ctx.txn, replace(volume, status="Created"), without=without)
        ctx.txn.emit(event("storage-volume-created", volume, ctx))

    async def remove_folders(self, ctx: Context) -> None:
        """Take a volume and its snapshots from the pool. Idempotent."""
        await self.remove_of(self._claims.of(ctx))

    async def remove_of(self, volume: Volume) -> None:
        driver = self._host.driver_of(volume.pool)
        for entry in self._store.snapshots_of_volume(volume):
            await driver.delete_volume(volume.pool, entry.record.id, kind=_CUSTOM)
        await driver.delete_volume(volume.pool, volume.id, kind=_CUSTOM)

    async def forget(self, ctx: Context) -> None:
        """A volume was not made: its name is free again at once."""
        self._forget(ctx, ctx.undo_txn, self._claims.of(ctx))

    def _forget(self, ctx: Context, txn: Txn, volume: Volume) -> None:
        self._drop(txn, volume)
        self._claims.settle(ctx, txn, None)

    def _drop(self, txn: Txn, volume: Volume) -> None:
        for entry in self._store.snapshots_of_volume(volume):
            txn.delete(keys.volume_snapshot(volume.id, entry.record.name))
        for backup in self._store.backups.below(keys.backups(volume.id)):
            txn.delete(keys.backup(volume.id, backup.record.name))
        txn.delete(key_of(volume))

    async def _remove(self, ctx: Context) -> None:
        await self.remove_folders(ctx)
        volume = self._claims.of(ctx)
        self._forget(ctx, ctx.txn, volume)
        ctx.txn.emit(event("storage-volume-deleted", volume, ctx))

    async def _broken(self, ctx: Context) -> None:
        """A volume that could not be removed keeps its name, by which it is tried again."""
        self._claims.settle(ctx, ctx.undo_txn, self._claims.of(ctx))

    async def _bound(self, ctx: Context) -> None:
        new, old = self._claims.of(ctx), _old(ctx)
        await self._check_bound(new, old)
        await self._set_bound(new, unless=old)
        self._claims.settle(ctx, ctx.txn, new)
        ctx.txn.emit(event("storage-volume-updated", new, ctx))

    async def _unbound(self, ctx: Context) -> None:
        await self._set_bound(_old(ctx), unless=self._claims.of(ctx))

    async def _check_bound(self, new: Volume, old: Volume) -> None:
        """Raises: WrongState when the volume would become smaller than what is in it."""
        size = bound_of(new)
        if not size or size == bound_of(old):
            return
        await self._host.driver_of(new.pool).settle(new.pool)
        used, _ = await self.usage(new)
        if (used or 0) > size:
            why = f"The storage volume holds {used} bytes, more than {size}"
            raise WrongState("TOO_SMALL", why, about=new.name)

    async def _set_bound(self, volume: Volume, *, unless: Volume) -> None:
        if bound_of(volume) != bound_of(unless):
            driver = self._host.driver_of(volume.pool)
            await driver.set_quota(volume.pool, volume.id, bound_of(volume), kind=_CUSTOM)

    async def _as_before(self, ctx: Context) -> None:
        self._claims.settle(ctx, ctx.undo_txn, _old(ctx))

    async def again(self, work: Callable[[], Awaitable[T]]) -> T:
        """Decide anew while others change what was decided on. Raises: Busy."""
        for _ in range(_ATTEMPTS):
            try:
                return await work()
            except Stale:
                await asyncio.sleep(_PAUSE_S)
        raise Busy("BUSY", "Too much changes right now; try again")


def _name_of(volume: Volume) -> Name:
    return volume.pool, volume.project, volume.name


def bound_of(volume: Volume) -> int:
    """Return the bound in bytes, 0 for none."""
    return parse_bytes(volume.config.get("size") or "0")


def taken(name: str) -> PodiumError:
    return AlreadyExists("EXISTS", "Volume by that name already exists", about=name)


def _old(ctx: Context) -> Volume:
    return codec.decode(Volume, ctx.input["old"].encode())


def _renamed(instance: Instance, volume: Volume, name: str) -> Instance:
    naming = rules.names(instance.devices, volume.pool, volume.name)
    return replace(
        instance,
        devices={
            device: {**options, "source": name} if device in naming else options
            for device, options in instance.devices.items()
        },
    )
