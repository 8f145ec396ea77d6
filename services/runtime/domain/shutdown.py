"""In which order instances stop when the host goes down. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby

from core.configkeys.instance import INSTANCE
from core.records import Instance


@dataclass(frozen=True)
class Stopping:
    """config is after profiles."""

    instance: Instance
    config: Mapping[str, str]

    @property
    def priority(self) -> int:
        return int(INSTANCE.get(self.config, "boot.stop.priority"))

    @property
    def timeout_s(self) -> int:
        """Seconds for a clean stop; then it is killed."""
        return max(1, int(INSTANCE.get(self.config, "boot.host_shutdown_timeout")))


def plan(running: Iterable[Stopping]) -> list[list[Stopping]]:
    """Return groups, of which each stops at once: higher priorities first."""
    ordered = sorted(running, key=lambda s: (-s.priority, s.instance.project, s.instance.name))
    return [list(group) for _, group in groupby(ordered, key=lambda s: s.priority)]
