"""Tell of what is accepted, as LXD does, and cannot be enforced: sizes in pools, limits of a kernel."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from typing import Protocol

from core.errors import PodiumError
from core.logs import get_logger
from core.tasks import cancelled
from services.runtime.domain import unbounded
from services.runtime.domain.unbounded import Unenforced
from services.runtime.usecases.host import Host
from services.runtime.usecases.volumes.custom import bound_of

log = get_logger(__name__)
_LOOK_EVERY_S = 30.0


class Warnings(Protocol):
    """The cluster service's warnings of this service on this member."""

    async def active(self) -> dict[tuple[str, str], str]: ...

    async def raise_warning(self, trouble: Unenforced) -> str: ...

    async def resolve(self, id: str) -> None: ...


class Unbounded:
    """A warning is raised with the first such setting and resolved with the last, over restarts too."""

    def __init__(self, host: Host, warnings: Warnings, member: str) -> None:
        self._host = host
        self._warnings = warnings
        self._member = member
        self._raised: dict[str, str] | None = None
        self._said: dict[str, str] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        # Owned by this object until stop(): it looks as long as the service lives.
        self._task = asyncio.create_task(self._run(), name="unbounded")

    async def stop(self) -> None:
        await cancelled(self._task)

    async def _run(self) -> None:
        while True:
            try:
                await self.look()
            except PodiumError as exc:  # the cluster service or etcd is away; the next look tells it
                log.info("warnings_wait", error=exc.message)
            await asyncio.sleep(_LOOK_EVERY_S)

    async def look(self) -> None:
        """Report what began and ended since the last look. Raises: Unavailable."""
        troubles = [*unbounded.find(self._bounded()), *unbounded.find_limits(self._ignored())]
        found = {trouble.subject: trouble for trouble in troubles}
        if self._raised is None:
            self._raised = {subject: id for (_, subject), id in (await self._warnings.active()).items()}
        for subject, trouble in found.items():
            if self._said.get(subject) != trouble.message:
                self._raised[subject] = await self._warnings.raise_warning(trouble)
                self._said[subject] = trouble.message
        for subject in set(self._raised) - set(found):
            await self._warnings.resolve(self._raised.pop(subject))
            self._said.pop(subject, None)

    def _bounded(self) -> dict[str, list[str]]:
        """Return what has a size in each pool that has no quotas; quick where there is no such pool."""
        store, found = self._host.store, defaultdict[str, list[str]](list)
        pools = {e.record.name for e in store.pools.entries() if not self._has_quotas(e.record.driver)}
        if not pools:
            return found
        for volume in (entry.record for entry in store.volumes.entries()):
            if volume.pool in pools and bound_of(volume):
                found[volume.pool].append(volume.name)
        for instance in (entry.record for entry in store.instances.entries()):
            with contextlib.suppress(PodiumError):
                if instance.pool in pools and self._host.root_size(instance):
                    found[instance.pool].append(instance.name)
        return found

    def _ignored(self) -> dict[str, list[str]]:
        """Return whose limits the kernel has no file for, by key."""
        found, plan = defaultdict[str, list[str]](list), self._host.cgroups.plan
        for instance in (entry.record for entry in self._host.store.instances.entries()):
            with contextlib.suppress(PodiumError):
                for key, value in self._host.expanded(instance).config.items():
                    if unbounded.is_optional(key, value) and plan({key: value}) == plan({}):
                        found[key].append(instance.name)
        return found

    def _has_quotas(self, driver: str) -> bool:
        try:
            return self._host.driver(driver).has_quotas
        except PodiumError:
            return True
