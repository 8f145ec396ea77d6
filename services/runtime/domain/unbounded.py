"""Sizes that a pool does not hold anybody to, and limits that a kernel does not. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

TYPE = "Sizes are not enforced in a storage pool"
LIMIT = "Limits are not enforced by this kernel"
_SET = "limits.cpu"
TYPES = (TYPE, LIMIT)
# Those for which a kernel may have no file; LXD warns at its start of each that it lacks.
_OPTIONAL = ("limits.hugepages.", "limits.network.priority", "limits.disk.priority")


@dataclass(frozen=True)
class Unenforced:
    """A pool with volumes whose size bounds nothing, or a key of instances that does nothing."""

    subject: str
    message: str
    type: str = TYPE
    severity: str = "low"


def find(bounded: Mapping[str, Iterable[str]]) -> list[Unenforced]:
    """Return a warning for each pool; *bounded* are the volumes with a size of each pool without quotas."""
    found = []
    for pool, volumes in sorted(bounded.items()):
        if names := _few(volumes):
            said = f"Pool {pool} has no quotas, so nothing holds {names} to a size"
            found.append(Unenforced(f"storage-pools/{pool}", f"{said}; move them to a btrfs pool"))
    return found


def is_optional(key: str, value: str) -> bool:
    """Say whether there are hosts on which this setting does nothing."""
    return (key == _SET or key.startswith(_OPTIONAL)) and value not in ("", "0")


def find_limits(ignored: Mapping[str, Iterable[str]]) -> list[Unenforced]:
    """Return a warning for each key that this kernel has no control for; *ignored*: who has it set."""
    found = []
    for key, names in sorted(ignored.items()):
        why = f"No CPU of {key} is on this host" if key == _SET else f"This kernel has no control for {key}"
        found.append(Unenforced(key, f"{why}, so it does nothing to {_few(names)}", LIMIT))
    return found


def _few(names: Iterable[str]) -> str:
    """Return the first three names in words; "" for none."""
    known = sorted(names)
    more = f" and {len(known) - 3} more" if len(known) > 3 else ""
    return f"{', '.join(known[:3])}{more}"
