"""Which host ids an instance has: a range of its own, so that no two share an owner on disk. Pure.

Ranges are handed out in blocks; raw.idmap puts single host ids into the range, security.idmap.* choose
place and length, security.privileged means none: root inside is root of the host.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from core.configkeys.instance import INSTANCE
from core.errors import Invalid, LimitReached
from core.policy.rawidmap import parse_rawidmap
from core.records import Instance
from core.units import parse_bool

FIRST, SIZE = 1_000_000, 65_536
LAST = 2**31
EVERY = 2**32 - 1
NOBODY = 65_534
_MOST_LINES = 100  # the kernel takes 340 lines of a map, and each of ours may split another


@dataclass(frozen=True)
class Range:
    """*count* ids from *inside* on are those from *host* on."""

    inside: int
    host: int
    count: int


@dataclass(frozen=True)
class IdMap:
    """Without ranges nobody is mapped; see PRIVILEGED."""

    uids: tuple[Range, ...] = ()
    gids: tuple[Range, ...] = ()

    @property
    def is_privileged(self) -> bool:
        return self == PRIVILEGED

    @property
    def is_of_users(self) -> bool:
        """Say whether root inside is a user or group that the host itself may have, but not its root."""
        return not self.is_privileged and min(self.root) < FIRST

    @property
    def root(self) -> tuple[int, int]:
        """Host uid and gid of root inside."""
        return to_host(self.uids, 0), to_host(self.gids, 0)

    def owner(self, uid: int, gid: int) -> tuple[int, int]:
        """Return the host ids of an owner inside. Raises: Invalid for one that is not in the map."""
        return to_host(self.uids, uid), to_host(self.gids, gid)


_ALL = (Range(0, 0, EVERY),)
PRIVILEGED = IdMap(_ALL, _ALL)


@dataclass(frozen=True)
class Wanted:
    """What the keys ask for. base 0: any."""

    base: int = 0
    size: int = SIZE
    raw: str = ""
    privileged: bool = False


def to_host(ranges: tuple[Range, ...], id: int) -> int:
    """Raises: Invalid."""
    for found in ranges:
        if found.inside <= id < found.inside + found.count:
            return found.host + id - found.inside
    most = max((r.inside + r.count for r in ranges), default=0)
    raise Invalid("BAD_ID", f"Id {id} is outside the instance's range of {most}")


def to_inside(ranges: tuple[Range, ...], id: int) -> int:
    """Return the id inside of a host id; nobody's where there is none."""
    for found in ranges:
        if found.host <= id < found.host + found.count:
            return found.inside + id - found.host
    return NOBODY


def of(instance: Instance) -> IdMap:
    """Return the map that is in effect. A record without ids has none, rather than those of the host."""
    if not instance.idmap_base:
        return PRIVILEGED if instance.idmap_size == EVERY else IdMap()
    return id_map(instance.idmap_base, instance.idmap_size, instance.idmap_raw)


def id_map(base: int, size: int = SIZE, raw: str = "") -> IdMap:
    maps: dict[str, tuple[Range, ...]] = {"uid": (Range(0, base, size),), "gid": (Range(0, base, size),)}
    for kind, entry in parse_raw(raw):
        maps[kind] = _put(maps[kind], entry)
    return IdMap(maps["uid"], maps["gid"])


def _put(ranges: tuple[Range, ...], new: Range) -> tuple[Range, ...]:
    """Return *ranges* with *new* in the place of what was mapped there, inside or from the host."""
    kept = []
    for old in ranges:
        kept += _cut(old, new.inside - old.inside, new.count)
    kept = [part for old in kept for part in _cut(old, new.host - old.host, new.count)]
    return tuple(sorted((*kept, new), key=lambda found: found.inside))


def _cut(old: Range, start: int, count: int) -> list[Range]:
    """Return what is left of *old* without *count* ids from its *start* on."""
    before, after = min(max(start, 0), old.count), min(max(start + count, 0), old.count)
    parts = (
        Range(old.inside, old.host, before),
        Range(old.inside + after, old.host + after, old.count - after),
    )
    return [part for part in parts if part.count]


def parse_raw(text: str) -> list[tuple[str, Range]]:
    """Return the entries of raw.idmap, "both" as two. Raises: Invalid in LXD's words."""
    found: list[tuple[str, Range]] = []
    try:
        entries = parse_rawidmap(text)
    except ValueError as exc:
        raise _bad(str(exc)) from None
    for entry in entries:
        host, inside, count = entry.host.start, entry.inside.start, len(entry.host)
        _check_host(host, count)
        found += [(kind, Range(inside, host, count)) for kind in entry.kinds]
    if len(found) > _MOST_LINES:
        raise _bad(f"At most {_MOST_LINES} ranges may be mapped")
    return found


def _check_host(first: int, count: int) -> None:
    """Root's and other instances' ids stay theirs."""
    if first + count > EVERY:
        raise _bad(f"Host ids end at {EVERY - 1}")
    if first == 0:
        raise _bad("Host id 0 cannot be mapped; set security.privileged if that is what you want")
    if first < LAST and first + count > FIRST:
        raise _bad(f"Host ids from {FIRST} to {LAST - 1} are handed out to instances; map others")


def _bad(why: str) -> Invalid:
    return Invalid("BAD_IDMAP", why, about="raw.idmap")


def wanted(config: Mapping[str, str]) -> Wanted:
    """Return what the keys of an expanded configuration ask for. Raises: Invalid."""
    base, size = (int(INSTANCE.get(config, f"security.idmap.{name}") or 0) for name in ("base", "size"))
    raw = config.get("raw.idmap", "")
    parse_raw(raw)
    if not 1 <= size <= LAST - FIRST:
        raise _bad(f"security.idmap.size must be between 1 and {LAST - FIRST}")
    if base and not FIRST <= base <= LAST - size:
        raise _bad(f"security.idmap.base: ids from {FIRST} to {LAST - 1} are handed out, {size} of them here")
    return Wanted(base, size, raw, parse_bool(INSTANCE.get(config, "security.privileged")))


def fits(instance: Instance, want: Wanted) -> bool:
    """Say whether *instance* has what is wanted already, of the ids that are handed out."""
    if want.privileged or not instance.idmap_base:
        return want.privileged and of(instance).is_privileged
    at = want.base or instance.idmap_base
    # A record may come from the note of another host's pool.
    if not FIRST <= instance.idmap_base <= LAST - instance.idmap_size:
        return False
    return (instance.idmap_base, instance.idmap_size, instance.idmap_raw) == (at, want.size, want.raw)


def place(want: Wanted, taken: Iterable[int]) -> int:
    """Return the base for *want*, 0 for a privileged one. Raises: Invalid, LimitReached."""
    if want.privileged:
        return 0
    if not want.base:
        return free_base(taken, want.size)
    if not set(blocks(want.base, want.size)).isdisjoint(taken):
        raise Invalid(
            "IDS_TAKEN",
            f"security.idmap.base: another instance has ids from {want.base} on",
            about="security.idmap.base",
        )
    return want.base


def free_base(taken: Iterable[int], size: int = SIZE) -> int:
    """Return the first id of a free range, given the blocks that are taken. Raises: LimitReached."""
    used, needed, run = set(taken), -(-size // SIZE), 0
    for block in range(FIRST, LAST - SIZE + 1, SIZE):
        run = 0 if block in used else run + 1
        if run == needed:
            return block - (needed - 1) * SIZE
    raise LimitReached("NO_IDS", "All ranges of user ids are taken; delete instances")


def blocks(base: int, size: int) -> list[int]:
    """Return the blocks that a range touches; none for a privileged instance."""
    if not base:
        return []
    first = FIRST + (base - FIRST) // SIZE * SIZE
    return list(range(first, base + size, SIZE))


def shown(found: IdMap) -> str:
    """Return the map as clients know it."""
    if found.is_privileged:
        return "[]"
    rows = [("true", "false", r) for r in found.uids] + [("false", "true", r) for r in found.gids]
    texts = (
        f'{{"Isuid":{uid},"Isgid":{gid},"Hostid":{r.host},"Nsid":{r.inside},"Maprange":{r.count}}}'
        for uid, gid, r in rows
    )
    return f"[{','.join(texts)}]"
