"""Which instances start with the host, and in which order. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from core.configkeys.instance import INSTANCE
from core.records import Instance, InstanceObserved
from core.units import parse_bool
from services.runtime.domain.lifecycle import STOPPED

_POWER = "volatile.last_state.power"


@dataclass(frozen=True)
class Candidate:
    instance: Instance
    observed: InstanceObserved
    config: Mapping[str, str]

    @property
    def delay_s(self) -> int:
        """Seconds to wait before the next one starts."""
        return max(0, int(INSTANCE.get(self.config, "boot.autostart.delay")))


def plan(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Return those to start, first one first: higher priority, then name."""
    wanted = [c for c in candidates if c.observed.status == STOPPED and _starts(c)]
    return sorted(wanted, key=lambda c: (-_priority(c), c.instance.project, c.instance.name))


def _starts(candidate: Candidate) -> bool:
    """boot.autostart decides; without it the last state returns, as with LXD."""
    if asked := candidate.config.get("boot.autostart"):
        return parse_bool(asked)
    return candidate.observed.volatile.get(_POWER) == "RUNNING"


def _priority(candidate: Candidate) -> int:
    return int(INSTANCE.get(candidate.config, "boot.autostart.priority"))
