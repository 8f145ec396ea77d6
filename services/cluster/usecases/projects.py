"""Projects: create with a default profile, change, rename and delete when empty."""

from __future__ import annotations

from dataclasses import replace

from core.configkeys.project import DEFAULTS, FEATURES, PROJECT, check_project
from core.configkeys.schema import without_empty
from core.errors import AlreadyExists, Forbidden, NotFound, Stale, WrongState
from core.names import project_name
from core.operations.operation import Context, Operation, Step, Story
from core.operations.runner import Runner
from core.policy import limits
from core.policy.subjects import Held
from core.projects import DEFAULT
from core.records import Profile, Project
from core.state import codec, keys
from core.state.repository import Entry
from core.state.store import Txn
from core.units import parse_bool
from services.cluster.domain import rules
from services.cluster.store import ClusterStore
from services.cluster.usecases.admission import Admission
from services.cluster.usecases.attempts import confirm, until_settled
from services.cluster.usecases.profiles import event


class Projects:
    def __init__(self, store: ClusterStore, admission: Admission, runner: Runner) -> None:
        self._store = store
        self._admission = admission
        self._runner = runner
        runner.register(Story("project.rename", "Renaming project", (Step("rename", self._renamed),)))

    def get(self, name: str) -> Entry[Project]:
        entry = self._store.project_cache.get(keys.project(name))
        if entry is None:
            raise NotFound("NO_PROJECT", "Project not found", about=name)
        return entry

    def all(self) -> list[Entry[Project]]:
        return self._store.project_cache.entries()

    def users(self, name: str) -> list[str]:
        return list(self._users(name))

    def _users(self, name: str) -> dict[str, str]:
        """Return what refers to the project: reference to key."""
        s = self._store
        used = [("instances", key, e.record.project, e.record.name) for key, e in s.instances.items()]
        used += [("profiles", key, e.record.project, e.record.name) for key, e in s.profile_cache.items()]
        used += [("images", key, e.record.project, e.record.fingerprint) for key, e in s.images.items()]
        used += [
            (f"storage-pools/{e.record.pool}/volumes/custom", key, e.record.project, e.record.name)
            for key, e in s.volumes.items()
        ]
        used += [("networks", key, e.record.project, e.record.name) for key, e in s.networks.items()]
        used += [("network-acls", key, e.record.project, e.record.name) for key, e in s.acls.items()]
        used += [
            ("network-address-sets", key, e.record.project, e.record.name)
            for key, e in s.address_sets.items()
        ]
        used += [("network-zones", key, e.record.project, e.record.name) for key, e in s.zones.items()]
        return {rules.reference(kind, project, n): key for kind, key, project, n in used if project == name}

    def usage(self, name: str) -> dict[str, tuple[int, int]]:
        """Return limit (-1: none) and use of all that a project can have limits for. Raises: NotFound."""
        config, held = self.get(name).record.config, self._held(name)
        count = len(held.containers)
        networks = sum(e.record.project == name for e in self._store.networks.entries())
        used = limits.usage(held) | {
            "limits.containers": count,
            "limits.instances": count,
            "limits.networks": networks,
            "limits.virtual-machines": 0,
        }
        bound = {key: limits.parse(key, config[key]) if config.get(key) else -1 for key in used}
        return {key.removeprefix("limits."): (bound[key], used[key]) for key in sorted(used)}

    def _held(self, name: str) -> Held:
        try:
            return self._admission.held(name)
        except Stale:
            return Held()

    async def create(self, project: Project) -> Entry[Project]:
        project_name(project.name)
        record = replace(project, config=without_empty({**DEFAULTS, **project.config}))
        check_project(record.config)
        key = keys.project(project.name)
        txn = Txn().absent(key).put(key, record)
        txn.emit(event("project-created", "projects", "", project.name))
        profile = self._ensure_profile(txn, record)
        try:
            revision = await self._store.store.commit(txn)
        except Stale as exc:
            said = f'Failed creating project "{project.name}": Failed adding database record: '
            raise AlreadyExists(
                "EXISTS", f'{said}This "projects" entry already exists', about=project.name
            ) from exc
        self._store.project_cache.apply(key, record, revision)
        self._remember_profile(project.name, profile, revision)
        return Entry(record, revision)

    async def update(self, project: Project, *, merge: bool, expected_revision: int) -> Entry[Project]:
        """Raises: NotFound, Stale, Invalid, WrongState, and what the objects of the project do not fit."""

        PROJECT.check_known(project.config)

        async def attempt() -> Entry[Project]:
            entry = await self._store.projects.get(keys.project(project.name))
            entry.expect(expected_revision, "project", project.name)
            return await self._replace(entry, _changed(entry.record, project, merge=merge))

        return await until_settled(attempt, busy=_busy(project.name))

    async def _replace(self, entry: Entry[Project], new: Project) -> Entry[Project]:
        old, key = entry.record, keys.project(new.name)
        await self._keep_features(old, new.config)
        check_project(new.config)
        txn = Txn().unchanged(key, entry.revision).put(key, codec.encode(new, entry.extra))
        txn.emit(event("project-updated", "projects", "", new.name))
        self._admission.admit_project(txn, old, new)
        profile = self._ensure_profile(txn, new, old)
        revision = await self._store.store.commit(txn)
        self._store.project_cache.apply(key, new, revision)
        self._remember_profile(new.name, profile, revision)
        return Entry(new, revision, entry.extra)

    async def _keep_features(self, old: Project, config: dict[str, str]) -> None:
        """Features say where objects live, so they stay while there are any. Raises: WrongState, Stale."""
        changed = [name for name in FEATURES if config.get(name) != old.config.get(name)]
        if not changed:
            return
        if old.name == DEFAULT:
            raise WrongState(
                "FEATURES_STAY", "You can't change the features of the default project", about=old.name
            )
        if await self._is_empty(old.name):
            return
        verb = "disabled" if parse_bool(old.config.get(changed[0], "false")) else "enabled"
        raise WrongState(
            "PROJECT_NOT_EMPTY",
            f'Project feature "{changed[0]}" cannot be {verb} on non-empty projects',
            about=old.name,
        )

    async def _is_empty(self, name: str) -> bool:
        """Raises: Stale, see confirm()."""
        own = rules.reference("profiles", name, "default")
        in_the_way = [key for reference, key in self._users(name).items() if reference != own]
        if in_the_way:
            await confirm(self._store.store, in_the_way[0])
        return not in_the_way

    def _ensure_profile(self, txn: Txn, new: Project, old: Project | None = None) -> Profile | None:
        """Let a project with profiles of its own have the default one, and no other project."""
        key = keys.profile(new.name, "default")
        had = old is not None and parse_bool(old.config.get("features.profiles", "false"))
        has = parse_bool(new.config.get("features.profiles", "false"))
        found = self._store.profile_cache.get(key)
        if has and not had:
            profile = Profile(new.name, "default", f"Default LXD profile for project {new.name}")
            txn.put(key, profile)
            return profile
        if had and not has:
            txn.delete(key)
            return None
        return found.record if found else None

    def _remember_profile(self, project: str, profile: Profile | None, revision: int) -> None:
        key = keys.profile(project, "default")
        known = self._store.profile_cache.get(key)
        if (known.record if known else None) != profile:
            self._store.profile_cache.apply(key, profile, revision)

    async def accept_rename(self, name: str, new_name: str) -> Operation:
        """Rename an empty project; its default profile goes along. Raises: see _check_rename."""
        await until_settled(lambda: self._check_rename(name, new_name), busy=_busy(name))
        return await self._runner.accept(
            "project.rename", project=name, input={"name": name, "new_name": new_name}
        )

    async def _renamed(self, ctx: Context) -> None:
        name, new_name = ctx.input["name"], ctx.input["new_name"]

        async def attempt() -> None:
            if self._was_renamed(ctx.operation.id, new_name):
                return
            await self._check_rename(name, new_name)
            await self._rename(self.get(name), new_name, ctx.operation.id)

        await until_settled(attempt, busy=_busy(name))

    def _was_renamed(self, operation: str, new_name: str) -> bool:
        """Return whether an earlier try of the same operation did it already."""
        entry = self._store.project_cache.get(keys.project(new_name))
        return entry is not None and entry.record.renamed_by == operation

    async def _check_rename(self, name: str, new_name: str) -> None:
        """Raises: Forbidden, AlreadyExists, NotFound, WrongState, Invalid, Stale."""
        if name == DEFAULT:
            raise Forbidden("DEFAULT_STAYS", "The 'default' project cannot be renamed", about=name)
        if self._store.project_cache.get(keys.project(new_name)):
            raise AlreadyExists("EXISTS", f'A project named "{new_name}" already exists', about=new_name)
        if self._store.project_cache.get(keys.project(name)) is None:
            raise NotFound("NO_PROJECT", f'Failed loading project "{name}": Project not found', about=name)
        if not await self._is_empty(name):
            raise WrongState("PROJECT_NOT_EMPTY", "Only empty projects can be renamed", about=name)
        project_name(new_name)

    async def _rename(self, entry: Entry[Project], new_name: str, operation: str) -> None:
        name = entry.record.name
        new_key, new_profile = keys.project(new_name), keys.profile(new_name, "default")
        txn = self._emptied(name).unchanged(keys.project(name), entry.revision).absent(new_key)
        record = replace(entry.record, name=new_name, renamed_by=operation)
        txn.put(new_key, codec.encode(record, entry.extra))
        profile = self._store.profile_cache.get(keys.profile(name, "default"))
        moved = replace(profile.record, project=new_name) if profile else None
        if moved:
            txn.put(new_profile, moved)
        txn.emit(event("project-renamed", "projects", "", new_name, old_name=name))
        revision = await self._store.store.commit(txn)
        self._forget(name, revision)
        self._store.project_cache.apply(new_key, record, revision)
        self._remember_profile(new_name, moved, revision)

    async def delete(self, name: str) -> None:
        async def attempt() -> None:
            if name == DEFAULT:
                raise Forbidden("DEFAULT_STAYS", "The 'default' project cannot be deleted", about=name)
            if self._store.project_cache.get(keys.project(name)) is None:
                raise NotFound("NO_PROJECT", f'Fetch project "{name}": Project not found', about=name)
            if not await self._is_empty(name):
                raise WrongState("PROJECT_NOT_EMPTY", "Only empty projects can be removed", about=name)
            txn = self._emptied(name).exists(keys.project(name))
            txn.emit(event("project-deleted", "projects", "", name))
            self._forget(name, await self._store.store.commit(txn))

        await until_settled(attempt, busy=_busy(name))

    def _emptied(self, name: str) -> Txn:
        """Return the removal of a project that holds nothing, as it is proved when it happens."""
        s, txn = self._store, Txn()
        txn.prefix_unchanged(keys.instances(name), s.instances.revision)
        txn.prefix_unchanged(keys.images(name), s.images.revision)
        txn.prefix_unchanged(keys.VOLUMES, s.volumes.revision)
        txn.prefix_unchanged(keys.profiles(name), s.profile_cache.revision)
        txn.prefix_unchanged(keys.network_acls(name), s.acls.revision)
        txn.prefix_unchanged(keys.address_sets(name), s.address_sets.revision)
        txn.prefix_unchanged(keys.NETWORK_ZONES, s.zones.revision)
        txn.delete(keys.project(name)).delete(keys.profile(name, "default"))
        return txn.delete(keys.project_guard(name))

    def _forget(self, name: str, revision: int) -> None:
        self._store.project_cache.apply(keys.project(name), None, revision)
        self._store.profile_cache.apply(keys.profile(name, "default"), None, revision)


def _changed(old: Project, wanted: Project, *, merge: bool) -> Project:
    config = without_empty({**old.config, **wanted.config} if merge else wanted.config)
    text = (wanted.description or old.description) if merge else wanted.description
    return replace(old, config=config, description=text)


def _busy(name: str) -> Stale:
    return Stale("BUSY_PROJECT", f"What is in project {name!r} keeps changing; try again", about=name)
