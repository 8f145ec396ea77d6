"""What the zfs driver asks of its tools and how it reads their answers: nothing here runs anything.

Source: zfs(8), zpool(8), zfsprops(7) of OpenZFS 2.2; tables are read as -H -p prints them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from core.errors import Invalid
from core.units import parse_bool

MARK = "podium:pool"
"""The property that says which folder of which Podium a dataset or zpool was made for."""
SNAPSHOT = "podium-"
_OWN = "podium"
_POOL_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.:-]{0,63}")
_PART = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9_.:-]{0,63}")
_SLACK = 1 << 20
_FIRST = (2, 2)


@dataclass(frozen=True)
class Place:
    """Where a pool lies. vdev: the file or device of a zpool that is wholly ours; None in somebody's own.

    base: the zpool or dataset that was named; below it is ours, whose children are the volumes.
    """

    base: str
    vdev: Path | None = None
    is_file: bool = False

    @property
    def zpool(self) -> str:
        return self.base.partition("/")[0]

    @property
    def root(self) -> str:
        return f"{self.base}/{_OWN}"

    @property
    def source(self) -> str:
        return str(self.vdev) if self.vdev else self.base


def place_of(pool: str, config: dict[str, str], disks: Path) -> Place:
    """Return where the pool lies, or is to. Raises: Invalid."""
    own, source = disks / f"{pool}.zfs", config.get("source") or ""
    name = config.get("zfs.pool_name") or ""
    if not source or source.startswith("/"):
        zpool = name or pool
        if not _POOL_NAME.fullmatch(zpool):
            raise Invalid("BAD_NAME", f"{zpool[:80]!r} cannot name a zpool; give another as zfs.pool_name")
        vdev = Path(source) if source else own
        return Place(zpool, vdev, is_file=vdev == own)
    first, *rest = source.split("/")
    if not _POOL_NAME.fullmatch(first) or not all(map(_PART.fullmatch, rest)):
        raise Invalid("NO_SOURCE", f"{source[:80]!r} is no zpool, dataset or whole path", about=source[:80])
    if name not in ("", source):
        raise Invalid("BAD_VALUE", "zfs.pool_name must be the source where that is a zpool or dataset")
    return Place(source)


def lacks(tools: dict[str, str | None], version: str) -> list[str]:
    """Return what keeps a host from the driver. tools: paths by name; version: of the module, "" for none."""
    found = [f'Required tool "{name}" is missing' for name, path in tools.items() if not path]
    if not version:
        return [*found, 'the kernel module "zfs" is not loaded']
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if numbers < _FIRST:
        found.append(f"OpenZFS {version} has no id-mapped mounts, which came with 2.2")
    return found


def make_zpool(place: Place, mark: str) -> list[str]:
    options = ["-m", "none", "-O", "compression=on", "-O", f"{MARK}={mark}"]
    return ["zpool", "create", *options, place.zpool, str(place.vdev)]


def import_zpool(place: Place) -> list[str]:
    where = ["-d", str(place.vdev.parent)] if place.vdev else []
    return ["zpool", "import", "-N", *where, place.zpool]


def make_base(place: Place, mark: str) -> list[str]:
    return ["zfs", "create", "-o", "canmount=off", "-o", f"{MARK}={mark}", place.base]


def make_root(place: Place, mark: str) -> list[str]:
    """Children inherit: we mount, nobody else does; and what overlays and guests need of attributes."""
    properties = ("mountpoint=legacy", "xattr=sa", "acltype=posixacl", f"{MARK}={mark}")
    return ["zfs", "create", *(word for value in properties for word in ("-o", value)), place.root]


def mount(dataset: str, target: Path) -> list[str]:
    return ["mount", "-t", "zfs", "-o", "nosuid,nodev", dataset, str(target)]


def bounds(size: int, config: dict[str, str]) -> list[str]:
    """Return the properties that bound a volume, one of the two as the pool says; 0 for none."""
    bounded = str(size) if size else "none"
    if parse_bool(config.get("volume.zfs.use_refquota") or "false"):
        return ["quota=none", f"refquota={bounded}"]
    return [f"quota={bounded}", "refquota=none"]


def least_bound(size: int, held: int) -> int:
    """Return the bound that zfs takes for a volume that holds *held* bytes: never less than those."""
    return max(size, held + _SLACK)


def names_in(listed: str, root: str) -> set[str]:
    """Return the volumes (KIND/ID) among the datasets below *root*."""
    below = (line.removeprefix(f"{root}/") for line in listed.splitlines() if line.startswith(f"{root}/"))
    return {name for name in below if name.count("/") == 1}


def clones_in(listed: str) -> list[str]:
    """Return all clones in a table of snapshots and their clones."""
    cells = (line.partition("\t")[2].strip() for line in listed.splitlines())
    return [clone for cell in cells if cell not in ("", "-") for clone in cell.split(",")]


def unused_snapshots(listed: str) -> list[str]:
    """Return the snapshots that we made for a copy and that nothing hangs on any more, of the same table."""
    found = []
    for line in listed.splitlines():
        name, _, clones = line.partition("\t")
        if f"@{SNAPSHOT}" in name and clones.strip() in ("", "-"):
            found.append(name)
    return found


def sizes_in(listed: str) -> dict[str, int]:
    """Return numbers by the last part of a dataset's name."""
    rows = (line.split("\t") for line in listed.splitlines())
    return {row[0].rpartition("/")[2]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdigit()}
