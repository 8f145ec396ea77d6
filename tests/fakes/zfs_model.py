"""The part of zpool(8), zfs(8) and mount(8) that the driver uses, with folders in place of datasets.

The tests in tests/contract/test_zfs.py run on it and, where a host has ZFS, on that. Quotas bound nothing;
what the tools refuse because of clones, mounts and bounds is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from core.errors import WrongState
from services.runtime.storage import folders
from services.runtime.storage.tree import copy_tree, remove_tree


def refuse(why: str) -> WrongState:
    return WrongState("STORAGE_FAILED", f"zfs failed: {why}")


@dataclass
class Dataset:
    folder: Path
    properties: dict[str, str] = field(default_factory=dict)
    origin: str = "-"
    held: int = 1000


class ZfsModel:
    def __init__(self, backing: Path) -> None:
        self._backing = backing
        self._made = 0
        self.datasets: dict[str, Dataset] = {}
        self.snapshots: dict[str, Path] = {}
        self.exported: dict[str, str] = {}
        self.zpools: dict[str, str] = {}
        self.said: list[list[str]] = []

    def run(self, argv: list[str]) -> str:
        self.said.append(argv)
        if argv[0] == "mount":
            folders.mount(self._of(argv[-2]).folder, Path(argv[-1]), "bind")
            return ""
        options, rest = _options(argv[2:])
        answer: str | None = getattr(self, f"_{argv[0]}_{argv[1]}")(options, rest)
        return answer or ""

    def _folder(self) -> Path:
        self._made += 1
        folder = self._backing / str(self._made)
        folder.mkdir(parents=True)
        return folder

    def _of(self, dataset: str) -> Dataset:
        if dataset not in self.datasets:
            raise refuse("dataset does not exist")
        return self.datasets[dataset]

    # --- zpool ---

    def _zpool_list(self, options: dict[str, list[str]], rest: list[str]) -> str:
        return "".join(f"{name}\n" for name in self.zpools)

    def _zpool_create(self, options: dict[str, list[str]], rest: list[str]) -> None:
        name, vdev = rest
        if not Path(vdev).exists():
            raise refuse("no such device")
        self.zpools[name] = vdev
        self.datasets[name] = Dataset(self._folder(), _properties(options.get("-O", [])))

    def _zpool_import(self, options: dict[str, list[str]], rest: list[str]) -> None:
        vdev = self.exported.pop(rest[0], "")
        if not vdev or str(Path(vdev).parent) not in options["-d"]:
            raise refuse("no such pool available")
        self.zpools[rest[0]] = vdev

    def _zpool_export(self, options: dict[str, list[str]], rest: list[str]) -> None:
        self._free(rest[0])
        self.exported[rest[0]] = self.zpools.pop(rest[0])

    def _zpool_destroy(self, options: dict[str, list[str]], rest: list[str]) -> None:
        self._free(rest[0])
        del self.zpools[rest[0]]
        for name in self._below(rest[0]):
            del self.datasets[name]

    def _zpool_sync(self, options: dict[str, list[str]], rest: list[str]) -> None:
        assert rest[0] in self.zpools

    _zpool_online = _zpool_sync

    # --- zfs ---

    def _zfs_create(self, options: dict[str, list[str]], rest: list[str]) -> None:
        if rest[0] in self.datasets or rest[0].rpartition("/")[0] not in self.datasets:
            raise refuse("dataset already exists, or its parent does not")
        self.datasets[rest[0]] = Dataset(self._folder(), _properties(options.get("-o", [])))

    def _zfs_list(self, options: dict[str, list[str]], rest: list[str]) -> str:
        columns, depth = options["-o"][0].split(","), int(options.get("-d", ["99"])[0])
        if "@" in rest[0]:
            names = [rest[0]]
        elif options["-t"] == ["snapshot"]:
            owners = self._below(rest[0], depth - 1)
            names = [name for name in self.snapshots if name.partition("@")[0] in owners]
        else:
            self._of(rest[0])
            names = self._below(rest[0], depth)
        return "".join("\t".join(self._cell(name, key) for key in columns) + "\n" for name in names)

    def _zfs_get(self, options: dict[str, list[str]], rest: list[str]) -> str:
        key, name = rest
        if options.get("-s") == ["local"]:
            found = self._of(name).properties.get(key)
            return f"{found}\n" if found else ""
        return f"{self._cell(name, key)}\n"

    def _zfs_set(self, options: dict[str, list[str]], rest: list[str]) -> None:
        *values, name = rest
        wanted = _properties(values)
        for key in ("quota", "refquota"):
            if wanted[key] != "none" and int(wanted[key]) < self._of(name).held:
                raise refuse("size is less than current used or reserved space")
        self._of(name).properties.update(wanted)

    def _zfs_snapshot(self, options: dict[str, list[str]], rest: list[str]) -> None:
        self.snapshots[rest[0]] = taken = self._folder()
        copy_tree(self._of(rest[0].partition("@")[0]).folder, taken)

    def _zfs_clone(self, options: dict[str, list[str]], rest: list[str]) -> None:
        self._zfs_create({}, rest[1:])
        copy_tree(self.snapshots[rest[0]], self.datasets[rest[1]].folder)
        self.datasets[rest[1]].origin = rest[0]

    def _zfs_promote(self, options: dict[str, list[str]], rest: list[str]) -> None:
        clone = self._of(rest[0])
        if any(clone.properties.get(key, "none") != "none" for key in ("quota", "refquota")):
            raise refuse("out of space")
        owner, _, last = clone.origin.partition("@")
        parent, clone.origin = self._of(owner), self._of(owner).origin
        of_owner = [name for name in self.snapshots if name.startswith(f"{owner}@")]
        for name in of_owner[: of_owner.index(f"{owner}@{last}") + 1]:
            moved = f"{rest[0]}@{name.partition('@')[2]}"
            self.snapshots[moved] = self.snapshots.pop(name)
            for other in self.datasets.values():
                other.origin = moved if other.origin == name else other.origin
        parent.origin = f"{rest[0]}@{last}"

    def _zfs_rename(self, options: dict[str, list[str]], rest: list[str]) -> None:
        old, new = rest
        if new in self.datasets:
            raise refuse("dataset already exists")
        self.datasets[new] = self.datasets.pop(old)
        for name in [name for name in self.snapshots if name.startswith(f"{old}@")]:
            moved = f"{new}@{name.partition('@')[2]}"
            self.snapshots[moved] = self.snapshots.pop(name)
            for other in self.datasets.values():
                other.origin = moved if other.origin == name else other.origin

    def _zfs_destroy(self, options: dict[str, list[str]], rest: list[str]) -> None:
        if "@" in rest[0]:
            if self._clones(rest[0]):
                raise refuse("snapshot has dependent clones")
            del self.snapshots[rest[0]]
            return
        gone, deep = self._below(rest[0]), "-r" in options
        taken = [name for name in self.snapshots if name.partition("@")[0] in gone]
        if not gone or (not deep and (taken or len(gone) > 1)):
            raise refuse("dataset does not exist or has children")
        if any(set(self._clones(name)) - set(gone) for name in taken):
            raise refuse("filesystem has dependent clones")
        self._free(rest[0])
        for name in taken:
            del self.snapshots[name]
        for name in gone:
            remove_tree(self.datasets.pop(name).folder)

    def _free(self, dataset: str) -> None:
        mounted = Path("/proc/self/mountinfo").read_text()
        if any(f"{self.datasets[name].folder} " in mounted for name in self._below(dataset)):
            raise refuse("dataset is busy")

    def _below(self, dataset: str, depth: int = 99) -> list[str]:
        found = (n for n in self.datasets if n == dataset or n.startswith(f"{dataset}/"))
        most = dataset.count("/") + depth
        return sorted(name for name in found if name.count("/") <= most)

    def _clones(self, snapshot: str) -> list[str]:
        return sorted(name for name, one in self.datasets.items() if one.origin == snapshot)

    def _cell(self, name: str, key: str) -> str:
        if key == "name":
            return name
        if key == "clones":
            return ",".join(self._clones(name))
        one = self._of(name)
        if key in ("quota", "refquota"):
            found = one.properties.get(key, "none")
            return "0" if found == "none" else found
        held = {"used": one.held, "referenced": one.held, "available": 1 << 29}
        return one.origin if key == "origin" else str(held[key])


_WITH_VALUE = ("-o", "-O", "-d", "-t", "-s", "-m")


def _options(words: list[str]) -> tuple[dict[str, list[str]], list[str]]:
    found, left = dict[str, list[str]](), list(words)
    while left and left[0].startswith("-"):
        option = left.pop(0)
        found.setdefault(option, []).extend([left.pop(0)] if option in _WITH_VALUE else [])
    return found, left


def _properties(values: list[str]) -> dict[str, str]:
    return {key: value for key, _, value in (word.partition("=") for word in values)}
