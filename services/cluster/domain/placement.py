"""Which member a new instance goes to. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from core.errors import NotFound, Unavailable


def place(
    target: str, *, here: str, members: Iterable[str], living: Iterable[str], instances: Mapping[str, int]
) -> str:
    """Return *target* where one is named, else the living member with the fewest *instances*, as LXD does.

    Of several, *here* comes first: a launch then costs no call to another member.

    Raises:
        NotFound: there is no member of that name.
        Unavailable: it does not live, or nobody does.
    """
    alive = set(living)
    if target:
        if target not in set(members):
            raise NotFound("NO_MEMBER", "Cluster member not found", about=target[:64])
        if target not in alive:
            raise Unavailable(
                "MEMBER_AWAY", f"Member {target!r} does not answer; choose another one", about=target
            )
        return target
    if not alive:
        raise Unavailable("NO_MEMBER", "No member can take the instance now; try again")
    return min(alive, key=lambda name: (instances.get(name, 0), name != here, name))
