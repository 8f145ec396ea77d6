"""Whether a changed profile or project fits what exists, proved in the transaction that writes it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from core.configkeys.project import is_bounded, is_restricted
from core.errors import NotFound, PodiumError, Stale, error_of
from core.policy import limits, restrictions
from core.policy.expansion import expand
from core.policy.subjects import Held, Subject
from core.projects import home_of
from core.records import Instance, Profile, Project
from core.state import keys
from core.state.store import Txn
from services.cluster.store import ClusterStore

Find = Callable[[str], Profile]


class Admission:
    def __init__(self, store: ClusterStore) -> None:
        self._store = store

    def admit_profile(self, txn: Txn, profile: Profile, *, verb: str = "update") -> None:
        """Check *profile* in all projects that use it, and let *txn* fail when one of them changes.

        Raises: Forbidden, LimitReached, Invalid, Stale.
        """
        for entry in self._store.project_cache.entries():
            project = entry.record
            if self._home(project.name) != profile.project:
                continue
            txn.unchanged(keys.project(project.name), entry.revision)
            if is_bounded(project.config) or is_restricted(project.config):
                self._guard_instances(txn, project.name)
                with _before(f"Failed checking if profile {verb} allowed: "):
                    self._check_users(project, profile)

    def admit_project(self, txn: Txn, old: Project, new: Project) -> None:
        """Check that what *old* holds fits *new*, and let *txn* fail when that changes.

        Raises: Forbidden, LimitReached, Invalid, Stale.
        """
        self._guard_instances(txn, new.name)
        txn.prefix_unchanged(keys.VOLUMES, self._store.volumes.revision)
        txn.prefix_unchanged(keys.profiles(self._home(new.name)), self._store.profile_cache.revision)
        held = self.held(new.name)
        changed = [k for k in sorted({*old.config, *new.config}) if old.config.get(k) != new.config.get(k)]
        if reason := next((k for k in changed if k.startswith("restricted")), ""):
            profiles = self._store.profile_cache.entries(keys.profiles(new.name))
            subjects = [*held.containers, *(_subject(e.record) for e in profiles)]
            with _before(f'Conflict detected when changing "{reason}" in project "{new.name}": '):
                restrictions.check(new, subjects)
        limits.check_change(old, new, held)

    def held(self, project: str, changed: Profile | None = None) -> Held:
        """Return what a project holds, with *changed* in place of the profile of its name. Raises: Stale."""
        find = self._finder(project, changed)
        found = self._store.instances.entries(keys.instances(project))
        volumes = (e.record for e in self._store.volumes.entries() if e.record.project == project)
        return Held(tuple(_expanded(entry.record, find) for entry in found), tuple(volumes))

    def _check_users(self, project: Project, profile: Profile) -> None:
        held = self.held(project.name, profile)
        limits.check(project, held, is_new=False)
        own = [_subject(profile)] if profile.project == project.name else []
        restrictions.check(project, [*held.containers, *own])

    def _guard_instances(self, txn: Txn, project: str) -> None:
        txn.prefix_unchanged(keys.instances(project), self._store.instances.revision)

    def _finder(self, project: str, changed: Profile | None) -> Find:
        home = self._home(project)

        def find(name: str) -> Profile:
            if changed and (home, name) == (changed.project, changed.name):
                return changed
            entry = self._store.profile_cache.get(keys.profile(home, name))
            if entry is None:
                raise Stale("NOT_SEEN", f"Profile {name!r} is changing; try again", about=name)
            return entry.record

        return find

    def _home(self, project: str) -> str:
        try:
            return home_of(self._store.project_cache, project, "profiles")
        except NotFound:
            return ""


def _expanded(instance: Instance, find: Find) -> Subject:
    found = expand((find(name) for name in instance.profiles), instance)
    return Subject("container", instance.name, found.config, found.devices)


def _subject(profile: Profile) -> Subject:
    return Subject("profile", profile.name, profile.config, profile.devices)


@contextlib.contextmanager
def _before(words: str) -> Iterator[None]:
    try:
        yield
    except Stale:
        raise
    except PodiumError as exc:
        raise error_of(exc.kind, exc.reason, f"{words}{exc.message}", exc.about) from None
