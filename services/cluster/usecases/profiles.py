"""Profiles: create, change, rename, delete."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

from core.errors import AlreadyExists, NotFound, Stale, WrongState
from core.events import Event
from core.names import plain_name
from core.projects import DEFAULT, home_of
from core.records import Instance, Profile
from core.rpc.identity import current_identity
from core.state import keys
from core.state.repository import Entry
from core.state.store import Txn
from services.cluster.domain import rules
from services.cluster.store import ClusterStore

# About three seconds: a cache may be that late when etcd has just come back.
_PAUSES_S = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)


def event(action: str, kind: str, project: str, name: str) -> Event:
    return Event(action, kind, project, name, current_identity().as_dict())


class Profiles:
    def __init__(self, store: ClusterStore) -> None:
        self._store = store

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
        plain_name("profile", profile.name)
        if self._store.project_cache.get(keys.project(profile.project)) is None:
            raise NotFound("NO_PROJECT", "Project not found", about=profile.project)
        made = event("profile-created", "profiles", profile.project, profile.name)
        entry = await self._store.profiles.create(rules.checked_profile(profile), emit=[made])
        self._remember(entry)
        return entry

    async def update(self, profile: Profile, *, merge: bool, expected_revision: int) -> Entry[Profile]:
        entry = await self._store.profiles.get(keys.profile(profile.project, profile.name))
        if expected_revision and entry.revision != expected_revision:
            raise Stale("STALE", "The profile was changed meanwhile; read it again", about=profile.name)
        changed = rules.checked_profile(_merged(entry.record, profile) if merge else profile)
        told = event("profile-updated", "profiles", profile.project, profile.name)
        new = await self._store.profiles.replace(entry, changed, emit=[told])
        self._remember(new)
        return new

    async def rename(self, project: str, name: str, new_name: str) -> Entry[Profile]:
        rules.protect_default("profile", name, "renamed")
        plain_name("profile", new_name)
        entry = self.get(project, name)
        seen = self._store.instances.revision
        self._refuse_used(entry.record)
        record = replace(entry.record, name=new_name)
        old_key, new_key = keys.profile(project, name), keys.profile(project, new_name)
        if new_name == name or self._store.profile_cache.get(new_key):
            raise AlreadyExists("EXISTS", f"Profile {new_name!r} already exists", about=new_name)
        txn = Txn().unchanged(old_key, entry.revision).absent(new_key).delete(old_key).put(new_key, record)
        txn.prefix_unchanged(_users_prefix(project), seen)
        txn.emit(event("profile-renamed", "profiles", project, new_name))
        revision = await self._store.store.commit(txn)
        self._store.profile_cache.apply(old_key, None, revision)
        self._store.profile_cache.apply(new_key, record, revision)
        return Entry(record, revision)

    async def delete(self, project: str, name: str) -> None:
        """Delete a profile that no instance uses, proved in the transaction. Raises: WrongState, Stale."""
        rules.protect_default("profile", name, "deleted")
        key = keys.profile(project, name)
        for pause_s in _PAUSES_S:
            seen = self._store.instances.revision
            self._refuse_used(self.get(project, name).record)
            txn = Txn().exists(key).prefix_unchanged(_users_prefix(project), seen).delete(key)
            txn.emit(event("profile-deleted", "profiles", project, name))
            try:
                return self._store.profile_cache.apply(key, None, await self._store.store.commit(txn))
            except Stale:
                # An instance changed that our cache does not show yet; look again when it does.
                await asyncio.sleep(pause_s)
        raise Stale("BUSY_PROJECT", "Instances of the project keep changing; try again", about=name)

    def _refuse_used(self, profile: Profile) -> None:
        if users := self.users(profile):
            raise WrongState(
                "PROFILE_IN_USE", f"Profile is currently in use by {', '.join(users[:3])}", about=profile.name
            )

    def _remember(self, entry: Entry[Profile]) -> None:
        key = keys.profile(entry.record.project, entry.record.name)
        self._store.profile_cache.apply(key, entry.record, entry.revision)


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
