"""Report what keeps networks from working as warnings, and take them back when it is over."""

from __future__ import annotations

from collections.abc import Callable

from core.logs import get_logger
from services.network.domain import conflicts
from services.network.domain.conflicts import Conflict
from services.network.ports import Host, Warnings
from services.network.usecases.networks import Networks

log = get_logger(__name__)
Name = tuple[str, str]


class Conflicts:
    """Each trouble is raised when it begins or changes and resolved when it ends, across restarts too."""

    def __init__(
        self, networks: Networks, host: Host, warnings: Warnings, more: Callable[[], list[Conflict]] = list
    ) -> None:
        """*more*: what else there is to report, found by others."""
        self._more = more
        self._networks = networks
        self._host = host
        self._warnings = warnings
        self._raised: dict[Name, str] | None = None
        self._messages: dict[Name, str] = {}

    async def look(self) -> list[Conflict]:
        """Compare what is with what was reported, and report the difference. Raises: Unavailable."""
        networks = [self._networks.here(entry.record) for entry in self._networks.entries()]
        found = [*conflicts.find(networks, await self._host.seen()), *self._more()]
        if self._raised is None:
            self._raised = await self._warnings.active()
        for conflict in found:
            await self._raise(conflict, self._raised)
        current = {(c.type, c.subject) for c in found}
        for name in set(self._raised) - current:
            await self._warnings.resolve(self._raised[name])
            self._raised.pop(name)
            self._messages.pop(name, None)
        return found

    async def _raise(self, conflict: Conflict, raised: dict[Name, str]) -> None:
        name = (conflict.type, conflict.subject)
        if self._messages.get(name) == conflict.message:
            return
        log.warning("conflict_found", type=conflict.type, subject=conflict.subject, message=conflict.message)
        raised[name] = await self._warnings.raise_warning(conflict)
        self._messages[name] = conflict.message
