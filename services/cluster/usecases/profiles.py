"""Profiles: create, change, rename, delete."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

from core.configkeys.schema import without_empty
from core.errors import AlreadyExists, LimitReached, NotFound, Stale, WrongState
from core.events import Event
from core.names import profile_name
from core.projects import DEFAULT, home_of
from core.records import Instance, Profile
from core.rpc.identity import current_identity
from core.state import codec, keys
from core.state.repository import Entry
from core.state.store import Txn
from services.cluster.domain import rules
from services.cluster.store import ClusterStore
from services.cluster.usecases.admission import Admission
from services.cluster.usecases.attempts import confirm, until_settled

Extra = dict[str, Any] | None
# One transaction of etcd; see --max-txn-ops in deploy/supervisor.py.
MAX_RENAMED = 1500


def event(action: str, kind: str, project: str, name: str, **context: str) -> Event:
    return Event(action, kind, project, name, current_identity().as_dict(), context)


class Profiles:
    def __init__(self, store: ClusterStore, admission: Admission) -> None:
        self._store = store
        self._admission = admission

    def get(self, project: str, name: str) -> Entry[Profile]:
        entry = self._store.profile_cache.get(keys.profile(project, name))
        if entry is None:
            raise NotFound("NO_PROFILE", "Profile not found", about=name)
        return entry

    def all(self, project: str) -> list[Entry[Profile]]:
        return self._store.profile_cache.entries(keys.profiles(project))

    def users(self, profile: Profile) -> list[str]:
        return rules.profile_users(profile, self._instances_of(profile.project))

    def _instances_of(self, home: str) -> list[Instance]:
        """Return the instances whose profiles live in *home*: those of projects that share it as well."""
        sharing: dict[str, bool] = {}
        return [i for i in self._store.instance_records() if self._is_shared(home, i.project, sharing)]

    def _is_shared(self, home: str, project: str, known: dict[str, bool]) -> bool:
        if project not in known:
            known[project] = project == home
            with contextlib.suppress(NotFound):
                known[project] = home_of(self._store.project_cache, project, "profiles") == home
        return known[project]

    async def create(self, profile: Profile) -> Entry[Profile]:
        """Raises: Invalid, NotFound, AlreadyExists, Forbidden."""
        profile_name(profile.name)
        if self._store.project_cache.get(keys.project(profile.project)) is None:
            said = f'Failed loading project "{profile.project}": Project not found'
            raise NotFound("NO_PROJECT", said, about=profile.project)
        wanted = replace(profile, config=without_empty(profile.config))
        key = keys.profile(profile.project, profile.name)

        async def attempt() -> Entry[Profile]:
            if self._store.profile_cache.get(key):
                said = f'Error inserting "{profile.name}" into database: The profile already exists'
                raise AlreadyExists("EXISTS", said, about=profile.name)
            txn = Txn().absent(key)
            self._admission.admit_profile(txn, wanted, verb="creation")
            made = rules.checked_profile(wanted, await self._store.managed_networks())
            txn.put(key, made).emit(event("profile-created", "profiles", profile.project, profile.name))
            return self._remember(made, await self._store.store.commit(txn))

        return await until_settled(attempt, busy=_busy(profile.name))

    async def update(self, profile: Profile, *, merge: bool, expected_revision: int) -> Entry[Profile]:
        """Raises: NotFound, Stale, Invalid, and what the instances that use it may not be."""
        key = keys.profile(profile.project, profile.name)

        async def attempt() -> Entry[Profile]:
            entry = await self._store.profiles.get(key)
            entry.expect(expected_revision, "profile", profile.name)
            wanted = _merged(entry.record, profile) if merge else profile
            txn = Txn().unchanged(key, entry.revision)
            self._keep_root(txn, entry.record, wanted)
            self._admission.admit_profile(txn, replace(wanted, config=without_empty(wanted.config)))
            new = rules.checked_profile(wanted, await self._store.managed_networks())
            txn.put(key, codec.encode(new, entry.extra))
            txn.emit(event("profile-updated", "profiles", profile.project, profile.name))
            return self._remember(new, await self._store.store.commit(txn), entry.extra)

        return await until_settled(attempt, busy=_busy(profile.name))

    def _keep_root(self, txn: Txn, old: Profile, new: Profile) -> None:
        """Refuse to take the root disk from instances that have it from here, or to name another pool.

        Raises: WrongState.
        """
        device, pool = rules.root_disk(old.devices)
        if not pool or rules.root_disk(new.devices)[1] == pool:
            return
        txn.prefix_unchanged(_users_prefix(old.project), self._store.instances.revision)
        users = (i for i in self._instances_of(old.project) if old.name in i.profiles)
        if any(self._gives_root(old, device, instance) for instance in users):
            words = "At least one instance relies on this profile's root disk device"
            raise WrongState("ROOT_IN_USE", words, about=old.name)

    def _gives_root(self, profile: Profile, device: str, instance: Instance) -> bool:
        """Say whether *instance* has its root disk from *profile*: the last that names the device counts."""
        if rules.root_disk(instance.devices)[1]:
            return False
        for name in reversed(instance.profiles):
            entry = self._store.profile_cache.get(keys.profile(profile.project, name))
            if entry and device in entry.record.devices:
                return name == profile.name
        return False

    async def rename(self, project: str, name: str, new_name: str) -> Entry[Profile]:
        """Rename a profile; the instances that use it name it anew in the same transaction.

        This is the one place where records of instances are written by another service than the runtime.
        """
        rules.protect_default("profile", name, "renamed")
        profile_name(new_name)

        async def attempt() -> Entry[Profile]:
            return await self._rename(self.get(project, name), new_name)

        return await until_settled(attempt, busy=_busy(name))

    async def _rename(self, entry: Entry[Profile], new_name: str) -> Entry[Profile]:
        old = entry.record
        old_key, new_key = keys.profile(old.project, old.name), keys.profile(old.project, new_name)
        if new_name == old.name or self._store.profile_cache.get(new_key):
            raise AlreadyExists("EXISTS", f'Name "{new_name}" already in use', about=new_name)
        record = replace(old, name=new_name)
        txn = Txn().unchanged(old_key, entry.revision).absent(new_key).delete(old_key)
        txn.put(new_key, codec.encode(record, entry.extra))
        txn.prefix_unchanged(_users_prefix(old.project), self._store.instances.revision)
        for user in self._store.instances.entries():
            if old.name in user.record.profiles and self._is_shared(old.project, user.record.project, {}):
                names = tuple(new_name if n == old.name else n for n in user.record.profiles)
                key = keys.instance(user.record.project, user.record.name)
                txn.put(key, codec.encode(replace(user.record, profiles=names), user.extra))
        if len(txn.puts) > MAX_RENAMED:
            raise LimitReached(
                "TOO_MANY_USERS",
                f"More than {MAX_RENAMED} instances use this profile; make a copy and assign that",
                about=old.name,
            )
        txn.emit(event("profile-renamed", "profiles", old.project, new_name, old_name=old.name))
        revision = await self._store.store.commit(txn)
        self._store.profile_cache.apply(old_key, None, revision)
        return self._remember(record, revision, entry.extra)

    async def delete(self, project: str, name: str) -> None:
        """Delete a profile that no instance uses, proved in the transaction. Raises: WrongState, Stale."""
        rules.protect_default("profile", name, "deleted")
        key = keys.profile(project, name)

        async def attempt() -> None:
            seen = self._store.instances.revision
            await self._refuse_used(self.get(project, name).record)
            txn = Txn().exists(key).prefix_unchanged(_users_prefix(project), seen).delete(key)
            txn.emit(event("profile-deleted", "profiles", project, name))
            self._store.profile_cache.apply(key, None, await self._store.store.commit(txn))

        await until_settled(attempt, busy=_busy(name))

    async def _refuse_used(self, profile: Profile) -> None:
        """Raises: WrongState; Stale, see confirm()."""
        for user in self._instances_of(profile.project):
            if profile.name not in user.profiles:
                continue
            key = keys.instance(user.project, user.name)
            entry = self._store.instances.get(key)
            await confirm(self._store.store, key, entry.revision if entry else 0)
            raise WrongState("PROFILE_IN_USE", "Profile is currently in use", about=profile.name)

    def _remember(self, profile: Profile, revision: int, extra: Extra = None) -> Entry[Profile]:
        self._store.profile_cache.apply(keys.profile(profile.project, profile.name), profile, revision)
        return Entry(profile, revision, extra)


def _busy(name: str) -> Stale:
    return Stale("BUSY_PROJECT", "Instances of the project keep changing; try again", about=name)


def _users_prefix(home: str) -> str:
    """Return below which prefix an instance that uses a profile of *home* may appear."""
    return keys.INSTANCES if home == DEFAULT else keys.instances(home)


def _merged(old: Profile, new: Profile) -> Profile:
    return replace(
        old,
        description=new.description or old.description,
        config={**old.config, **new.config},
        devices={**old.devices, **new.devices},
    )
