"""Ranges of host ids, one per instance, so that no two instances share an owner on disk. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from core.errors import LimitReached

FIRST, SIZE = 1_000_000, 65_536
LAST = 2**31


def free_base(taken: Iterable[int]) -> int:
    """Return the first id of a free range. Raises: LimitReached."""
    used = set(taken)
    for base in range(FIRST, LAST, SIZE):
        if base not in used:
            return base
    raise LimitReached("NO_IDS", "All ranges of user ids are taken; delete instances")


def shown(base: int, size: int) -> str:
    """Return the map as clients know it."""
    rows = (
        f'{{"Isuid":{uid},"Isgid":{gid},"Hostid":{base},"Nsid":0,"Maprange":{size}}}'
        for uid, gid in (("true", "false"), ("false", "true"))
    )
    return f"[{','.join(rows)}]"
