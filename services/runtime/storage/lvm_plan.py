"""What the lvm driver asks of its tools and how it reads their answers: nothing here runs anything.

Source: lvm(8), lvmthin(7), lvcreate(8), lvs(8) of LVM 2.03; tables are read without headings, commas between
cells, sizes in bytes.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from core.errors import Invalid

DEVICES = Path("/dev")
ROOT_SIZE = 1 << 30
DEFAULT_SIZE = 10 << 30
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,63}")
_TABLE = ["--noheadings", "--separator", ",", "--units", "b", "--nosuffix"]


@dataclass(frozen=True)
class Place:
    """Where a pool lies. disk: the file or device of a volume group that is all ours; None in another's."""

    group: str
    thin: str
    disk: Path | None = None
    is_file: bool = False

    @property
    def source(self) -> str:
        return str(self.disk) if self.disk else self.group

    @property
    def root(self) -> str:
        """The volume with the folders that the others are mounted in, and with the pool's notes."""
        return f"{self.thin}.root"

    @property
    def pool(self) -> str:
        return f"{self.group}/{self.thin}"

    def volume(self, name: str) -> str:
        return f"{self.group}/{volume_name(name)}"

    def device(self, name: str) -> Path:
        return DEVICES / self.group / volume_name(name)


def place_of(pool: str, config: dict[str, str], disks: Path) -> Place:
    """Return where the pool lies, or is to. Raises: Invalid."""
    own, source = disks / f"{pool}.lvm", config.get("source") or ""
    named, thin = config.get("lvm.vg_name") or "", config.get("lvm.thinpool_name") or f"podium-{pool}"
    is_disk = not source or source.startswith("/")
    group = (named or pool) if is_disk else source
    for name, key in ((group, "lvm.vg_name"), (thin, "lvm.thinpool_name")):
        if not _NAME.fullmatch(name) or name in (".", ".."):
            raise Invalid("BAD_NAME", f"{name[:80]!r} is no name for LVM; give another as {key}", about=key)
    if not is_disk and named not in ("", source):
        raise Invalid("BAD_VALUE", "lvm.vg_name must be the source where that is a volume group")
    disk = (Path(source) if source else own) if is_disk else None
    return Place(group, thin, disk, is_file=disk == own)


def volume_name(name: str) -> str:
    """Return how LVM calls a volume (KIND/ID); it knows neither "/" nor ":"."""
    return name.replace("/", "_", 1).replace(":", ".", 1)


def name_of(volume: str) -> str:
    """The other way; empty for what is no volume of ours."""
    kind, _, id = volume.partition("_")
    for begin in ("new", "old"):
        if id.startswith(f"{begin}."):
            id = f"{begin}:{id.removeprefix(f'{begin}.')}"
    return f"{kind}/{id}" if kind in ("containers", "custom") and id else ""


def mark_of(folder: Path) -> str:
    """Return the tag that says for which folder of which Podium something was made."""
    return f"podium.{hashlib.sha256(str(folder).encode()).hexdigest()[:32]}"


def rows(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split(",")] for line in table.splitlines() if line.strip()]


def groups() -> list[str]:
    return ["vgs", *_TABLE, "-o", "vg_name"]


def group_tags(group: str) -> list[str]:
    return ["vgs", *_TABLE, "-o", "vg_tags", group]


def group_free(group: str) -> list[str]:
    return ["vgs", *_TABLE, "-o", "vg_free,vg_extent_size", group]


def volumes(place: Place) -> list[str]:
    """Ask for name, thin pool, size, percent of it in use and tags: last those, of any number."""
    return ["lvs", *_TABLE, "-o", "lv_name,pool_lv,lv_size,data_percent,lv_tags", place.group]


def make_pool(place: Place, mark: str) -> list[str]:
    room = ["--extents", "100%FREE"]
    return ["lvcreate", "--yes", "--addtag", mark, *room, "--thinpool", place.thin, place.group]


def make_volume(place: Place, name: str, size: int, mark: str) -> list[str]:
    of = ["--virtualsize", f"{size}b", "--thinpool", place.pool, "--name", volume_name(name)]
    return ["lvcreate", "--yes", "--wipesignatures", "y", "--addtag", mark, *of]


def make_snapshot(place: Place, source: str, name: str, mark: str) -> list[str]:
    """A thin snapshot is a volume of its own; LVM would not bring it up with the others unless told to."""
    of = ["--setactivationskip", "n", "--addtag", mark, "--name", volume_name(name), place.volume(source)]
    return ["lvcreate", "--yes", "--snapshot", *of]


def make_filesystem(kind: str, device: Path) -> list[str]:
    return [f"mkfs.{kind}", "-q", str(device)]


def mount(kind: str, device: Path, target: Path) -> list[str]:
    """A snapshot of xfs bears the number of its origin, which xfs refuses to mount twice."""
    options = "nosuid,nodev,nouuid" if kind == "xfs" else "nosuid,nodev"
    return ["mount", "-t", kind, "-o", options, str(device), str(target)]


def grow_filesystem(kind: str, device: Path, target: Path) -> list[str]:
    return ["xfs_growfs", str(target)] if kind == "xfs" else ["resize2fs", str(device)]


def held(size: str, percent: str) -> int:
    """Return the bytes in use of a thin volume, which LVM tells in hundredths of a percent."""
    return int(int(size) * float(percent or "0") / 100)


def growth(size: int, has: int, extent: int) -> int:
    """Return the size to grow to, 0 when it is that already. Raises: Invalid for less than it has."""
    wanted = -(-size // extent) * extent
    if wanted < has:
        raise Invalid(
            "SHRINKS", f"A volume of lvm can only grow: it has {has} bytes, not {size}", about="size"
        )
    return wanted if wanted > has else 0


def lacks(tools: dict[str, str | None], *, has_module: bool) -> list[str]:
    found = [f'Required tool "{name}" is missing' for name, path in tools.items() if not path]
    return found if has_module else [*found, 'the kernel module "dm_thin_pool" is not loaded']
