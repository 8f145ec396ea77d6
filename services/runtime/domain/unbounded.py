"""Sizes that a pool does not hold anybody to. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

TYPE = "Sizes are not enforced in a storage pool"


@dataclass(frozen=True)
class Unenforced:
    """A pool with volumes whose size bounds nothing."""

    subject: str
    message: str
    type: str = TYPE
    severity: str = "low"


def find(bounded: Mapping[str, Iterable[str]]) -> list[Unenforced]:
    """Return a warning for each pool; *bounded* are the volumes with a size of each pool without quotas."""
    found = []
    for pool, volumes in sorted(bounded.items()):
        names = sorted(volumes)
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            said = f"Pool {pool} has no quotas, so nothing holds {', '.join(names[:3])}{more} to a size"
            found.append(Unenforced(f"storage-pools/{pool}", f"{said}; move them to a btrfs pool"))
    return found
