"""Projects: create with a default profile, change, delete when empty."""

from __future__ import annotations

from dataclasses import replace

from core.configkeys.others import PROJECT
from core.configkeys.schema import without_empty
from core.errors import AlreadyExists, NotFound, Stale, WrongState
from core.names import project_name
from core.records import Profile, Project
from core.state import keys
from core.state.repository import Entry
from core.state.store import Txn
from services.cluster.domain import rules
from services.cluster.store import ClusterStore
from services.cluster.usecases.profiles import event

_DEFAULTS = {"features.images": "true", "features.profiles": "true", "features.storage.volumes": "true"}


class Projects:
    def __init__(self, store: ClusterStore) -> None:
        self._store = store

    def get(self, name: str) -> Entry[Project]:
        entry = self._store.project_cache.get(keys.project(name))
        if entry is None:
            raise NotFound("NO_PROJECT", "Project not found", about=name)
        return entry

    def all(self) -> list[Entry[Project]]:
        return self._store.project_cache.entries()

    def users(self, name: str) -> list[str]:
        s = self._store
        used = [("instances", e.record.project, e.record.name) for e in s.instances.entries()]
        used += [("profiles", e.record.project, e.record.name) for e in s.profile_cache.entries()]
        used += [("images", e.record.project, e.record.fingerprint) for e in s.images.entries()]
        used += [("networks", e.record.project, e.record.name) for e in s.networks.entries()]
        return [rules.reference(kind, project, n) for kind, project, n in used if project == name]

    async def create(self, project: Project) -> Entry[Project]:
        project_name(project.name)
        record = replace(project, config=without_empty({**_DEFAULTS, **project.config}))
        PROJECT.check(record.config)
        profile = Profile(project.name, "default", f"Default profile for project {project.name}")
        key, profile_key = keys.project(project.name), keys.profile(project.name, "default")
        txn = Txn().absent(key).put(key, record).put(profile_key, profile)
        txn.emit(event("project-created", "projects", "", project.name))
        try:
            revision = await self._store.store.commit(txn)
        except Stale as exc:
            raise AlreadyExists(
                "EXISTS", f"Project {project.name!r} already exists", about=project.name
            ) from exc
        self._store.project_cache.apply(key, record, revision)
        self._store.profile_cache.apply(profile_key, profile, revision)
        return Entry(record, revision)

    async def update(self, project: Project, *, merge: bool, expected_revision: int) -> Entry[Project]:
        entry = await self._store.projects.get(keys.project(project.name))
        if expected_revision and entry.revision != expected_revision:
            raise Stale("STALE", "The project was changed meanwhile; read it again", about=project.name)
        old = entry.record
        config = without_empty({**old.config, **project.config} if merge else project.config)
        PROJECT.check(config)
        self._keep_features(old, config)
        text = (project.description or old.description) if merge else project.description
        told = event("project-updated", "projects", "", project.name)
        new = await self._store.projects.replace(
            entry, replace(old, config=config, description=text), emit=[told]
        )
        self._store.project_cache.apply(keys.project(project.name), new.record, new.revision)
        return new

    def _keep_features(self, old: Project, config: dict[str, str]) -> None:
        """Features say where objects live, so they stay while there are any. Raises: WrongState."""
        names = {k for k in {*old.config, *config} if k.startswith("features.")}
        if all(config.get(k, "false") == old.config.get(k, "false") for k in names):
            return
        if old.name == "default":
            raise WrongState(
                "FEATURES_STAY", "Features of the default project cannot be changed", about=old.name
            )
        if set(self.users(old.name)) - {rules.reference("profiles", old.name, "default")}:
            raise WrongState(
                "PROJECT_NOT_EMPTY", "Features can only be changed on empty projects", about=old.name
            )

    async def delete(self, name: str) -> None:
        rules.protect_default("project", name, "deleted")
        self.get(name)
        s = self._store
        if default := s.profile_cache.get(keys.profile(name, "default")):
            await s.profile_cache.wait_for(default.revision)
        seen = (s.instances.revision, s.images.revision, s.profile_cache.revision)
        profile = keys.profile(name, "default")
        if set(self.users(name)) - {rules.reference("profiles", name, "default")}:
            raise WrongState("PROJECT_NOT_EMPTY", "Only empty projects can be removed", about=name)
        prefixes = (keys.instances(name), keys.images(name), keys.profiles(name))
        txn = Txn().exists(keys.project(name))
        for prefix, revision in zip(prefixes, seen, strict=True):
            txn.prefix_unchanged(prefix, revision)
        txn.delete(keys.project(name)).delete(profile).emit(event("project-deleted", "projects", "", name))
        revision = await self._store.store.commit(txn)
        self._store.project_cache.apply(keys.project(name), None, revision)
        self._store.profile_cache.apply(profile, None, revision)
