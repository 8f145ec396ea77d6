"""How much to measure: shared by all cases of one run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PREFIX = "bench-"


@dataclass(frozen=True)
class Plan:
    """Sizes of one run. Instances are called PREFIX…, so that a broken case can be swept."""

    image: Path
    scratch: Path
    alias: str = "bench-image"
    rounds: int = 5
    together: int = 20
    running: int = 100
    most_stopped: int = 1000
    megabytes: int = 64

    def quick(self) -> Plan:
        """The same shape in a few minutes."""
        return Plan(self.image, self.scratch, self.alias, 3, 20, 20, 100, 32)
