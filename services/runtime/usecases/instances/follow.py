"""Bring a changed profile to the instances that use it, as an update of each of them.

Those that run follow whatever changed; those that are stopped when it concerns what is reserved for them.

The change itself is the writer's; who wants to know how it went asks with settle(). Nobody needs to
ask: changes are followed, and a start of this service catches up.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from core.errors import Busy, NotFound, PodiumError, TooLate, WrongState
from core.logs import get_logger
from core.records import Instance, Profile
from core.state import keys
from core.state.repository import Entry
from services.runtime.domain import expand
from services.runtime.domain.expand import Expanded
from services.runtime.domain.lifecycle import STOPPED, UP
from services.runtime.usecases.host import Host
from services.runtime.usecases.instances.change import Changes
from services.runtime.usecases.instances.volatile import plugged

log = get_logger(__name__)
_AT_ONCE = 8
_TRIES = 100
_PAUSE_S = 0.1
_SEEN_S = 10.0


@dataclass
class _Run:
    """The updates after one change of a profile."""

    revision: int
    task: asyncio.Task[list[str]]


class Follow:
    def __init__(self, host: Host, changes: Changes, member: str) -> None:
        self._member = member
        self._host = host
        self._store = host.store
        self._changes = changes
        self._runs: dict[str, _Run] = {}
        self._seen: dict[str, Profile] = {}
        self._free = asyncio.Semaphore(_AT_ONCE)

    async def start(self) -> None:
        """Follow profiles from now on, and update the instances whose NICs missed a change."""
        self._seen = {
            keys.profile(e.record.project, e.record.name): e.record for e in self._store.profiles.entries()
        }
        self._store.profiles.on_change(self._changed)
        self._keep("", 0, [i for i in self._settled() if self._lacks_its_nics(i)])

    async def stop(self) -> None:
        tasks = [run.task for run in self._runs.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def settled(self) -> None:
        """Return when all that was to follow has followed, or could not."""
        await asyncio.gather(*(run.task for run in self._runs.values()))

    async def settle(self, project: str, name: str, revision: int) -> None:
        """Return when the instances have followed the profile as it was written at *revision*.

        Raises: WrongState naming those that could not, TooLate.
        """
        try:
            await self._store.profiles.wait_for(revision, timeout_s=_SEEN_S)
        except TimeoutError:
            raise TooLate("NOT_SEEN", "The change of the profile was not seen in time", about=name) from None
        run = self._runs.get(keys.profile(project, name))
        failed = await asyncio.shield(run.task) if run and run.revision >= revision else []
        if failed:
            raise WrongState(
                "NOT_FOLLOWED",
                "The following instances failed to update (profile change still saved):\n"
                + "".join(f" - {line}\n" for line in failed),
                about=name,
            )

    def _changed(self, key: str, entry: Entry[Profile] | None) -> None:
        before = self._seen.pop(key, None)
        if entry is None:
            return
        profile = self._seen[key] = entry.record
        users = [
            i for i in self._settled() if profile.name in i.profiles and self._home(i) == profile.project
        ]
        concerned = [i for i in users if self._is_up(i) or self._lacks_its_nics(i)]
        self._keep(key, entry.revision, concerned, before)

    def _keep(
        self, key: str, revision: int, instances: list[Instance], before: Profile | None = None
    ) -> None:
        if not instances:
            self._runs.pop(key, None)
            return
        # Owned by this object until stop() or the next change of the profile.
        task = asyncio.create_task(self._update_all(instances, before), name=f"follow {key}")
        self._runs[key] = _Run(revision, task)

    async def _update_all(self, instances: list[Instance], before: Profile | None) -> list[str]:
        found = await asyncio.gather(*(self._update(i, self._had(i, before)) for i in instances))
        return [line for line in found if line]

    def _had(self, instance: Instance, before: Profile | None) -> Expanded:
        """Return what it was with the profile as that was; nothing where that is not known."""
        nothing = Expanded({}, {})
        try:
            profiles = self._store.profiles_of(instance.project, instance.profiles)
        except NotFound:
            return nothing
        if before is None:
            return nothing
        return expand.expand([before if p.name == before.name else p for p in profiles], instance)

    async def _update(self, instance: Instance, had: Expanded) -> str:
        """Update one; return why not, in words. One that another operation has is waited for."""
        shown = f"Project: {instance.project}, Instance: {instance.name}"
        async with self._free:
            for _ in range(_TRIES):
                try:
                    operation = await self._changes.apply_again(instance.project, instance.name, had)
                except Busy:
                    await asyncio.sleep(_PAUSE_S)
                    continue
                except (NotFound, WrongState):
                    return ""  # it was deleted or stopped meanwhile, and follows when it starts
                except PodiumError as exc:
                    return f"{shown}: {exc.message}"
                return f"{shown}: {operation.error_message}" if operation.error_message else ""
        return f"{shown}: it is busy with another operation"

    # --- who ---------------------------------------------------------------------------------------

    def _settled(self) -> list[Instance]:
        every = [entry.record for entry in self._store.instances.entries()]
        found = [instance for instance in every if instance.member == self._member]
        return [i for i in found if self._store.observed_of(i).record.status in (*UP, STOPPED)]

    def _is_up(self, instance: Instance) -> bool:
        return self._store.observed_of(instance).record.status in UP

    def _home(self, instance: Instance) -> str:
        try:
            return self._store.home_of(instance.project, "profiles")
        except NotFound:
            return ""

    def _lacks_its_nics(self, instance: Instance) -> bool:
        """Return whether other NICs are reserved than its profiles and own devices want."""
        try:
            wanted = expand.nics_of(self._host.expanded(instance).devices)
        except NotFound:
            return False
        has = plugged(self._store.observed_of(instance).record.volatile)
        found = [self._store.nics.get(keys.nic(instance.id, device)) for device in wanted]
        options = [entry.record.options if entry else None for entry in found]
        return has != set(wanted) or options != list(wanted.values())
