"""The one door through which the record of an instance is written.

Whatever makes or changes an instance (create, update, copy, move, restore, import, ...) hands the final
record to admit() together with the transaction that will write it. Nobody else decides what is allowed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Container, Iterator, Mapping
from weakref import WeakValueDictionary

from core.configkeys.devices.registry import check_instance_devices, check_types
from core.configkeys.instance import INSTANCE, check_expanded
from core.configkeys.project import is_bounded, is_restricted
from core.errors import Invalid, NotFound, PodiumError, Stale, error_of
from core.policy import limits, restrictions
from core.policy.expansion import Expanded
from core.policy.subjects import Held, Subject
from core.projects import DEFAULT
from core.records import Instance, Project, ProjectGuard, Volume
from core.state import keys
from core.state.repository import Entry
from core.state.store import Txn
from core.units import parse_bool
from services.runtime.domain import expand
from services.runtime.usecases.host import Host
from services.runtime.usecases.instances.disks import check_disks, check_places
from services.runtime.usecases.instances.volatile import asked

# What LXD puts before a refusal.
_UPDATE, _CREATE = "Invalid config: ", "Failed creating instance record: "
_NO_ROOT = "Failed detecting root disk device: No root device could be found"
_NO_DEVICES = "Failed getting root disk: No root device could be found"
_UPDATE_IDS, _CREATE_NEW = "Failed to get ID map: ", f"{_CREATE}Failed initialising instance: "


class Policy:
    def __init__(self, host: Host, member: str = "") -> None:
        self._host = host
        self._store = host.store
        self._member = member
        self._expected: dict[str, Instance | Volume] = {}
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def admit(self, txn: Txn, instance: Instance, *, replaces: Instance | None = None) -> Expanded:
        """Check *instance* as it will be, and let *txn* fail if what was checked changes meanwhile.

        *replaces* is the record whose place it takes: in the sums of its project only one of both counts.
        A Stale commit is to be tried again from here on, since the answer may be another one by then.

        Raises: Invalid, NotFound, Forbidden, LimitReached, Stale.
        """
        self._check_profiles(instance, is_new=replaces is None)
        expanded = self._host.expanded(instance)
        self._check_project(txn, instance, expanded, replaces)
        with _words(_UPDATE if replaces else _CREATE):
            INSTANCE.check(instance.config)
            check_expanded(expanded.config)
        if replaces:
            self._check_changed_devices(expanded.devices, self._host.expanded(replaces).devices)
        else:
            self._check_new_devices(instance, expanded)
        with _words(_UPDATE_IDS if replaces else _CREATE_NEW, only="BAD_IDMAP"):
            self._host.check(expanded.config, self._host.expanded(replaces).config if replaces else None)
        self._check_disks(txn, instance, expanded, replaces)
        return expanded

    def _check_changed_devices(self, devices: expand.Devices, had: expand.Devices) -> None:
        """Raises: Invalid for what cannot be a device, no root disk or two.

        As with LXD an instance may lose its root disk with all other devices: its last profile.
        """
        check_instance_devices(devices, self._store.network_types())
        with _words("Invalid expanded devices: ", only="TWO_ROOTS"):
            root = expand.find_root(devices)
        if devices and not root and devices != had:
            raise Invalid("NO_ROOT", f"Invalid expanded devices: {_NO_ROOT}")

    def _check_new_devices(self, instance: Instance, expanded: Expanded) -> None:
        """Raises: Invalid, as _check_changed_devices, and where there are no devices at all."""
        with _words(_CREATE):
            check_types(instance.devices)
        with _words(_CREATE_NEW):
            check_instance_devices(expanded.devices, self._store.network_types())
        with _words(f"{_CREATE_NEW}Invalid devices: ", only="TWO_ROOTS"):
            root = expand.find_root(expanded.devices)
        if not root:
            why = f"Invalid devices: {_NO_ROOT}" if expanded.devices else _NO_DEVICES
            raise Invalid("NO_ROOT", f"{_CREATE_NEW}{why}")

    def _check_disks(
        self, txn: Txn, instance: Instance, expanded: Expanded, replaces: Instance | None
    ) -> None:
        """Check disks that the instance did not have; those it has may have lost what they need."""
        check_places(instance)
        had = self._host.expanded(replaces).devices if replaces else {}
        new = {name: options for name, options in expanded.devices.items() if had.get(name) != options}
        with contextlib.nullcontext() if replaces else _before(_CREATE_NEW):
            check_disks(self._store, self._host.facts, txn, instance, new)

    def admit_volume(self, txn: Txn, volume: Volume, *, is_new: bool) -> None:
        """Check a custom volume as it will be, and let *txn* fail as admit() does.

        Raises: NotFound, LimitReached, Invalid, Stale.
        """
        entry = self._project(volume.project)
        txn.unchanged(keys.project(volume.project), entry.revision)
        if not is_bounded(entry.record.config):
            return
        self._guard_sums(txn, volume.project)
        held = self._held(volume.project, leave_out={volume.id})
        changed = Held(held.containers, (*held.volumes, volume))
        with _before(f"Failed checking if volume {'creation' if is_new else 'update'} allowed: "):
            limits.check(entry.record, changed, is_new=False)

    @contextlib.contextmanager
    def expecting(self, record: Instance | Volume) -> Iterator[None]:
        """Let what is being received count as what it will be, until it is recorded under the same id."""
        self._expected[record.id] = record
        try:
            yield
        finally:
            del self._expected[record.id]

    def room(self, project: str) -> int | None:
        """Return how many bytes limits.disk leaves; None without that limit. Raises: NotFound."""
        limit = self._project(project).record.config.get("limits.disk")
        if not limit:
            return None
        used = limits.usage(self._held(project, leave_out=()))["limits.disk"]
        return max(limits.parse("limits.disk", limit) - used, 0)

    def check_snapshots(self, project: str) -> None:
        """Raises: NotFound, Forbidden when the project allows no snapshots."""
        restrictions.check_snapshots(self._project(project).record)

    def check_backups(self, project: str) -> None:
        """Raises: NotFound, Forbidden when the project allows no backups."""
        restrictions.check_backups(self._project(project).record)

    def check_volatile(self, instance: Instance, wanted: Mapping[str, str], now: Mapping[str, str]) -> None:
        """Check volatile keys that a request sends. Raises: NotFound, Forbidden."""
        project = self._project(instance.project).record
        restrictions.check_volatile(project, instance.name, wanted, now)

    def check_new_volatile(self, config: Mapping[str, str]) -> None:
        """Check volatile keys that a new instance is given, also those it does not keep. Raises: Invalid."""
        with _words(_CREATE):
            INSTANCE.check({k: v for k, v in config.items() if v and k.startswith("volatile.")})

    def volatile(
        self, instance: Instance, wanted: Mapping[str, str], now: Mapping[str, str], *, merge: bool
    ) -> dict[str, str]:
        """Return the volatile keys that a request may set and does. Raises: Invalid.

        What tells another instance from all others stays with that: after `copy --refresh` the stock
        client sends all keys of the source to the copy.
        """
        with _words(_UPDATE):
            found = asked(wanted, now, merge=merge)
        return {key: v for key, v in found.items() if not self._is_of_another(instance, key, v)}

    def _is_of_another(self, instance: Instance, key: str, value: str) -> bool:
        if not (key.endswith(".hwaddr") or key == "volatile.uuid") or not value:
            return False
        others = (e.record for e in self._store.observed.entries() if e.record.id != instance.id)
        return any(value in other.volatile.values() for other in others)

    @contextlib.asynccontextmanager
    async def turn(self, project: str) -> AsyncIterator[None]:
        """Let those who write into a project with limits decide and commit one after the other.

        Not what makes the limits hold (that is what the transaction checks), but nobody then tries in vain.
        """
        entry = self._store.projects.get(keys.project(project))
        if entry is None or not is_bounded(entry.record.config):
            yield
            return
        lock = self._turns.setdefault(project, asyncio.Lock())
        async with lock:
            yield

    def _check_profiles(self, instance: Instance, *, is_new: bool) -> None:
        """Raises: Invalid, NotFound."""
        home = self._store.home_of(instance.project, "profiles")
        for name in instance.profiles:
            if self._store.profiles.get(keys.profile(home, name)) is None:
                said = f'Requested profile "{name}" doesn\'t exist' if is_new else "Profile not found"
                raise NotFound("NO_PROFILE", said, about=name)
        if len(set(instance.profiles)) != len(instance.profiles):
            words = _CREATE if is_new else ""
            raise Invalid("TWICE", f"{words}Duplicate profile found in request", about=instance.name)

    # --- what holds in a project -----------------------------------------------------------------

    def _check_project(
        self, txn: Txn, instance: Instance, expanded: Expanded, replaces: Instance | None
    ) -> None:
        entry = self._project(instance.project)
        project = entry.record
        txn.unchanged(keys.project(project.name), entry.revision)
        is_bound = is_bounded(project.config)
        self._guard_profiles(txn, instance, is_exact=is_bound or is_restricted(project.config))
        is_new = replaces is None or replaces.project != instance.project
        subject = Subject("container", instance.name, expanded.config, expanded.devices)
        if is_bound:
            self._guard_sums(txn, project.name)
        with _before(f"Failed checking if instance {'creation' if is_new else 'update'} allowed: "):
            if is_bound:
                gone = {instance.id, replaces.id if replaces else ""}
                held = self._held(project.name, leave_out=gone)
                limits.check(project, Held((*held.containers, subject), held.volumes), is_new=is_new)
            restrictions.check(project, [subject])
        _check_own_networks(project, subject)

    def _project(self, name: str) -> Entry[Project]:
        entry = self._store.projects.get(keys.project(name))
        if entry is None:
            raise NotFound("NO_PROJECT", "Project not found", about=name)
        return entry

    def _held(self, project: str, *, leave_out: Container[str]) -> Held:
        coming = [record for record in self._expected.values() if record.project == project]
        others = {r.id: r for r in coming if isinstance(r, Instance)}
        others |= {e.record.id: e.record for e in self._store.instances.entries(keys.instances(project))}
        found = [(i, self._host.expanded(i)) for i in others.values() if i.id not in leave_out]
        volumes = {r.id: r for r in coming if isinstance(r, Volume)}
        volumes |= {
            e.record.id: e.record for e in self._store.volumes.entries() if e.record.project == project
        }
        return Held(
            tuple(Subject("container", i.name, e.config, e.devices) for i, e in found),
            tuple(v for v in volumes.values() if v.id not in leave_out),
        )

    def _guard_profiles(self, txn: Txn, instance: Instance, *, is_exact: bool) -> None:
        """Let *txn* fail when a profile goes, and where it was part of a decision, when it changes."""
        home = self._store.home_of(instance.project, "profiles")
        for name in instance.profiles:
            key = keys.profile(home, name)
            entry = self._store.profiles.get(key)
            txn.unchanged(key, entry.revision) if entry and is_exact else txn.exists(key)

    def _guard_sums(self, txn: Txn, project: str) -> None:
        """Let of all transactions that were decided on the same sums only the first succeed.

        Raises: Stale when another member wrote what is not to be seen here yet.
        """
        key = keys.project_guard(project)
        entry = self._store.guards.get(key)
        if entry is None:
            txn.absent(key)
        else:
            is_ours = entry.record.member == self._member
            if not is_ours and entry.revision > self._store.instances.revision:
                raise Stale("NOT_SEEN", f"Project {project!r} is changing; try again", about=project)
            txn.unchanged(key, entry.revision)
        txn.put(key, ProjectGuard(project, self._member))


def _check_own_networks(project: Project, subject: Subject) -> None:
    """A project with networks of its own has none here: bridges lie in the default project."""
    if project.name == DEFAULT or not parse_bool(project.config.get("features.networks", "false")):
        return
    for name, options in subject.devices.items():
        if network := options.get("network"):
            said = f'Failed loading network "{network}" for project "{project.name}": Network not found'
            raise NotFound("NO_NETWORK", f'Invalid devices: Device validation failed for "{name}": {said}')


@contextlib.contextmanager
def _before(words: str) -> Iterator[None]:
    """Put *words* before what is refused, as LXD does, but for counts that are reached."""
    try:
        yield
    except PodiumError as exc:
        if exc.reason == "COUNT_REACHED":
            raise
        raise error_of(exc.kind, exc.reason, f"{words}{exc.message}", exc.about) from None


@contextlib.contextmanager
def _words(before: str, *, only: str = "") -> Iterator[None]:
    """Say what was refused as LXD does; what its engine refuses comes without such words."""
    try:
        yield
    except Invalid as exc:
        if exc.reason in ("BAD_RLIMIT", "VOLATILE_STAYS") or only not in ("", exc.reason):
            raise
        raise Invalid(exc.reason, f"{before}{exc.message}", about=exc.about) from None
