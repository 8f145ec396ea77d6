"""What a source offers to another server, and what a sink answers. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from core.errors import Invalid, Unsupported
from core.units import parse_bool
from services.runtime.domain.arrivals import ArrivedEntry

# What both ends of rsync can do here; "exact" only where both are Podiums.
FEATURES = frozenset({"xattrs", "delete", "compress", "bidirectional", "exact"})


@dataclass(frozen=True)
class Offer:
    """How the source would send, and what snapshots it has, oldest first.

    has_archive: whether it can send Podium's archive, which is less work than rsync where nothing is here
    yet. by_rsync: whether it can do the latter. shift: what is added to each id on its disk. bound: what
    rsync may send in a second, as its pool says; "" for all it can. It is not told.
    """

    has_archive: bool = False
    by_rsync: bool = True
    is_live: bool = False
    features: frozenset[str] = frozenset()
    shift: int = 0
    bound: str = ""
    snapshots: tuple[ArrivedEntry, ...] = ()


@dataclass(frozen=True)
class Answer:
    """How the sink wants it. names: with *refresh*, the only snapshots that are wanted."""

    archive: bool = False
    by_rsync: bool = True
    features: frozenset[str] = frozenset()
    refresh: bool = False
    snapshots: tuple[ArrivedEntry, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(snapshot.name for snapshot in self.snapshots)


def offer_from(pool: Mapping[str, str], snapshots: tuple[ArrivedEntry, ...]) -> Offer:
    """Return what is offered of a volume in a pool that is configured so: only rsync keeps to its keys."""
    is_packed = parse_bool(pool.get("rsync.compression") or "true")
    features = FEATURES if is_packed else FEATURES - {"compress"}
    bound = pool.get("rsync.bwlimit", "")
    return Offer(has_archive=not bound, features=features, bound=bound, snapshots=snapshots)


def is_same(name: str, created_at: float, other: ArrivedEntry) -> bool:
    """Say whether a snapshot here is that one there: headers tell whole seconds, LXD's of volumes none."""
    return name == other.name and int(other.created_at) in (0, int(created_at))


def missing(offered: Iterable[ArrivedEntry], here: Iterable[tuple[str, float]]) -> list[ArrivedEntry]:
    """Return the snapshots that are offered and not *here*, by name and time."""
    has = list(here)
    return [entry for entry in offered if not any(is_same(*each, entry) for each in has)]


def wanted_of(offer: Offer, answer: Answer) -> list[str]:
    """Return the snapshots that are to be sent, oldest first. Raises: Invalid, Unsupported."""
    if not answer.by_rsync:
        why = "The other server takes no way of migration that is known here; move it by export and import"
        raise Unsupported("NO_WAY", why)
    offered = [entry.name for entry in offer.snapshots]
    if not answer.refresh:
        return offered
    if unknown := sorted(set(answer.names).difference(offered)):
        raise Invalid(
            "NO_SNAPSHOT", f"The other server wants a snapshot {unknown[0][:40]!r} that is not here"
        )
    return [name for name in offered if name in answer.names]
