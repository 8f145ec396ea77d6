"""What the ceph driver asks of its tools and how it reads their answers: nothing here runs anything.

Source: rbd(8), ceph(8) and the RBD manual of Ceph 16 to 19. Answers are JSON; other shapes are refused.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import orjson

from core.errors import Invalid, WrongState

T = TypeVar("T")
ROOT_SIZE = 1 << 30
DEFAULT_SIZE = 10 << 30
OWNER = "podium.owner"
MADE = "podium_made"
SNAPSHOT = "podium-"
ROOT, NEW_ROOT = "root/0", "root/new:0"
FEATURES = frozenset({"layering", "exclusive-lock", "object-map", "fast-diff", "deep-flatten"})
_GRAIN = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,127}")
_KINDS = ("containers", "custom", "gone", "root")
_STATES = {"whole": "", "new": "new:", "old": "old:"}


@dataclass(frozen=True)
class Place:
    """Where a pool lies: in an OSD pool of a cluster, beside other pools and other people's images."""

    pool: str
    osd: str
    cluster: str = "ceph"
    user: str = "admin"
    groups: int = 32

    def image(self, name: str) -> str:
        return f"{self.osd}/{image_name(self.pool, name)}"

    def rbd(self, *words: str) -> list[str]:
        return ["rbd", "--cluster", self.cluster, "--id", self.user, *words]

    def ceph(self, *words: str) -> list[str]:
        return ["ceph", "--cluster", self.cluster, "--id", self.user, *words]


@dataclass(frozen=True)
class Row:
    """An image, or with *snapshot* one of its snapshots. parent: IMAGE@SNAPSHOT in the same OSD pool."""

    image: str
    snapshot: str = ""
    parent: str = ""
    is_protected: bool = False


def place_of(pool: str, config: dict[str, str]) -> Place:
    """Return where the pool lies, or is to. Raises: Invalid."""
    source, named = config.get("source") or "", config.get("ceph.osd.pool_name") or ""
    if source and named and source != named:
        raise Invalid("BAD_VALUE", "source must be ceph.osd.pool_name where both are given", about="source")
    place = Place(
        pool,
        named or source or pool,
        config.get("ceph.cluster_name") or "ceph",
        config.get("ceph.user.name") or "admin",
        int(config.get("ceph.osd.pg_num") or "32"),
    )
    names = (
        (place.osd, "ceph.osd.pool_name"),
        (place.cluster, "ceph.cluster_name"),
        (place.user, "ceph.user.name"),
    )
    for name, key in names:
        if not _NAME.fullmatch(name):
            raise Invalid("BAD_NAME", f"{name[:80]!r} is no name for Ceph; give another as {key}", about=key)
    if not 1 <= place.groups <= 65536:
        raise Invalid("BAD_VALUE", "ceph.osd.pg_num must be 1 to 65536", about="ceph.osd.pg_num")
    return place


def features_of(config: dict[str, str]) -> list[str]:
    """Return what images are made with: what is asked for, and what copies need. Raises: Invalid."""
    asked = {word.strip() for word in (config.get("ceph.rbd.features") or "").split(",")} - {""}
    if unknown := sorted(asked - FEATURES):
        why = f"{unknown[0][:80]!r} is no feature that the kernel maps; use {', '.join(sorted(FEATURES))}"
        raise Invalid("BAD_VALUE", f"Invalid ceph.rbd.features: {why}", about="ceph.rbd.features")
    return sorted(asked | {"layering"})


def image_name(pool: str, name: str) -> str:
    """Return the image of KIND/ID. The pool comes last: it may have dots, what comes before has none."""
    kind, _, id = name.partition("/")
    state = next((state for state, begin in _STATES.items() if begin and id.startswith(begin)), "whole")
    return f"podium.{kind}.{state}.{id.removeprefix(_STATES[state])}.{pool}"


def name_of(pool: str, image: str) -> str:
    """The other way; empty for what is none of this pool's images."""
    words = image.split(".", 4)
    if len(words) < 5 or words[0] != "podium" or words[4] != pool or not words[3]:
        return ""
    if words[1] not in _KINDS or words[2] not in _STATES:
        return ""
    return f"{words[1]}/{_STATES[words[2]]}{words[3]}"


def volumes_in(pool: str, images: Sequence[str]) -> set[str]:
    names = {name_of(pool, image) for image in images}
    return {name for name in names if name.startswith(("containers/", "custom/"))}


def mark_of(folder: Path, machine: str) -> str:
    """Return what says for which folder of which host something was made: a cluster is seen by many."""
    return hashlib.sha256(f"{machine.strip()}\0{folder}".encode()).hexdigest()[:32]


# --- what is asked ---


def images(place: Place) -> list[str]:
    return place.rbd("ls", "--format", "json", place.osd)


def table(place: Place) -> list[str]:
    return place.rbd("ls", "--long", "--format", "json", place.osd)


def make_image(place: Place, name: str, size: int, features: Sequence[str]) -> list[str]:
    with_features = [word for feature in features for word in ("--image-feature", feature)]
    return place.rbd("create", "--size", f"{rounded(size)}B", *with_features, place.image(name))


def clone(place: Place, snapshot: str, name: str, features: Sequence[str]) -> list[str]:
    with_features = [word for feature in features for word in ("--image-feature", feature)]
    return place.rbd("clone", *with_features, snapshot, place.image(name))


def make_osd_pool(place: Place, mark: str) -> list[list[str]]:
    return [
        place.ceph("osd", "pool", "create", place.osd, str(place.groups)),
        place.ceph("osd", "pool", "application", "enable", place.osd, "rbd"),
        place.ceph("osd", "pool", "application", "set", place.osd, "rbd", MADE, mark),
    ]


def applications(place: Place) -> list[str]:
    return place.ceph("osd", "pool", "application", "get", place.osd, "--format", "json")


def remove_osd_pool(place: Place) -> list[str]:
    return place.ceph("osd", "pool", "delete", place.osd, place.osd, "--yes-i-really-really-mean-it")


def sweep(place: Place, rows: Sequence[Row]) -> list[list[str]]:
    """Return how to remove what nothing needs any more: our snapshots that nothing was cloned from, and
    images that are gone and have none left; and so on up to what those were cloned from."""
    left, steps = list(rows), []
    while found := _needless(place.pool, left):
        for row in found:
            spec = f"{place.osd}/{row.image}"
            if row.snapshot and row.is_protected:
                steps.append(place.rbd("snap", "unprotect", f"{spec}@{row.snapshot}"))
            steps.append(
                place.rbd("snap", "rm", f"{spec}@{row.snapshot}")
                if row.snapshot
                else place.rbd("rm", "--no-progress", spec)
            )
        left = [row for row in left if row not in found]
    return steps


def _needless(pool: str, rows: Sequence[Row]) -> list[Row]:
    parents, held = {row.parent for row in rows}, {row.image for row in rows if row.snapshot}
    ours = [row for row in rows if name_of(pool, row.image)]
    return [
        row
        for row in ours
        if (row.snapshot.startswith(SNAPSHOT) and f"{row.image}@{row.snapshot}" not in parents)
        or (not row.snapshot and row.image not in held and name_of(pool, row.image).startswith("gone/"))
    ]


def rounded(size: int) -> int:
    return -(-size // _GRAIN) * _GRAIN


def growth(size: int, has: int) -> int:
    """Return the size to grow to, 0 when it is that already. Raises: Invalid for less than it has."""
    wanted = rounded(size)
    if wanted < has:
        why = f"A volume of ceph can only grow: it has {has} bytes, not {size}"
        raise Invalid("SHRINKS", why, about="size")
    return wanted if wanted > has else 0


# --- what is answered ---


def strings(answer: str) -> list[str]:
    found = _json(answer, list)
    return [_of(str, item) for item in found]


def size_in(answer: str) -> int:
    return _of(int, _json(answer, dict).get("size"))


def rows_in(answer: str, osd: str) -> list[Row]:
    return [_row(_of(dict, item), osd) for item in _json(answer, list)]


def _row(item: dict[str, Any], osd: str) -> Row:
    parent = _of(dict, item.get("parent", {}))
    origin = ""
    if parent and _of(str, parent.get("pool")) == osd:
        origin = f"{_of(str, parent.get('image'))}@{_of(str, parent.get('snapshot'))}"
    protected = item.get("protected", False) in (True, "true")
    return Row(_of(str, item.get("image")), _of(str, item.get("snapshot", "")), origin, protected)


def devices_in(answer: str, osd: str) -> dict[str, str]:
    """Return the devices of an OSD pool's images. Ceph before 14 answers with an object by number."""
    found = _json(answer or "[]", object)
    items = found.values() if isinstance(found, dict) else _of(list, found)
    mapped = [_of(dict, item) for item in items]
    ours = [item for item in mapped if item.get("pool") == osd and item.get("snap", "-") == "-"]
    return {_of(str, item.get("name")): device_in(_of(str, item.get("device"))) for item in ours}


def device_in(answer: str) -> str:
    """Return the device that mapping an image gave."""
    device = answer.strip()
    if not re.fullmatch(r"/dev/[a-z]+[0-9]+", device):
        raise unread(answer)
    return device


def metadata_in(answer: str) -> dict[str, str]:
    return {key: _of(str, value) for key, value in _json(answer or "{}", dict).items()}


def applications_in(answer: str) -> dict[str, dict[str, str]]:
    return {name: _of(dict, keys) for name, keys in _json(answer or "{}", dict).items()}


def space_in(answer: str, osd: str) -> tuple[int, int]:
    """Return the bytes stored in an OSD pool, and those that it has room for."""
    for item in _of(list, _json(answer, dict).get("pools")):
        if _of(dict, item).get("name") == osd:
            stats = _of(dict, item.get("stats"))
            stored = _of(int, stats.get("stored", stats.get("bytes_used")))
            return stored, stored + _of(int, stats.get("max_avail"))
    raise unread(answer)


def _json(answer: str, kind: type[T]) -> T:
    try:
        return _of(kind, orjson.loads(answer))
    except orjson.JSONDecodeError:
        raise unread(answer) from None


def _of(kind: type[T], value: Any) -> T:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise unread(str(value))
    return value


def unread(answer: str) -> WrongState:
    return WrongState("STORAGE_FAILED", f"Ceph answered what Podium cannot read: {answer[:120]!r}")


def lacks(tools: dict[str, str | None], *, has_module: bool) -> list[str]:
    found = [f'Required tool "{name}" is missing' for name, path in tools.items() if not path]
    return found if has_module else [*found, 'the kernel module "rbd" is not loaded']
